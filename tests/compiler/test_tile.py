from dataclasses import replace

import numpy as np
import pytest

from compiler.fold import fold, lower
from compiler.importer import import_tensors
from compiler.ir import Layer
from compiler.tile import cut, kernel_rows, uncut
from isa.fixed import ChannelParameters
from isa.geometry import GEOMETRIES, TINY, ULX3S_85F
from isa.layer import LayerKind
from tests.networks import SMALL_NETWORKS, random_checkpoint


def layer(kind, weights):
    out, channels, kernel, _ = weights.shape
    params = ChannelParameters(*(np.arange(out) + 10 * i for i in range(1, 6)))
    return Layer(
        "x", kind, (8, 8), channels, (8, 8), out, kernel=kernel, weights=weights, params=params
    )


def test_binary_rows_are_padded_pixel_by_pixel():
    weights = np.zeros((1, 9, 3, 3), int)  # words of 8: nine channels take two
    weights[0, 8, 1, 2] = 1
    rows = kernel_rows(layer(LayerKind.BINARY, weights), TINY)
    assert rows.shape == (1, 3, 6, 8)
    assert rows[0, 1, 5].tolist() == [1] * 8  # channel 8 of the right column, and padding
    assert rows[0, 1, 3].tolist() == [0] + [1] * 7
    assert rows[0, :, ::2].sum() == 0


def test_stem_rows_run_on_over_columns():
    weights = np.arange(27).reshape(1, 3, 3, 3)  # channel, ky, kx
    expected = [3, 12, 21, 4, 13, 22, 5, 14, 23]
    rows = kernel_rows(layer(LayerKind.STEM, weights), ULX3S_85F)  # a pixel a step
    assert rows.shape == (1, 3, 3, 3)
    assert rows[0, 1].ravel().tolist() == expected
    two = kernel_rows(layer(LayerKind.STEM, weights), replace(ULX3S_85F, stem_taps=2))
    assert two.shape == (1, 3, 5, 2)
    assert two[0, 1].ravel().tolist() == [*expected, 0]


def test_only_the_stem_has_its_taps():
    weights = np.ones((4, 9, 1, 1), int)
    assert kernel_rows(layer(LayerKind.POINTWISE, weights), ULX3S_85F).shape == (4, 1, 5, 2)


def test_channels_beyond_the_real_ones():
    weights = np.full((5, 2, 1, 1), 7)
    tiles = cut(layer(LayerKind.POINTWISE, weights), TINY)  # tiles of 4, words of 2
    assert (tiles.count, tiles.steps, tiles.last_groups) == (2, 2, 1)
    assert tiles.weights[1, 0, :, :, 0].tolist() == [[7, 0, 0, 0]] * 2
    assert tiles.params.m.tolist() == [[10, 11, 12, 13], [14, 0, 0, 0]]
    assert tiles.params.threshold.tolist() == [[50, 51, 52, 53], [54, 1, 1, 1]]
    binary = cut(layer(LayerKind.BINARY, np.zeros((5, 8, 3, 3), int)), TINY)
    assert binary.weights[1, :, :, 0].sum() == 0
    assert binary.weights[1, :, :, 1:].all()


@pytest.mark.parametrize("geometry", GEOMETRIES.values(), ids=lambda g: g.name)
@pytest.mark.parametrize("network", SMALL_NETWORKS, ids=lambda n: n.name)
def test_uncut_gives_back_what_was_cut(network, geometry):
    program = lower(fold(import_tensors(*random_checkpoint(network))), geometry)
    for original in program.layers:
        if original.weights is None:
            continue
        blank = Layer(
            **{
                **vars(original),
                "weights": np.zeros_like(original.weights),
                "tiles": cut(original, geometry),
            }
        )
        found = uncut(blank, geometry)
        assert (found.weights == original.weights).all()
        for name, values in vars(original.params).items():
            assert (getattr(found.params, name) == values).all()
