"""The stem of the next frame, in parts, where layers wait for the stream.

Late layers have many weights and few pixels: the arrays wait for the stream. Meanwhile the weight
ring could be filled with what comes next, if there were something to do that needs few weights.
The next frame's stem is that: rows of it are computed between tiles, as soon as the words are free
where its maps will stand.

Every part streams the stem's weights again, and a layer in parts drains its array more often. So
several schedules are made and estimated, and the fastest one is taken.
"""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from compiler.estimate import (
    TIMING,
    Timeline,
    convolution_cycles,
    estimate,
    frame_cycles,
    packet_words,
)
from compiler.fit import END_WORDS
from compiler.ir import Layer, Program, Region, ceil_div
from compiler.parts import rows_ahead_of_time, some_tiles, tiles_together
from compiler.schedule import BlockChooser, can_go_by_rows
from isa.bits import WORD_BITS
from isa.fixed import IntArray
from isa.image import HEADER, HEADER_WORDS, PacketType
from isa.layer import LayerKind

LEAST_GAIN = 0.02
"""What an overlap must save of a frame's time to be worth it: frames alone become slower by it."""

PATIENCE = (0.02, 0.1, 0.2, 0.3, 0.5, 1.0)
"""Shares of a part's time that must be lost in waiting before it is put there, to be tried."""

MOST_LAYERS = (1 << HEADER["layers"].shape) - 1


def overlap_stem(program: Program) -> Program:
    """The program with parts of the next frame's stem between its layers, where that is possible
    and gains enough; ``in_sequence`` tells what it takes without."""
    layers = estimate(program)
    cycles = sum(layer.cycles for layer in layers)
    lost = sum(layer.waits["stream"] + layer.waits.get("weights", 0) for layer in layers)
    program = replace(program, in_sequence=cycles)
    stem = program.layers[0]
    if program.image_words is None or not can_go_by_rows(stem, program.geometry):
        return program
    if lost < cycles * LEAST_GAIN:
        return program
    best, fewest = program, cycles * (1 - LEAST_GAIN)
    for candidate in _candidates(program):
        cycles = frame_cycles(candidate)
        if cycles < fewest:
            best, fewest = candidate, cycles
    return best


def _candidates(program: Program) -> Iterator[Program]:
    assert program.image_words is not None
    stem, geometry, free = program.layers[0], program.geometry, free_rows(program)
    # While a part is computed, the stream fills the ring: what takes longer is of no more use.
    longest = geometry.ring_words * geometry.port_bits / WORD_BITS / program.stream_rate
    rows = 0
    while (rows := max(rows + 1, rows * 3 // 2)) <= stem.map_size[0]:
        part = BlockChooser(geometry)(rows_ahead_of_time(stem, 0, rows))
        if rows > 1 and convolution_cycles(part, geometry, TIMING) > longest:
            return
        for patience in PATIENCE:
            layers = _Overlap(program, free, rows, patience).layers()
            words = HEADER_WORDS + END_WORDS
            words += sum(packet_words(layer, geometry) for layer in layers)
            if len(layers) <= MOST_LAYERS and words <= program.image_words:
                yield replace(program, layers=tuple(layers))


def free_rows(program: Program) -> list[int]:
    """For each layer, how many rows of the next frame's first maps may be written when it ends:
    nothing uses their words any more."""
    geometry, stem = program.geometry, program.layers[0]
    assert stem.destination is not None
    assert stem.bits is not None
    residuals, bits = (
        np.zeros(words, np.int64) for words in (geometry.residual_words, geometry.bit_words)
    )
    for index, layer in enumerate(program.layers):
        source = bits if layer.kind is LayerKind.BINARY else residuals
        for memory, region, size, channels in (
            (source, layer.source, layer.in_size, layer.in_channels),
            (residuals, layer.destination, layer.map_size, layer.out_channels),
            (bits, layer.bits, layer.map_size, layer.out_channels),
        ):
            of_stem = layer.kind is LayerKind.STEM and region is layer.source
            if region is not None and not of_stem and layer.kind is not LayerKind.CLASSIFIER:
                width = geometry.word_bits if memory is bits else geometry.post_lanes
                memory[region.addresses(size, ceil_div(channels, width))] = index

    def last_use(memory: IntArray, region: Region, width: int) -> IntArray:
        words = ceil_div(stem.out_channels, width)
        return memory[region.addresses(stem.map_size, words)].max(axis=(1, 2))

    until = np.maximum(
        last_use(residuals, stem.destination, geometry.post_lanes),
        last_use(bits, stem.bits, geometry.word_bits),
    )
    in_order = np.maximum.accumulate(until)
    return [int((in_order <= index).sum()) for index in range(len(program.layers))]


class _Overlap:
    """One schedule: parts of ``rows`` rows each, where ``patience`` of their time would be lost in
    waiting for weights; what is left then goes before the frame's last tile."""

    def __init__(self, program: Program, free: list[int], rows: int, patience: float) -> None:
        self._program, self._geometry = program, program.geometry
        self._free, self._rows, self._patience = free, rows, patience
        self._blocks = BlockChooser(program.geometry)
        self._stem = replace(program.layers[0], packet=PacketType.STEM)
        self._height = self._stem.map_size[0]
        self._done = 0  # rows
        self._timeline = Timeline(program, TIMING)
        self._layers = [self._stem]

    def layers(self) -> list[Layer]:
        """The whole schedule."""
        self._timeline.skip(self._stem)
        for index, layer in enumerate(self._program.layers[1:], 1):
            self._place(layer, self._free[index - 1])
        return self._layers

    def _place(self, layer: Layer, free: int) -> None:
        """Appends a layer, in parts if something goes between them. ``free``: rows that may be
        written before it ends."""
        geometry = self._geometry
        count, step = 1, 1
        if layer.tiles is not None:
            count, step = layer.tiles.count, tiles_together(layer, geometry)
        begun = 0  # the first tile that has not been appended
        for tile in range(0, count, step):
            part = layer
            if layer.tiles is not None:
                part = self._blocks(some_tiles(layer, geometry, tile, min(step, count - tile)))
            final = layer.kind is LayerKind.CLASSIFIER and part.ends
            while ahead := self._next_rows(part, free, final):
                if tile > begun:
                    self._append(layer, begun, tile)
                    begun = tile
                self._layers.append(ahead)
                self._timeline.run(ahead)
            self._timeline.run(part)
        self._append(layer, begun, count)

    def _append(self, layer: Layer, start: int, end: int) -> None:
        if layer.tiles is not None and (start, end) != (0, layer.tiles.count):
            layer = self._blocks(some_tiles(layer, self._geometry, start, end - start))
        self._layers.append(layer)

    def _next_rows(self, part: Layer, free: int, final: bool) -> Layer | None:
        """The rows to be computed before ``part``, if there are any."""
        count = min(self._height - self._done, self._height if final else self._rows)
        if not count or self._done + count > free:
            return None
        ahead = self._blocks(rows_ahead_of_time(self._stem, self._done, count))
        if not final:
            waits = self._timeline.copy().run(part).waits
            lost = waits["stream"] + waits.get("weights", 0)
            if lost < self._patience * convolution_cycles(ahead, self._geometry, TIMING):
                return None
        self._done += count
        return ahead
