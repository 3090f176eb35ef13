"""The next frame's stem between the layers of this one."""

import dataclasses

import pytest

from compiler import overlap
from compiler.estimate import estimate, frame_cycles
from compiler.overlap import free_rows, overlap_stem
from compiler.pipeline import compile_tensors
from compiler.verify import VerificationError
from host.models import SDRAM_EFFICIENCY
from isa.geometry import TINY, ULX3S_25F, ULX3S_85F
from isa.image import PacketType
from isa.layer import LayerKind
from isa.network import Network
from isa.registers import Source
from sim.core_build import CORE_MHZ, MEMORY_MHZ
from sim.golden import Golden
from sim.runner import simulate
from tests.cycles import assert_explained
from tests.geometries import MIDDLE_SDRAM
from tests.networks import DEEP, SMALL_NETWORKS, random_checkpoint, random_frames, small_network

FMNIST = Network("fmnist-s", (28, 28), 1, 10, (32, 64, 128), (2, 2, 2), (0.286,), (0.353,))


def deep(**options):
    return compile_tensors(*random_checkpoint(DEEP), ULX3S_25F, **options)


@pytest.fixture(scope="module")
def compiled():
    return deep()


def without_overlap(program):
    """The same program, had overlap_stem left it alone."""
    layers = compile_tensors(
        *random_checkpoint(program.network), program.geometry, source=Source.LINK, verify=False
    ).program.layers
    return dataclasses.replace(program, layers=layers)


@pytest.mark.parametrize("geometry", [TINY, ULX3S_25F], ids=lambda g: g.name)
@pytest.mark.parametrize("network", SMALL_NETWORKS, ids=lambda n: n.name)
def test_what_gains_nothing_stays_as_it_is(network, geometry):
    """From a RAM: the arrays are the bottleneck, or the stem is too small to fill what is lost."""
    program = compile_tensors(*random_checkpoint(network), geometry, verify=False).program
    assert all(layer.packet is PacketType.LAYER for layer in program.layers)


def test_fmnist_s_stays_as_it_is():
    program = compile_tensors(*random_checkpoint(FMNIST), ULX3S_25F, verify=False).program
    assert all(layer.packet is PacketType.LAYER for layer in program.layers)


def test_a_schedule_that_pays(compiled):
    program = compiled.program
    before = without_overlap(program)
    assert frame_cycles(program) < 0.95 * frame_cycles(before)
    assert compiled.report["estimate"]["in_sequence"] == frame_cycles(before)
    stems = [layer for layer in program.layers if layer.kind is LayerKind.STEM]
    assert [layer.packet for layer in stems] == [PacketType.STEM] + [PacketType.AHEAD] * (
        len(stems) - 1
    )
    assert len(stems) > 3
    assert sum(layer.out_size[0] for layer in stems) == 2 * 16
    assert compiled.report["overlap"] is True
    assert compiled.report["image"]["packets"]["AHEAD"]["count"] == len(stems) - 1
    assert compiled.report["estimate"]["cycles"] == frame_cycles(program)
    assert compiled.report["estimate"]["alone"] > compiled.report["estimate"]["cycles"]
    stem = compiled.report["layers"][0]
    assert (stem["name"], stem["parts"], stem["ahead"]) == ("stem", len(stems) - 1, True)
    assert len(compiled.report["order"]) == len(estimate(program))


def test_it_is_sound(compiled):
    """The golden model looks at every address; the compiler has verified what is computed."""
    assert Golden(ULX3S_25F, compiled.image).ahead


def test_overlapped_frames_equal_golden(compiled):
    """And take as long as estimated, part by part; so does a frame alone."""
    result = simulate(ULX3S_25F, compiled.image, random_frames(DEEP, 4))
    assert (result.mismatches, result.first) == (0, None)
    assert_explained(result)
    assert result.cycles[1] == pytest.approx(frame_cycles(compiled.program), rel=0.01)
    assert result.cycles[1] == result.cycles[2]
    alone = simulate(ULX3S_25F, compiled.image, random_frames(DEEP, 1))
    assert alone.cycles[0] == pytest.approx(compiled.report["estimate"]["alone"], rel=0.01)
    # The classifier's estimate goes on to the frame's end.
    ends = [0] * (len(result.layer_cycles[1]) - 1) + [result.tails[1].cycles]
    parts = zip(result.layer_cycles[1], ends, estimate(compiled.program), strict=True)
    for part, end, estimated in parts:
        assert part.kind.name == estimated.kind
        assert part.cycles + end == pytest.approx(estimated.cycles, abs=15)


@pytest.mark.full
def test_overlapped_frames_from_an_sdram():
    """Two thirds of a word a cycle, but for refresh; frames wait in the same memory."""
    rate = SDRAM_EFFICIENCY * MEMORY_MHZ / CORE_MHZ / 2
    compiled = compile_tensors(*random_checkpoint(DEEP), MIDDLE_SDRAM, stream_rate=rate)
    result = simulate(MIDDLE_SDRAM, compiled.image, random_frames(DEEP, 3))
    assert (result.mismatches, result.first) == (0, None)
    assert_explained(result)
    assert compiled.report["overlap"]
    assert result.cycles[1] == pytest.approx(frame_cycles(compiled.program), rel=0.05)


def test_the_more_is_lost_in_waiting_the_more_is_gained(compiled):
    """At half a word a cycle; or with arrays so large that fmnist-s waits for its weights."""
    slow = deep(stream_rate=0.5, verify=False).program
    assert slow.stream_rate == 0.5
    gain = frame_cycles(without_overlap(slow)) - frame_cycles(slow)
    assert gain > frame_cycles(without_overlap(compiled.program)) - frame_cycles(compiled.program)
    fmnist = compile_tensors(*random_checkpoint(FMNIST), ULX3S_85F, verify=False).program
    assert any(layer.packet is PacketType.AHEAD for layer in fmnist.layers)


def test_over_the_link_frames_do_not_overlap():
    image = deep(source=Source.LINK, verify=False).image
    assert all(packet.type is not PacketType.AHEAD for packet in image.packets)


def test_an_image_must_still_fit(compiled):
    words = len(without_overlap(compiled.program).layers)
    geometry = dataclasses.replace(ULX3S_25F, image_words=len(compiled.image.words) - 1)
    other = compile_tensors(*random_checkpoint(DEEP), geometry, verify=False)
    assert len(other.image.words) <= geometry.image_words
    assert len(other.program.layers) < len(compiled.program.layers)
    assert len(other.program.layers) >= words


def test_a_stem_of_several_tiles_is_not_cut():
    network = dataclasses.replace(DEEP, widths=(20, 32, 64))
    program = compile_tensors(
        *random_checkpoint(network), ULX3S_25F, stream_rate=0.2, verify=False
    ).program
    assert program.layers[0].tiles.count == 2
    assert all(layer.packet is PacketType.LAYER for layer in program.layers)


def test_rows_are_free_when_nothing_uses_their_words():
    """tiny has residual words for two of the stem's maps, so that later stages leave all of it; but
    the bit maps fill their memory: blocks.0 writes 256..511, and blocks.1, which reads that,
    128..255, which blocks.2 reads."""
    program = compile_tensors(*random_checkpoint(small_network("three-stages")), TINY).program
    names = [layer.name for layer in program.layers]
    assert dict(zip(names, free_rows(program), strict=True)) == {
        "stem": 0, "blocks.0": 0, "blocks.1.pool": 0, "blocks.1.shortcut": 8, "blocks.1": 8,
        "blocks.2.pool": 8, "blocks.2.shortcut": 8, "blocks.2": 16, "mean": 16, "fc": 16,
    }  # fmt: skip


def test_rows_that_are_not_free_are_refused(monkeypatch):
    """The verification notices what a wrong notion of free rows would do, in memories that are
    no larger than they must be."""
    geometry = dataclasses.replace(ULX3S_25F, residual_words=8 * 8 * 8, bit_words=2 * 8 * 8)
    assert compile_tensors(*random_checkpoint(DEEP), geometry).report["overlap"]
    monkeypatch.setattr(overlap, "free_rows", lambda program: [8] * len(program.layers))
    with pytest.raises(VerificationError, match=r"^Level overlap_stem: "):
        compile_tensors(*random_checkpoint(DEEP), geometry)


def test_too_many_layers_are_no_candidate(monkeypatch, compiled):
    monkeypatch.setattr(overlap, "MOST_LAYERS", len(compiled.program.layers) - 1)
    program = without_overlap(compiled.program)
    assert len(overlap_stem(program).layers) < len(compiled.program.layers)
