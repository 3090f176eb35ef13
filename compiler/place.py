"""Where every map stands.

Residual map, pixels and channels without gaps, in words of L channels. The first stage's map begins
at 0; every later one, which is at most half as large, ends where the memory ends. So from stage to
stage more words at the beginning are free, for the next frame's rows in their order. A stride-2
block goes from one stage to the next by way of a third map:

    POOL       reads the old stage's map, and writes where that begins: behind what it reads
    POINTWISE  reads the pooled map, and writes the new stage's, which does not reach as far
    BINARY     adds in place

Sources of other kinds: the stem reads bytes of the input (row, column, channel), a binary layer
K-bit words (row, column, word), the classifier features, each from its own memory.

Bit maps share one memory, in which one is read while the next is written. The stem's begins at 0;
every other one stands as far back as the one before it allows: where the memory ends, or in front
of that one if it stands there. As maps never grow, the largest two neighbours are all that must
fit; and once they have shrunk, the first words are free, for the next frame's.
"""

from dataclasses import replace

from compiler.ir import Program, Region, Size, ceil_div
from isa.layer import LayerKind


def place_residuals(program: Program) -> Program:
    """Sets ``destination`` in the residual map, and every ``source`` that is not a bit map."""
    geometry = program.geometry

    def region(size: Size, channels: int, base: int = 0) -> Region:
        pixel = ceil_div(channels, geometry.post_lanes)
        return Region(base, size[1] * pixel, pixel)

    here = Region(0, 0, 0)  # of the map that the next layer finds
    layers = []
    for layer in program.layers:
        match layer.kind:
            case LayerKind.STEM:
                channels = layer.in_channels
                source = Region(0, layer.in_size[1] * channels, channels)
                here = region(layer.map_size, layer.out_channels)
                layer = replace(layer, source=source, destination=here)
            case LayerKind.POOL:
                pooled = region(layer.out_size, layer.out_channels, here.base)
                layer = replace(layer, source=here, destination=pooled)
                here = pooled
            case LayerKind.POINTWISE:
                beyond = region(layer.out_size, layer.out_channels)
                words = layer.out_size[0] * beyond.row
                beyond = replace(beyond, base=geometry.residual_words - words)
                layer = replace(layer, source=here, destination=beyond)
                here = beyond
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
    source: Region | None = None
    source_end = 0
    layers = []
    for layer in program.layers:
        if layer.kind is LayerKind.BINARY:
            layer = replace(layer, source=source)
        if layer.write_bits:
            words = ceil_div(layer.out_channels, program.geometry.word_bits)
            row = layer.map_size[1] * words
            size = layer.map_size[0] * row
            base = program.geometry.bit_words - size
            if source is None:
                base = 0
            elif source_end > base:
                base = source.base - size
            source, source_end = Region(base, row, words), base + size
            layer = replace(layer, bits=source)
        layers.append(layer)
    return replace(program, layers=tuple(layers))
