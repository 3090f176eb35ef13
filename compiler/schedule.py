"""Blocks of pixels, and the descriptor of every layer.

Blocks run in row-major order over the whole map, the last one may be shorter. Fields that a kind of
layer does not use are 0.
"""

from dataclasses import replace

from compiler.errors import CompileError
from compiler.estimate import TIMING, convolution_cycles
from compiler.fit import input_ring_bytes
from compiler.ir import Layer, Program, Region, ceil_div
from isa import checked
from isa.geometry import Geometry
from isa.layer import LAYER, LayerKind


class BlockChooser:
    """Blocks of the size that takes the fewest cycles; of equals, the largest."""

    def __init__(self, geometry: Geometry) -> None:
        self._geometry = geometry
        self._best: dict[tuple[object, ...], int] = {}  # by all that the cycles depend on

    def __call__(self, layer: Layer) -> Layer:
        """The layer with its block, if it is a convolution."""
        tiles = layer.tiles
        if tiles is None:
            return layer
        key = layer.kind, layer.pixels, tiles.count, tiles.steps, tiles.last_groups
        if key not in self._best:
            sizes = range(min(Geometry.BLOCK_PIXELS, layer.pixels), 0, -1)
            cycles = {
                size: convolution_cycles(replace(layer, block=size), self._geometry, TIMING)
                for size in sizes
            }
            self._best[key] = min(sizes, key=lambda size: cycles[size])
        return replace(layer, block=self._best[key])


def choose_blocks(program: Program) -> Program:
    """Sets ``block`` of every convolution."""
    return program.map(BlockChooser(program.geometry))


def describe_layers(program: Program) -> Program:
    """Sets ``descriptor``. Raises CompileError for a number that its field cannot hold."""

    def describe_layer(layer: Layer) -> Layer:
        fields = descriptor(layer, program)
        try:
            checked.encode(LAYER, fields)
        except ValueError as error:
            raise CompileError(
                f"Layer {layer.name}: {str(error)[0].lower()}{str(error)[1:]}"
            ) from error
        return replace(layer, descriptor=fields)

    return program.map(describe_layer)


def descriptor(layer: Layer, program: Program) -> dict[str, int]:
    """The fields of ``isa.layer.LAYER`` for a placed, tiled and blocked layer."""
    source = layer.source
    assert source is not None
    fields = dict.fromkeys(LAYER.members, 0)
    fields |= {
        "kind": layer.kind.value,
        "src_base": source.base,
        "src_row": source.row,
        "src_pixel": source.pixel,
        "in_height": layer.in_size[0],
        "stride2": int(layer.stride == 2),
        "begins": int(layer.kind is LayerKind.STEM and layer.begins),
        "ends": int(layer.kind in (LayerKind.STEM, LayerKind.CLASSIFIER) and layer.ends),
        "pad": layer.pad,
        "pad_x": layer.pad * source.pixel,
        "out_height": layer.out_size[0],
        "out_width": layer.out_size[1],
        "a": layer.shifts.a,
        "s": layer.shifts.s,
        "k": layer.shifts.k,
        **_source(layer, source, program),
        **_destination(layer),
    }
    if layer.tiles is not None:
        assert layer.block is not None
        blocks = ceil_div(layer.pixels, layer.block)
        fields |= {
            "kernel_rows": layer.tiles.weights.shape[1],
            "inner": layer.tiles.weights.shape[2],
            "tiles": layer.tiles.count,
            "last_groups": layer.tiles.last_groups,
            "block": layer.block,
            "blocks": blocks,
            "last_block": layer.pixels - (blocks - 1) * layer.block,
        }
    return fields


def _source(layer: Layer, source: Region, program: Program) -> dict[str, int]:
    geometry = program.geometry
    words = ceil_div(layer.in_channels, geometry.post_lanes)
    inner = ceil_div(layer.in_channels, geometry.taps)
    match layer.kind:
        case LayerKind.STEM:
            assert layer.border is not None
            first_row = layer.first_row * layer.stride
            by_rows = can_go_by_rows(layer, geometry)
            border = sum(int(value) << (8 * i) for i, value in enumerate(layer.border))
            return {
                "src_base": source.base + first_row * source.row,
                "first_row": first_row,
                "row_length": source.row,
                "frame_bytes": layer.in_size[0] * source.row,
                "rows_ahead": rows_ahead(layer) if by_rows else 0,
                "in_channels": layer.in_channels,
                "border": border,
            }
        case LayerKind.BINARY:
            return {
                "row_length": source.row,
                "channel_words": source.pixel,
                "channels": layer.in_channels,
            }
        case LayerKind.POINTWISE:  # everything is inside
            return {"row_length": (layer.in_size[1] - 1) * source.pixel + inner}
        case LayerKind.CLASSIFIER:
            return {"row_length": inner, "classes": program.network.classes}
        case LayerKind.MEAN:  # the size of the map that it reads, and its own shift
            height, width = layer.in_size
            return {
                "inner": words,
                "out_height": height,
                "out_width": width,
                "a": layer.feature_shift,
            }
        case _:
            return {"inner": words}


def rows_ahead(layer: Layer) -> int:
    """Input rows that a block of the stem reads, from the first one of its first pixel on."""
    assert layer.block is not None
    assert layer.tiles is not None
    starts = range(0, layer.pixels, layer.block)
    width = layer.out_size[1]
    further = max(
        (min(start + layer.block, layer.pixels) - 1) // width - start // width for start in starts
    )
    return layer.tiles.weights.shape[1] + layer.stride * further


def can_go_by_rows(layer: Layer, geometry: Geometry) -> bool:
    """Whether the stem may free input rows as it goes: only with one tile, as each tile reads the
    whole frame; and only if the rows that a block reads fit the ring."""
    assert layer.source is not None
    assert layer.tiles is not None
    ahead = rows_ahead(layer)
    fits = input_ring_bytes(ahead, layer.source.row) <= geometry.input_bytes
    return layer.tiles.count == 1 and fits and ahead < 1 << LAYER["rows_ahead"].shape


def _destination(layer: Layer) -> dict[str, int]:
    fields = {
        "pooled": int(layer.pooled),
        "shortcut": int(layer.shortcut),
        "write_bits": int(layer.write_bits),
    }
    if (region := layer.destination) is not None:
        fields |= {"dst_base": region.base, "dst_row": region.row, "dst_pixel": region.pixel}
    if (bits := layer.bits) is not None:
        fields |= {"bit_base": bits.base, "bit_pixel": bits.pixel}
    return fields
