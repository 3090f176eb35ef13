"""Traces made from the golden model, whole and corrupted: each fault is counted and named."""

import dataclasses

import numpy as np
import pytest

from compiler.pipeline import compile_tensors
from hw.perf import PERF
from isa.geometry import GEOMETRIES, TINY
from isa.layer import LayerKind
from isa.trace import ACTIVITIES, Memory, read_trace, write_trace
from sim.golden import Golden
from sim.trace import compare_frame, pack, record_of, unpack
from tests.networks import random_checkpoint, random_frames, small_network


@pytest.fixture(scope="module")
def golden_frame():
    """One frame of three-stages: stem, binary, pool, pointwise, binary, pool, pointwise, binary,
    mean, classifier."""
    network = small_network("three-stages")
    image = compile_tensors(*random_checkpoint(network), TINY, verify=False).image
    return Golden(TINY, image).run(random_frames(network, 1)[0])


def compare(frame, found):
    """Through the text format."""
    (record,) = read_trace(write_trace([found], TINY), TINY)
    return compare_frame(TINY, 7, frame, record)


def test_counts_all_values(golden_frame):
    result = compare(golden_frame, record_of(TINY, golden_frame))
    maps = 256 * 8 * 2 + 64 * 8 + 64 * 16 + 16 * 16 + 16 * 32 + 64 * 16 + 16 * 32
    bits = 256 * 8 + 256 * 8 + 64 * 16
    assert result.compared == maps + bits + 32 + 6  # features, and logits in words of 2
    assert (result.mismatches, result.differences) == (0, ())


def corrupted(frame, layer, memory, change):
    found = record_of(TINY, frame)
    change(found.layers[layer].writes[memory])
    return compare(frame, found)


def test_names_pixel_and_channel_of_a_residual(golden_frame):
    # Word 2 of pixel (4, 1) of 8x8 pixels with 8 words of 2 channels; words of a pixel 8 apart.
    position = (4 * 8 + 1) * 8 + 2
    expected = golden_frame.layers[4].residual

    def change(writes):
        writes.data[position] ^= 1 << 9

    result = corrupted(golden_frame, 4, Memory.RESIDUAL, change)
    was = int(expected.data[position, 1])
    assert result.mismatches == 1
    assert str(result.differences[0]) == (
        f"Frame 7, layer 4 (binary), residual at pixel (4, 1), channel 5 (address "
        f"{expected.places.addresses[position]:#x}): expected {was}, found {was ^ 1}"
    )


def test_names_pixel_and_channel_of_a_bit(golden_frame):
    position = (3 * 16 + 5) * 2 + 1  # tile 1 of pixel (3, 5)
    expected = golden_frame.layers[0].bits

    def change(writes):
        writes.data[position] ^= 1 << 2

    result = corrupted(golden_frame, 0, Memory.BITS, change)
    was = int(expected.data[position, 2])
    assert str(result.differences[0]) == (
        f"Frame 7, layer 0 (stem), bits at pixel (3, 5), channel 6 (address {3 * 32 + 11:#x}): "
        f"expected {was}, found {1 - was}"
    )


@pytest.mark.parametrize(
    ("layer", "memory", "name"), [(8, Memory.FEATURES, "features"), (9, Memory.LOGITS, "logits")]
)
def test_names_feature_and_logit(golden_frame, layer, memory, name):
    def change(writes):
        writes.data[1] ^= 1

    (difference,) = corrupted(golden_frame, layer, memory, change).differences
    assert (difference.memory.name.lower(), difference.channel) == (name, 2)


def test_names_words_not_written_written_twice_and_not_expected(golden_frame):
    def drop(writes):
        del writes.addresses[0], writes.data[0]

    missing = corrupted(golden_frame, 2, Memory.RESIDUAL, drop)
    assert missing.mismatches == 2
    assert "layer 2 (pool)" in str(missing.differences[0])
    assert str(missing.differences[0]).endswith("found no write")

    def repeat(writes):
        writes.addresses.append(writes.addresses[3])
        writes.data.append(writes.data[3])

    twice = corrupted(golden_frame, 2, Memory.RESIDUAL, repeat)
    assert twice.mismatches == 2
    assert str(twice.differences[1]).endswith(", written 2 times")

    def stray(writes):
        writes.addresses.append(2000)
        writes.data.append(0x155)

    strange = corrupted(golden_frame, 2, Memory.RESIDUAL, stray)
    assert strange.mismatches == 1
    assert str(strange.differences[0]) == (
        "Frame 7, layer 2 (pool), residual at address 0x7d0: expected no write, found 0x155"
    )


def test_writes_to_a_memory_that_the_layer_leaves_alone(golden_frame):
    def stray(writes):
        writes.addresses.append(1)
        writes.data.append(0)

    result = corrupted(golden_frame, 2, Memory.BITS, stray)
    assert result.mismatches == 1
    assert "layer 2 (pool), bits at address 0x1" in str(result.differences[0])


def test_layers_missing_strange_and_extra(golden_frame):
    found = record_of(TINY, golden_frame)
    last = found.layers.pop()
    result = compare(golden_frame, found)
    assert result.mismatches == 6
    assert str(result.differences[0]) == (
        "Frame 7, layer 9 (classifier): expected this layer, found none"
    )
    found.layers += [dataclasses.replace(last, kind=LayerKind.MEAN)]
    result = compare(golden_frame, found)
    assert result.mismatches == 6
    assert str(result.differences[0]) == (
        "Frame 7, layer 9 (classifier): expected this layer, found layer 9 (mean)"
    )
    found.layers[-1] = last
    found.layers.append(dataclasses.replace(last, index=10))
    result = compare(golden_frame, found)
    assert [str(difference) for difference in result.differences] == [
        "Frame 7, layer 10 (classifier): expected no layer, found one more"
    ]


def test_first_differences_are_kept_and_all_are_counted(golden_frame):
    def change(writes):
        writes.data[:] = [data ^ 1 for data in writes.data]

    result = corrupted(golden_frame, 1, Memory.RESIDUAL, change)
    assert result.mismatches == 256 * 4
    assert len(result.differences) == 10
    assert [difference.channel for difference in result.differences[:5]] == [0, 2, 4, 6, 0]


@pytest.mark.parametrize("geometry", GEOMETRIES.values(), ids=GEOMETRIES)
@pytest.mark.parametrize("memory", Memory)
def test_packs_and_unpacks(geometry, memory):
    rng = np.random.default_rng(1)
    words = [int.from_bytes(rng.bytes(40)) >> 8 for _ in range(9)]
    words = [word & ((1 << memory.word_bits(geometry)) - 1) for word in words]
    assert pack(geometry, memory, unpack(geometry, memory, words)) == words


def test_activities_are_those_that_the_gateware_counts():
    assert tuple(PERF.members) == ACTIVITIES
