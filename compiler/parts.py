"""Parts of layers: some tiles of a convolution, or some rows of the next frame's stem."""

from dataclasses import fields, replace

from compiler.ir import Layer, Region, Tiles
from isa.fixed import ChannelParameters
from isa.geometry import Geometry
from isa.image import PacketType
from isa.layer import LayerKind


def tiles_together(layer: Layer, geometry: Geometry) -> int:
    """Tiles that stay in one part, as they write the same words of the bit map."""
    return geometry.sub_words if layer.write_bits else 1


def some_tiles(layer: Layer, geometry: Geometry, first: int, count: int) -> Layer:
    """The part of ``layer`` that ``count`` of its tiles make, ``first`` and those behind it."""
    tiles = layer.tiles
    assert tiles is not None
    assert layer.weights is not None
    assert layer.params is not None
    last = first + count == tiles.count
    channels = slice(
        first * geometry.lanes, min((first + count) * geometry.lanes, layer.out_channels)
    )
    destination = layer.destination
    if layer.kind is LayerKind.CLASSIFIER:
        destination = Region(0, 0, 0)
    return replace(
        layer,
        out_channels=channels.stop - channels.start,
        weights=layer.weights[channels],
        params=_params(layer.params, channels),
        destination=_moved(destination, first * geometry.groups),
        bits=_moved(layer.bits, first // geometry.sub_words),
        tiles=Tiles(
            tiles.weights[first : first + count],
            _params(tiles.params, slice(first, first + count)),
            tiles.last_groups if last else geometry.groups,
        ),
        begins=first == 0,
        ends=last,
    )


def rows_ahead_of_time(stem: Layer, first: int, count: int) -> Layer:
    """The part of the next frame's ``stem`` that makes ``count`` rows of its maps."""
    assert stem.destination is not None
    assert stem.bits is not None
    convolved = 2 if stem.pooled else 1  # rows before the max-pool
    return replace(
        stem,
        packet=PacketType.AHEAD,
        out_size=(count * convolved, stem.out_size[1]),
        first_row=first * convolved,
        destination=_moved(stem.destination, first * stem.destination.row),
        bits=_moved(stem.bits, first * stem.bits.row),
        begins=first == 0,
        ends=first + count == stem.map_size[0],
    )


def _moved(region: Region | None, words: int) -> Region | None:
    return None if region is None else replace(region, base=region.base + words)


def _params(params: ChannelParameters, part: slice) -> ChannelParameters:
    return ChannelParameters(*(getattr(params, field.name)[part] for field in fields(params)))
