import dataclasses

import numpy as np
import pytest

from compiler.errors import CompileError
from compiler.fold import accumulator_bounds, fold, lower, prove_formats
from compiler.importer import import_tensors
from isa.fixed import Shifts
from isa.geometry import TINY
from isa.layer import LayerKind
from tests.networks import random_checkpoint, small_network


def program(name="three-stages"):
    return lower(fold(import_tensors(*random_checkpoint(small_network(name)))), TINY)


def changed(layer_name, **changes):
    base = program()
    assert layer_name in [layer.name for layer in base.layers]
    return base.map(
        lambda layer: dataclasses.replace(layer, **changes) if layer.name == layer_name else layer
    )


def parameters(layer_name, **changes):
    layer = next(layer for layer in program().layers if layer.name == layer_name)
    filled = {name: np.full_like(layer.params.m, value) for name, value in changes.items()}
    return dataclasses.replace(layer.params, **filled)


def test_order_of_layers():
    assert [(layer.name, layer.kind.name) for layer in program().layers] == [
        ("stem", "STEM"),
        ("blocks.0", "BINARY"),
        ("blocks.1.pool", "POOL"),
        ("blocks.1.shortcut", "POINTWISE"),
        ("blocks.1", "BINARY"),
        ("blocks.2.pool", "POOL"),
        ("blocks.2.shortcut", "POINTWISE"),
        ("blocks.2", "BINARY"),
        ("mean", "MEAN"),
        ("fc", "CLASSIFIER"),
    ]


def test_bits_are_written_for_every_binary_layer_that_follows():
    assert [layer.name for layer in program().layers if layer.write_bits] == [
        "stem",
        "blocks.0",
        "blocks.1",
    ]


def test_formats_of_a_sound_program_are_proved():
    base = program()
    assert prove_formats(base) is base


@pytest.mark.parametrize("name", ["stem", "blocks.1.shortcut", "blocks.1", "fc"])
def test_accumulator_bounds_are_reached(name):
    """The worst input, found by the weights' signs, gives the bound exactly."""
    layer = next(layer for layer in program().layers if layer.name == name)
    weights = layer.weights.reshape(len(layer.weights), -1)
    low, high = {
        LayerKind.STEM: (0, 255),
        LayerKind.POINTWISE: (-256, 256),  # -256 and 255, both counted as 256
        LayerKind.BINARY: (-1, 1),
        LayerKind.CLASSIFIER: (-77, 77),
    }[layer.kind]
    if layer.kind is LayerKind.BINARY:
        weights = 2 * weights - 1
    largest = (np.where(weights > 0, high, low) * weights).sum(axis=1)
    smallest = (np.where(weights > 0, low, high) * weights).sum(axis=1)
    bounds = accumulator_bounds(layer, 77)
    assert (bounds == np.maximum(largest, -smallest)).all()


OVERFLOWS = [
    (
        changed("fc", weights=np.full((5, 32, 1, 1), 1 << 20)),
        r"Layer fc: accumulator must fit 32 bits, not \d+ in channel 0",
    ),
    (
        changed("stem", weights=np.full((8, 1, 3, 3), 127)),
        "Layer stem: scaled accumulator must fit 18 bits, not 291465 in channel 0",
    ),
    (
        changed("blocks.1", params=parameters("blocks.1", m=1 << 15)),
        "Layer blocks.1: m must fit 16 bits, not 32768 in channel 0",
    ),
    (
        changed("blocks.1", params=parameters("blocks.1", n=1 << 31)),
        "Layer blocks.1: n must fit 32 bits, not 2147483648 in channel 0",
    ),
    (
        changed("blocks.1", params=parameters("blocks.1", slope=1 << 15)),
        "Layer blocks.1: slope must fit 16 bits, not 32768 in channel 0",
    ),
    (
        changed("blocks.1", params=parameters("blocks.1", bias2=-(1 << 15) - 1)),
        "Layer blocks.1: bias2 must fit 16 bits, not 32768 in channel 0",
    ),
    (
        changed("blocks.1", params=parameters("blocks.1", threshold=1 << 17)),
        "Layer blocks.1: threshold must fit 18 bits, not 131072 in channel 0",
    ),
    (
        changed("blocks.1", shifts=Shifts(s=6, k=31)),
        r"Layer blocks.1: sum p must fit 40 bits, not \d+ in channel \d+",
    ),
    (
        changed("blocks.1", shifts=Shifts(s=32)),
        "Layer blocks.1: shift s must be in 0..31, not 32",
    ),
    (
        changed("mean", in_size=(200, 100)),
        "Layer mean: feature must fit 16 bits, not 5120000 in channel 0",
    ),
    (
        changed("fc", shifts=Shifts(a=0, s=0)),
        r"Layer fc: (scaled accumulator|sum p|logit) must fit \d+ bits, not \d+ in channel \d+",
    ),
]


@pytest.mark.parametrize(("broken", "message"), OVERFLOWS, ids=range(len(OVERFLOWS)))
def test_overflows_are_refused(broken, message):
    with pytest.raises(CompileError, match=f"^{message}$"):
        prove_formats(broken)


def test_gain_that_cannot_be_held_is_refused():
    info, tensors = random_checkpoint(small_network("plain"))
    tensors["blocks.0.conv.alpha"] = tensors["blocks.0.conv.alpha"] * 1e12
    with pytest.raises(CompileError, match=r"^Layer blocks.0: Gain and offset must fit 16 and 32 "):
        fold(import_tensors(info, tensors))
