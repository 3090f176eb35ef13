"""Where every map stands.

Residual map, in place, in words of L channels: P0 = ceil(C0 / L) words a pixel and R0 = W0 * P0
words a row at stage 0. At stage s pixel (i, j) stands at i * (R0 << s) + j * (P0 << s), channels
contiguous: a stage of half the size and up to twice the channels leaves every pixel where its upper
left one was. A stride-2 block of stage s goes through the odd rows:

    POOL       reads all of stage s, writes pixel (i, j) to where (2i + 1, 2j) of stage s stood
    POINTWISE  reads that, writes pixel (i, j) of stage s + 1, where (2i, 2j) of stage s stood
    BINARY     adds in place

So no tile overwrites what a later one reads. Sources of other kinds: the stem reads bytes of the
input (row, column, channel), a binary layer K-bit words (row, column, word), the classifier
features, each from its own memory.

Bit maps share one memory: the maps 0, 2, 4 ... begin at its start, the others end where the largest
pair of neighbours ends. One is read while the next is written, so this is the smallest memory.
"""

from dataclasses import replace

from compiler.fit import bit_map_sizes, bit_map_words
from compiler.ir import Layer, Program, Region, ceil_div
from isa.layer import LayerKind


def place_residuals(program: Program) -> Program:
    """Sets ``destination`` in the residual map, and every ``source`` that is not a bit map."""
    network, geometry = program.network, program.geometry
    pixel = ceil_div(network.widths[0], geometry.post_lanes)
    row, stage = network.map_size[1] * pixel, 0
    layers = []
    for layer in program.layers:
        here = Region(0, row << stage, pixel << stage)
        beyond = Region(0, row << stage + 1, pixel << stage + 1)
        pooled = replace(beyond, base=row << stage)  # the odd rows
        match layer.kind:
            case LayerKind.STEM:
                channels = layer.in_channels
                source = Region(0, layer.in_size[1] * channels, channels)
                layer = replace(layer, source=source, destination=here)
            case LayerKind.POOL:
                layer = replace(layer, source=here, destination=pooled)
            case LayerKind.POINTWISE:
                layer = replace(layer, source=pooled, destination=beyond)
                stage += 1
            case LayerKind.BINARY:
                layer = replace(layer, destination=here)
            case LayerKind.MEAN:
                layer = replace(layer, source=here)
            case LayerKind.CLASSIFIER:
                layer = replace(layer, source=Region(0, 0, 0))
        layers.append(layer)
    return replace(program, layers=tuple(layers))


def place_bits(program: Program) -> Program:
    """Sets the bit maps that binary layers read and that stem and binary layers write."""
    sizes = bit_map_sizes(program.network, program.geometry)
    total = bit_map_words(sizes)
    maps = iter([0 if i % 2 == 0 else total - size for i, size in enumerate(sizes)])
    source: Region | None = None
    layers = []
    for layer in program.layers:
        written = _bit_map(program, layer, next(maps)) if layer.write_bits else None
        if layer.kind is LayerKind.BINARY:
            layer = replace(layer, source=source)
        if written is not None:
            layer, source = replace(layer, bits=written), written
        layers.append(layer)
    return replace(program, layers=tuple(layers))


def _bit_map(program: Program, layer: Layer, base: int) -> Region:
    words = ceil_div(layer.out_channels, program.geometry.word_bits)
    return Region(base, layer.map_size[1] * words, words)
