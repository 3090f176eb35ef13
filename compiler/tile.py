"""Weights and parameters, cut into tiles of M output channels and weight sets of one step each.

Steps of a tile are kernel rows, then positions along a kernel row: of a binary layer one K-bit word
a position (channels of the leftmost column first), of the stem S bytes (columns and channels run
on), of pointwise layer and classifier T channels.

Padding: weight bits beyond the real channels are 1 (the map's bits are 0 there, so the XNOR is 0),
int8 weights beyond the row are 0. Output channels beyond the real ones have weight bits 1, int8
weights 0, and ``isa.layer.PADDING_CHANNEL``.
"""

from dataclasses import fields, replace

import numpy as np

from compiler.ir import Layer, Program, Tiles, ceil_div
from isa.fixed import ChannelParameters, IntArray
from isa.geometry import Geometry
from isa.layer import PADDING_CHANNEL, LayerKind


def tile_weights(program: Program) -> Program:
    """Sets ``tiles`` of every layer with weights."""
    geometry = program.geometry
    return program.map(
        lambda layer: layer if layer.weights is None else replace(layer, tiles=cut(layer, geometry))
    )


def cut(layer: Layer, geometry: Geometry) -> Tiles:
    """The tiles of one layer."""
    assert layer.weights is not None
    assert layer.params is not None
    lanes = geometry.lanes
    count = ceil_div(layer.out_channels, lanes)
    rows = kernel_rows(layer, geometry)  # (out, kernel rows, inner, K, S or T)
    padding = 1 if layer.kind is LayerKind.BINARY else 0
    weights = np.full((count * lanes, *rows.shape[1:]), padding, np.int64)
    weights[: len(rows)] = rows
    weights = weights.reshape(count, lanes, *rows.shape[1:]).transpose(0, 2, 3, 1, 4)
    params = {}
    for field in fields(ChannelParameters):
        values = np.full(count * lanes, PADDING_CHANNEL[field.name], np.int64)
        values[: layer.out_channels] = getattr(layer.params, field.name)
        params[field.name] = values.reshape(count, lanes)
    last = layer.out_channels - (count - 1) * lanes
    return Tiles(weights, ChannelParameters(**params), ceil_div(last, geometry.post_lanes))


def kernel_rows(layer: Layer, geometry: Geometry) -> IntArray:
    """(out, kernel rows, inner, K, S or T): every channel's weights in the order of the steps."""
    assert layer.weights is not None
    out, channels, kernel, _ = layer.weights.shape
    rows = layer.weights.transpose(0, 2, 3, 1)  # (out, ky, kx, channel)
    if layer.kind is LayerKind.BINARY:
        size, padding = geometry.word_bits, 1
        missing = -channels % size  # the padding of every pixel
    else:
        size, padding = geometry.taps_of(layer.kind), 0
        rows = rows.reshape(out, kernel, 1, kernel * channels)
        missing = -kernel * channels % size  # the padding of every kernel row
    rows = np.pad(rows, ((0, 0), (0, 0), (0, 0), (0, missing)), constant_values=padding)
    return rows.reshape(out, kernel, -1, size)


def uncut(layer: Layer, geometry: Geometry) -> Layer:
    """The layer with weights and parameters read back from its tiles, for verification."""
    tiles = layer.tiles
    assert tiles is not None
    assert layer.weights is not None
    out, channels, kernel, _ = layer.weights.shape
    rows = tiles.weights.transpose(0, 3, 1, 2, 4)
    # A binary layer is padded pixel by pixel, the others kernel row by kernel row.
    parts = kernel if layer.kind is LayerKind.BINARY else 1
    used = kernel * channels // parts
    rows = rows.reshape(rows.shape[0] * rows.shape[1], kernel, parts, -1)
    rows = rows[:out, :, :, :used].reshape(out, kernel, kernel, channels)
    params = {
        field.name: getattr(tiles.params, field.name).ravel()[:out]
        for field in fields(ChannelParameters)
    }
    return replace(layer, weights=rows.transpose(0, 3, 1, 2), params=ChannelParameters(**params))
