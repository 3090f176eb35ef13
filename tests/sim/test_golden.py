"""The golden model against the integer PyTorch network, and schedules that it must refuse."""

import dataclasses
import re

import numpy as np
import pytest

from compiler.pipeline import compile_tensors
from isa import checked, image
from isa.folding import fold_network
from isa.geometry import GEOMETRIES, TINY
from isa.image import LAYER_TYPES, LAYER_WORDS, Packet, PacketType
from isa.layer import LAYER, LayerKind
from rbonn_train.integer import IntegerNetwork
from sim.golden import Golden, GoldenError
from tests.networks import SMALL_NETWORKS, random_checkpoint, random_frames, small_network
from tests.parts import overlapped
from tests.sim.reference import check_layers


def compiled(network, geometry, seed=0):
    """An image that has been through its bytes."""
    built = compile_tensors(*random_checkpoint(network, seed), geometry, verify=False).image
    return image.parse(built.to_bytes(), geometry)


@pytest.mark.parametrize("geometry", GEOMETRIES.values(), ids=GEOMETRIES)
@pytest.mark.parametrize("network", SMALL_NETWORKS, ids=lambda network: network.name)
def test_equals_integer_pytorch(network, geometry):
    """Logits of a batch, and every map of a gradient, all zero, noise, a gradient and all 255."""
    reference = IntegerNetwork(fold_network(*random_checkpoint(network)))
    golden = Golden(geometry, compiled(network, geometry))
    frames = random_frames(network, 6)
    assert np.array_equal(golden.run_batch(frames), reference(frames).numpy())
    check_layers(golden, reference, frames[:5])


@pytest.mark.parametrize("rows", [1, 3, 16])
@pytest.mark.parametrize("name", ["one-tile", "long-frame"])
def test_parts_and_overlap_change_nothing(name, rows):
    network = small_network(name)
    whole = compiled(network, TINY)
    parts = overlapped(whole, TINY, rows=rows)
    golden, reference = Golden(TINY, parts), Golden(TINY, whole)
    assert (golden.ahead, reference.ahead) == (True, False)
    frames = random_frames(network, 4)
    logits = reference.run_batch(frames)
    assert np.array_equal(golden.run_batch(frames), logits)
    found = list(golden.run_overlapped(frames))
    assert np.array_equal([frame.logits for frame in found], logits)
    # The stem in parts, and not again; together they write what the whole one writes.
    stems = [[x for x in frame.layers if x.kind is LayerKind.STEM] for frame in found]
    count = -(-network.map_size[0] // rows)
    assert [len(layers) for layers in stems] == [1 + count, count, count, 0]
    for number, layers in enumerate(stems[:3]):
        whole_stem = reference.run(frames[number + 1]).layers[0]
        for writes in ("residual", "bits"):
            parts_of = [getattr(layer, writes) for layer in layers[-count:]]
            expected = getattr(whole_stem, writes)
            together = np.concatenate([part.places.addresses for part in parts_of])
            assert np.array_equal(together, expected.places.addresses)
            assert np.array_equal(np.concatenate([p.data for p in parts_of]), expected.data)


OVERLAP_REFUSALS = [
    ("STEM", 0, {"begins": 0}, "begin if it is first, not 0"),
    ("AHEAD", 0, {"ends": 1}, "end if it is last, not 1"),
    ("AHEAD", 1, {"first_row": 8}, "go on at row 6 of its input, not 8"),
    ("AHEAD", 1, {"src_base": 0}, "read from row 6 on, not 0"),
    ("AHEAD", 1, {"rows_ahead": 0}, "go by rows to be in parts, not 0"),
    ("AHEAD", 0, {"kind": LayerKind.POOL.value}, "be a stem to be computed ahead, not AHEAD"),
    ("LAYER", -1, {"ends": 0}, "end the classifier, not 0"),
    ("LAYER", -2, {"ends": 1}, "not end the classifier, not 1"),
    ("LAYER", -2, {"dst_base": 1}, "complete all classes, not 8"),
]


@pytest.mark.parametrize(("kind", "number", "fields", "message"), OVERLAP_REFUSALS)
def test_refuses_overlapped_schedules(kind, number, fields, message):
    source = overlapped(compiled(small_network("one-tile"), TINY), TINY, rows=6)
    kinds = [packet.type.name for packet in source.packets if packet.type in LAYER_TYPES]
    index = [at for at, name in enumerate(kinds) if name == kind][number]
    with pytest.raises(GoldenError, match=re.escape(message)):
        Golden(TINY, changed(source, index, **fields))


def test_refuses_a_stem_that_comes_too_early():
    """Before the mean, the maps are still those of the frame itself."""
    source = overlapped(compiled(small_network("one-tile"), TINY), TINY, rows=16)
    packets = list(source.packets)
    at = next(i for i, packet in enumerate(packets) if packet.type is PacketType.AHEAD)
    early = packets[at : at + 3] + packets[3:at] + packets[at + 3 :]
    with pytest.raises(GoldenError, match="must read what was written in this frame"):
        Golden(TINY, dataclasses.replace(source, packets=packets[:3] + early))


@pytest.mark.parametrize("together", [1, 1 << 16, 1 << 20])
def test_batches_of_any_size(together, monkeypatch):
    """Frames one by one, a few at a time, half of them in each thread."""
    monkeypatch.setattr("sim.golden.TOGETHER", together)
    network = small_network("plain")
    golden = Golden(TINY, compiled(network, TINY))
    frames = random_frames(network, 37)
    single = [golden.run(frame).logits for frame in frames]
    assert np.array_equal(golden.run_batch(frames), single)
    assert golden.run_batch(frames[:0]).shape == (0, 3)


def test_refuses_frames_that_do_not_fit():
    network = small_network("plain")
    golden = Golden(TINY, compiled(network, TINY))
    with pytest.raises(ValueError) as error:
        golden.run(np.zeros((8, 9, 1), np.uint8))
    assert str(error.value) == "Frame must have shape (8, 8, 1), not (8, 9, 1)"
    with pytest.raises(TypeError) as error:
        golden.run(np.zeros((8, 8, 1), np.float32))
    assert str(error.value) == "Frame must be uint8, not float32"


def changed(source, index, **fields):
    """The image with some fields of layer ``index`` set to other values."""
    packets, layer = [], -1
    for packet in source.packets:
        if packet.type in LAYER_TYPES:
            layer += 1
            if layer == index:
                values = checked.from_words(LAYER, packet.payload) | fields
                packet = Packet(packet.type, checked.to_words(LAYER, values))
        packets.append(packet)
    return dataclasses.replace(source, packets=packets)


# Layers of three-stages: stem, binary, pool, pointwise, binary, pool, pointwise, binary, mean,
# classifier. Residual map, tiny: 4 words a pixel, 64 words a row, the last stage's from 1792 on.
REFUSALS = [
    (1, {"src_base": 250}, "Layer 1 (binary) must read what was written in this frame, not address "
     "256 of the bit map"),
    (1, {"src_base": 500}, "Layer 1 (binary) must read the bit map at 0..511, not at 512"),
    (1, {"dst_base": 4}, "Layer 1 (binary) must read what was written in this frame, not address "
     "1024 of the residual map"),
    (2, {"dst_base": 8}, "Layer 2 (pool) must read a word before it writes there, not after it, "
     "at address 8"),
    (3, {"dst_base": 64}, "Layer 3 (pointwise) must not overwrite its own source in the residual "
     "map, not address 64"),
    (3, {"dst_pixel": 0}, "Layer 3 (pointwise) must write each word of the residual map once, not "
     "address 1536 8 times"),
    (4, {"dst_base": 2000}, "Layer 4 (binary) must read the residual map at 0..2047, not at 2048"),
    (0, {"dst_base": 2000}, "Layer 0 (stem) must write the residual map at 0..2047, not at 2048"),
    (0, {"frame_bytes": 255}, "Layer 0 (stem) must take frames of 256 bytes, not 255"),
    (0, {"src_base": 1}, "Layer 0 (stem) must read from row 0 on, not 1"),
    (1, {"bit_base": 0}, "Layer 1 (binary) must not overwrite its own source in the bit map, not "
     "address 0"),
    (1, {"block": 16, "last_block": 17}, "Layer 1 (binary) must have blocks of 1 "
     "to 16 pixels, the last one no larger, not 16 and 17"),
    (1, {"blocks": 3, "block": 16, "last_block": 16}, "Layer 1 (binary) must cover "
     "256 pixels with its blocks, not 48"),
    (1, {"last_groups": 3}, "Layer 1 (binary) must have 1 to 2 groups in its last tile, not 3"),
    (1, {"inner": 4}, "Layer 1 (binary) must have WEIGHTS of 12 words, not 9"),
    (1, {"tiles": 3}, "Layer 1 (binary) must go on with PARAMS of tile 2, not LAYER"),
    (1, {"tiles": 1}, "Layer 2 must begin with LAYER, not PARAMS"),
    (1, {"kind": 7}, "Layer 1 must have a valid descriptor: 7 is not a valid LayerKind"),
    (8, {"a": 0, "out_width": 200, "src_row": 0, "src_pixel": 0}, "Layer 8 (mean) must shift its "
     "sums to at most 32767, not 204800"),
    (8, {"src_base": 0, "inner": 40}, "Layer 8 (mean) must write the features at 0..31, not at 32"),
    (9, {"inner": 33}, "Layer 9 (classifier) must have WEIGHTS of 33 words, not 32"),
    (9, {"classes": 6}, "Layer 9 (classifier) must have the header's 5 classes, not 6"),
]  # fmt: skip


@pytest.fixture(scope="module")
def three_stages():
    return compiled(small_network("three-stages"), TINY)


@pytest.mark.parametrize(("index", "fields", "message"), REFUSALS)
def test_refuses_schedules(three_stages, index, fields, message):
    with pytest.raises(GoldenError) as error:
        Golden(TINY, changed(three_stages, index, **fields))
    assert str(error.value) == message


def test_refuses_packets_that_make_no_program(three_stages):
    def refused(packets):
        with pytest.raises(GoldenError) as error:
            Golden(TINY, dataclasses.replace(three_stages, packets=packets))
        return str(error.value)

    packets = three_stages.packets
    assert refused(packets[1:]) == "Layer 0 must begin with LAYER, not PARAMS"
    assert refused([]) == "Image must have 10 layers, not 0"
    assert refused(packets[:-1]) == (
        "Layer 9 (classifier) must go on with WEIGHTS of tile 1, not the end of the image"
    )
    short = Packet(PacketType.LAYER, packets[0].payload[:-1])
    assert refused([short, *packets[1:]]) == (
        f"Layer 0 must have a descriptor of {LAYER_WORDS} words, not {LAYER_WORDS - 1}"
    )
    short = Packet(PacketType.PARAMS, packets[1].payload[:-1])
    assert refused([packets[0], short, *packets[2:]]) == (
        "Layer 0 (stem) must have PARAMS of 16 words, not 15"
    )


def test_refuses_weights_that_the_ring_cannot_hold(three_stages):
    small = dataclasses.replace(TINY, ring_words=8)
    with pytest.raises(GoldenError) as error:
        Golden(small, three_stages)
    assert str(error.value) == (
        "Layer 0 (stem) must keep a tile's weights in the ring of 8 words, not 9"
    )
