"""The runner: results joined with traces, and whole cores against the golden model."""

import dataclasses

import numpy as np
import pytest

from compiler.pipeline import compile_tensors
from hw.result import Result
from isa import checked
from isa.flash import combine
from isa.geometry import TINY, ULX3S_25F, ULX3S_85F
from isa.image import HEADER_WORDS, LAYER_TYPES, Packet, PacketType, build, words_to_bytes
from isa.layer import LAYER, LayerKind
from isa.registers import NO_CLASS, ErrorCode, Source, State
from isa.trace import EXCLUSIVE
from sim.golden import Golden, GoldenError
from sim.runner import collect, simulate, top_classes
from sim.session import COUNTERS, Job
from sim.simulator import SimulationError
from sim.surroundings import Flash, Stalls
from sim.trace import record_of
from tests.cycles import assert_explained
from tests.geometries import TINY_SDRAM, TINY_STEM
from tests.networks import SMALL_NETWORKS, random_checkpoint, random_frames, small_network
from tests.parts import overlapped


def compiled(network, geometry, seed=0):
    return compile_tensors(*random_checkpoint(network, seed), geometry, verify=False).image


@pytest.fixture(scope="module")
def faultless():
    """Golden frames of `plain`, the traces, and the session's results that belong to them."""
    network = small_network("plain")
    golden = Golden(TINY, compiled(network, TINY))
    expected = [golden.run(frame) for frame in random_frames(network, 2)]
    records = [record_of(TINY, frame) for frame in expected]
    results = [
        {
            "logits": frame.logits.tolist(),
            "top": [list(entry) for entry in top_classes(frame.logits, 3)],
            "counters": dict.fromkeys(COUNTERS, 0) | {"cycles": record.cycle},
            "started": 7,
        }
        for frame, record in zip(expected, records, strict=True)
    ]
    return expected, records, results


def test_collects(faultless):
    expected, records, results = faultless
    result = collect(TINY, expected, records, results)
    assert (result.mismatches, result.differences, result.first) == (0, [], None)
    assert np.array_equal(result.logits, [frame.logits for frame in expected])
    values = [x.data.size for x in vars(expected[0].layers[0]).values() if hasattr(x, "data")]
    assert sum(values) == 64 * 8 * 2
    # stem and two binary layers, the second without bits; features, logits, and what the host reads
    assert result.compared_values == 2 * (64 * 8 * 5 + 8 + 4 + 3 + 2 * 3)
    assert result.layers == 5
    assert result.cycles == [record.cycle for record in records]
    assert result.end == records[1].cycle
    kinds = [layer.kind for layer in result.layer_cycles[1]]
    assert kinds == [LayerKind.STEM, *[LayerKind.BINARY] * 2, LayerKind.MEAN, LayerKind.CLASSIFIER]
    assert sum(layer.cycles for layer in result.layer_cycles[0]) == records[0].layers[-1].cycle


def test_names_wrong_results(faultless):
    expected, records, results = faultless
    logits, top = results[1]["logits"], results[1]["top"]
    wrong = results[1] | {"logits": [logits[0], logits[1] + 1, logits[2]], "top": top[::-1]}
    result = collect(TINY, expected, records, [results[0], wrong])
    assert result.mismatches == 3
    assert result.first == (
        f"Frame 1, logit of class 1 read over the bus: expected {logits[1]}, found {logits[1] + 1}"
    )
    assert result.differences[1] == (
        f"Frame 1, entry 0 of the largest logits: expected class {top[0][0]} with {top[0][1]}, "
        f"found class {top[2][0]} with {top[2][1]}"
    )


def test_counts_and_names_wrong_traces(faultless):
    expected, records, results = faultless
    layer = dataclasses.replace(records[0].layers[0], index=3)
    wrong = dataclasses.replace(records[0], layers=[layer, *records[0].layers[1:]])
    result = collect(TINY, expected, [wrong, records[1]], results)
    assert result.mismatches == 64 * 8 * 2
    assert result.first == "Frame 0, layer 0 (stem): expected this layer, found layer 3 (stem)"


def test_missing_frames(faultless):
    expected, records, results = faultless
    with pytest.raises(SimulationError) as error:
        collect(TINY, expected, records[:1], results)
    assert str(error.value) == "Trace must have 2 frames, not 1"


def test_largest_logits_ties_go_to_the_lower_class():
    logits = np.array([5, 9, 9, -3])
    assert top_classes(logits, 3) == [(1, 9), (2, 9), (0, 5)]
    assert top_classes(logits, 5)[3:] == [(3, -3), (NO_CLASS, -(1 << 23))]


def test_job_there_and_back(tmp_path):
    job = Job("a", 100, 2, 16, classes=3, top_k=5, stalls="heavy", late_input=True)
    job.write(tmp_path / "job.json")
    assert Job.read(tmp_path / "job.json") == job


def test_refuses_before_it_builds():
    network = small_network("plain")
    image = compiled(network, TINY)
    with pytest.raises(ValueError) as error:
        simulate(TINY, image, random_frames(network, 0))
    assert str(error.value) == "Frames must be at least one, not none"
    with pytest.raises(GoldenError):
        simulate(
            TINY, dataclasses.replace(image, packets=image.packets[1:]), np.zeros((1, 8, 8, 1))
        )


# --- whole cores -----------------------------------------------------------------------------


def run(geometry, network, count=2, **options):
    """Simulates ``count`` frames; all that the core writes must be as the golden model says, and
    every cycle must be counted once."""
    result = simulate(
        geometry, compiled(network, geometry), random_frames(network, count), **options
    )
    assert result.first is None
    assert result.mismatches == 0
    assert result.compared_values > 100 * count
    assert len(result.cycles) == count
    assert_explained(result)
    return result


@pytest.mark.parametrize("network", SMALL_NETWORKS, ids=lambda network: network.name)
def test_tiny_equals_golden(network):
    run(TINY, network)


@pytest.mark.parametrize("name", ["odd-channels", "big-stem"])
@pytest.mark.parametrize("geometry", [ULX3S_25F, ULX3S_85F], ids=lambda geometry: geometry.name)
def test_larger_geometries_equal_golden(geometry, name):
    run(geometry, small_network(name))


STEMS = ("odd-channels", "not-square", "big-stem", "strided-stem", "pooled-stem")


@pytest.mark.parametrize("name", STEMS)
def test_more_taps_for_the_stem_equal_golden(name):
    """3x3 and 7x7, pooled or not, 1 to 4 input channels, three of them a step."""
    run(TINY_STEM, small_network(name))


@pytest.mark.parametrize(
    "stalls", [Stalls("light", 1), Stalls("heavy", 2), Stalls("heavy", 3, late_input=True)], ids=str
)
def test_stalls_change_nothing(stalls):
    run(TINY, small_network("odd-channels"), 3, stalls=stalls)


def test_late_input_is_waited_for():
    result = run(TINY, small_network("plain"), 2, stalls=Stalls(late_input=True))
    assert all(counters["wait_input"] > 0 for counters in result.counters)


def test_image_from_the_host():
    """Streamed for every frame; the ring waits for weights, and the results are the same."""
    network = small_network("plain")
    streamed, stored = run(TINY, network, source=Source.LINK), run(TINY, network)
    assert np.array_equal(streamed.logits, stored.logits)
    assert streamed.cycles[0] > stored.cycles[0]


@pytest.mark.parametrize("network", SMALL_NETWORKS, ids=lambda network: network.name)
def test_image_and_frames_in_sdram(network):
    """The model of the chip ends the simulation when it is used against its data sheet."""
    run(TINY_SDRAM, network, 3)


@pytest.mark.parametrize(
    "stalls", [Stalls("heavy", 2), Stalls("heavy", 3, late_input=True)], ids=str
)
def test_stalls_change_nothing_with_an_sdram(stalls):
    run(TINY_SDRAM, small_network("odd-channels"), 3, stalls=stalls)


@pytest.mark.parametrize("stalls", [Stalls(), Stalls("light", 4)], ids=str)
def test_frames_that_wait_in_the_sdram(stalls):
    """One is started when the one before it is done, and little else happens in between."""
    result = run(TINY_SDRAM, small_network("odd-channels"), 5, queued=True, stalls=stalls)
    assert result.logits.shape == (1, 10)
    for number, start in enumerate(result.starts[:-1]):
        between = result.starts[number + 1] - start - result.cycles[number]
        assert 0 < between < 1500


def test_a_memory_that_pauses_takes_longer():
    network = small_network("odd-channels")
    image = compiled(network, TINY_SDRAM)
    waits, cycles = [], []
    for kind in ("none", "light", "heavy"):
        result = simulate(TINY_SDRAM, image, random_frames(network, 2), stalls=Stalls(kind))
        waits.append(sum(counters["wait_stream"] for counters in result.counters))
        cycles.append(sum(result.cycles))
    # Both frames together: where a pause falls into the first one alone, it may cost nothing.
    assert waits == sorted(waits)
    assert waits[2] > 2 * waits[0]
    assert cycles == sorted(cycles)
    assert cycles[2] > cycles[0]


def test_progress_is_told():
    told = []
    run(TINY_SDRAM, small_network("odd-channels"), 4, progress=told.append)
    assert told == sorted(told)


def test_an_sdram_that_is_broken(tmp_path):
    """The session reports what the memory test has found."""
    network = small_network("plain")
    with pytest.raises(SimulationError, match="SDRAM has a fault at burst 0x0"):
        simulate(
            TINY_SDRAM,
            compiled(network, TINY_SDRAM),
            random_frames(network, 1),
            faults={"stuck_data": 3},
            folder=tmp_path,
        )


def test_an_sdram_serves_images_of_other_sources():
    network = small_network("plain")
    both = dataclasses.replace(TINY_SDRAM, image_words=8192)
    for source in Source:
        run(both, network, source=source)


# --- an image in the flash ---------------------------------------------------------------------


def flash_of(words, host_after=None):
    content = combine(TINY_SDRAM, b"a bitstream", words_to_bytes(words))
    return Flash(content, host_after)


def test_an_image_in_the_flash_is_ready_without_a_host():
    network = small_network("plain")
    image = compiled(network, TINY_SDRAM)
    result = run(TINY_SDRAM, network, flash=flash_of(image.words))
    assert result.startup == (State.READY, ErrorCode.NONE)


def flipped(words, position, bit=7):
    return [word ^ (place == position) << bit for place, word in enumerate(words)]


@pytest.mark.parametrize("code", ["HEADER_CRC", "FOREIGN_GEOMETRY", "PACKET", "FRAME_CRC"])
def test_a_bad_image_in_the_flash_is_an_error_and_the_next_frame_works(code):
    """The host then loads a good one."""
    network = small_network("plain")
    words = compiled(network, TINY_SDRAM).words
    flash = {
        "HEADER_CRC": flipped(words, 3, bit=1),  # the length
        "FOREIGN_GEOMETRY": compiled(network, TINY).words,
        "PACKET": flipped(words, HEADER_WORDS),
        "FRAME_CRC": flipped(words, len(words) - 5),
    }[code]
    result = run(TINY_SDRAM, network, flash=flash_of(flash))
    assert result.startup == (State.ERROR, ErrorCode[code])


@pytest.mark.parametrize("host_after", [10_000, 30_000])
def test_a_host_need_not_wait_for_the_flash(host_after):
    """It loads another image, before the copy has begun or while it goes on; that would go on for
    longer than everything else takes."""
    words = compiled(small_network("odd-channels"), TINY_SDRAM).words
    words[3] = TINY_SDRAM.sdram_image_words - HEADER_WORDS  # of the frame section
    result = run(TINY_SDRAM, small_network("plain"), flash=flash_of(words, host_after))
    assert result.startup is None
    assert host_after < result.end < 64 * TINY_SDRAM.sdram_image_words // 4


def test_icarus_agrees_to_the_cycle():
    """A second, independent simulator, which knows unknown values."""
    network = small_network("plain")
    slow, fast = run(TINY, network, simulator="icarus"), run(TINY, network)
    assert slow.cycles == fast.cycles
    assert slow.layer_cycles == fast.layer_cycles


def working_cycles(fields):
    """Which counter counts a layer's work, and how much of that there is."""
    kind, pixels = LayerKind(fields["kind"]), fields["out_width"] * fields["out_height"]
    if kind in (LayerKind.POOL, LayerKind.MEAN):
        return "reduce_busy", fields["inner"] * pixels * (4 if kind is LayerKind.POOL else 1)
    unit = "array_busy" if kind is LayerKind.BINARY else "mac_busy"
    return unit, fields["tiles"] * fields["kernel_rows"] * fields["inner"] * pixels


def test_counters_tell_work_from_waiting():
    """Work is what the descriptors say, in every kind of layer; each kind of wait occurs."""
    network = small_network("one-tile")
    image = compiled(network, TINY_STEM)
    layers = [
        checked.from_words(LAYER, packet.payload)
        for packet in image.packets
        if packet.type in LAYER_TYPES
    ]
    assert {LayerKind(fields["kind"]) for fields in layers} == set(LayerKind)
    result = run(TINY_STEM, network, stalls=Stalls("heavy", 5, late_input=True))
    works = ("array_busy", "mac_busy", "reduce_busy")
    for found, tail in zip(result.layer_cycles, result.tails, strict=True):
        before = None
        for fields, layer in zip(layers, found, strict=True):
            assert {name: layer.activity[name] for name in works if layer.activity[name]} == dict(
                [working_cycles(fields)]
            )
            # In the first of its cycles the sequencer hears that the layer before has ended; those
            # until its descriptor has been taken, two more, count for no kind of layer.
            cycles = layer.cycles - layer.activity["wait_load"] - 3
            expected = cycles * (layer.kind is LayerKind.BINARY) + (before is LayerKind.BINARY)
            assert layer.activity["binary_layer"] == expected
            before = layer.kind
            assert layer.activity["wait_input"] == 0 or layer.kind is LayerKind.STEM
            assert layer.activity["begin_layer"] >= 4
            assert layer.activity["drain_layer"] > 0
        scan = network.classes + Result.READ_LATENCY + Result.PLACE_LATENCY * TINY.top_k + 2
        assert tail.activity["scan_logits"] == scan
        assert tail.activity["wait_crc"] == tail.cycles - scan - 1 > 0
    assert all(result.counters[0][name] for name in EXCLUSIVE)


def test_core_reports_a_corrupt_image(tmp_path):
    """The golden model reads packets, the core the words: here those are damaged."""
    network = small_network("plain")
    image = compiled(network, TINY)
    words = [*image.words[:-5], image.words[-5] ^ 1 << 7, *image.words[-4:]]
    with pytest.raises(SimulationError) as error:
        simulate(
            TINY,
            dataclasses.replace(image, words=words),
            random_frames(network, 1),
            folder=tmp_path,
        )
    assert "Image ended in state ERROR with error FRAME_CRC" in str(error.value)


def test_finds_a_core_that_computes_something_else(tmp_path):
    """The core reads words that differ in one weight from the packets, which golden reads."""
    network = small_network("plain")
    image = compiled(network, TINY)
    packets = list(image.packets)
    last = max(i for i, packet in enumerate(packets) if packet.type is PacketType.WEIGHTS)
    changed = [packets[last].payload[0] ^ 1, *packets[last].payload[1:]]
    packets[last] = Packet(PacketType.WEIGHTS, changed)
    other = build(TINY, image.info, packets)
    frames = random_frames(network, 1)
    result = simulate(TINY, dataclasses.replace(image, words=other.words), frames)
    assert 1 <= result.mismatches <= 8
    assert result.first.startswith(
        "Frame 0, layer 4 (classifier), logits at pixel (0, 0), channel 0"
    )


@pytest.mark.parametrize("geometry", [TINY, TINY_SDRAM], ids=lambda geometry: geometry.name)
@pytest.mark.parametrize("stalls", [Stalls(), Stalls("heavy", seed=3, late_input=True)])
@pytest.mark.parametrize(("name", "rows"), [("one-tile", 1), ("one-tile", 5), ("long-frame", 2)])
def test_frames_overlap(name, rows, stalls, geometry):
    """The stem of a frame is computed in parts while the frame before it is."""
    network = small_network(name)
    image = overlapped(compiled(network, geometry), geometry, rows=rows)
    frames = random_frames(network, 4)
    result = simulate(geometry, image, frames, stalls=stalls)
    assert (result.mismatches, result.first) == (0, None)
    assert_explained(result)
    # One with its own stem and the next one's, two with the next one's, and one without any.
    parts = -(-network.map_size[0] // rows)
    stems = [[c for c in cycles if c.kind is LayerKind.STEM] for cycles in result.layer_cycles]
    assert [len(layers) for layers in stems] == [1 + parts, parts, parts, 0]
    alone = simulate(geometry, image, frames[:1], stalls=stalls)
    assert result.cycles[3] < alone.cycles[0]
