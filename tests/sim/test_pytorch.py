"""The golden model's maps beside those of PyTorch: parts put together, every difference named."""

import dataclasses

import numpy as np
import pytest

from compiler.pipeline import compile_tensors
from isa.folding import fold_network
from isa.geometry import TINY, ULX3S_25F
from rbonn_train.integer import IntegerNetwork
from sim.golden import Golden
from sim.pytorch import compare_maps, map_layers
from tests.networks import random_checkpoint, random_frames, small_network
from tests.parts import overlapped
from tests.sim.reference import check_layers

NETWORK = small_network("one-tile")
FRAMES = random_frames(NETWORK, 3)
CHECKPOINT = random_checkpoint(NETWORK)
IMAGE = compile_tensors(*CHECKPOINT, TINY, verify=False).image
REFERENCE = IntegerNetwork(fold_network(*CHECKPOINT))


@pytest.fixture
def layers():
    return map_layers([Golden(TINY, IMAGE).run(FRAMES[0])])[0]


@pytest.fixture
def expected():
    return REFERENCE.trace(FRAMES[:1])


@pytest.mark.parametrize("rows", [1, 3, 16])
def test_stems_that_were_computed_ahead(rows):
    golden = Golden(TINY, overlapped(IMAGE, TINY, rows=rows))
    assert golden.ahead
    check_layers(golden, REFERENCE, FRAMES)


def test_a_stem_ahead_of_another_frame_is_seen():
    golden = Golden(TINY, overlapped(IMAGE, TINY, rows=3))
    found = map_layers(list(golden.run_overlapped(FRAMES)))
    first = compare_maps(1, found[1], REFERENCE.trace(FRAMES[2:])).differences[0]
    assert first.startswith("Frame 1, stem, residual at pixel (0, 0), channel ")


def test_everything_is_compared(layers, expected):
    found = compare_maps(0, layers, expected)
    assert (found.mismatches, found.differences) == (0, ())
    sizes = {name: maps.residual.numel() for name, maps in expected.items()}
    bits = sum(layer.bits.size for layer in layers if layer.bits is not None)
    assert found.compared == sum(sizes.values()) - sizes["fc"] + bits


@pytest.mark.parametrize("at", range(5))
def test_one_value_that_differs(layers, expected, at):
    name = [*expected][at]
    layers[at].residual[2, 1, 3] += 1
    found = compare_maps(7, layers, expected)
    right = expected[name].residual[0, 2, 1, 3]
    assert found.mismatches == 1
    assert found.differences == (
        f"Frame 7, {name}, residual at pixel (2, 1), channel 3: {right} in PyTorch, {right + 1} in "
        f"the golden model",
    )


def test_bits_of_channels_that_do_not_exist_are_0():
    network = small_network("odd-channels")
    checkpoint, frames = random_checkpoint(network), random_frames(network, 1)
    image = compile_tensors(*checkpoint, ULX3S_25F, verify=False).image
    layers = map_layers([Golden(ULX3S_25F, image).run(frames[0])])[0]
    assert layers[0].bits.shape[-1] > 12
    layers[0].bits[0, 5, 12] = 1
    expected = IntegerNetwork(fold_network(*checkpoint)).trace(frames)
    assert compare_maps(0, layers, expected).differences == (
        "Frame 0, stem, bit at pixel (0, 5), channel 12: 0 in PyTorch, 1 in the golden model",
    )


def test_layers_that_are_missing_or_too_many(layers, expected):
    size = expected["blocks.1"].residual.shape[1:]
    found = compare_maps(0, layers[:-1], expected)
    assert found.mismatches == np.prod(size)
    assert found.differences == (
        f"Frame 0, blocks.1, residual: {tuple(size)} in PyTorch, (0, 0, 0) in the image",
    )
    found = compare_maps(0, [*layers, layers[-1]], expected)
    assert found.differences == ("Frame 0: 1 layers in the image alone",)
    without = [dataclasses.replace(layers[0], bits=None), *layers[1:]]
    assert "stem, bit: " in compare_maps(0, without, expected).differences[0]
