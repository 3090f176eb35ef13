"""Cycles of a frame, before any hardware exists.

A convolution is a sequence of weight sets; a set is worked on for one cycle a pixel, while the next
is loaded. The last set of a block waits until the block before has been drained. Weights and
parameters come with the image's stream, which runs ahead (:mod:`compiler.stream`).
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field

from compiler.ir import Layer, Program, ceil_div
from compiler.stream import Stream
from isa.bits import WORD_BITS
from isa.geometry import Geometry
from isa.image import CHANNEL_WORDS, LAYER_WORDS, PacketType
from isa.layer import LayerKind

PIXEL_BITS = 8  # of a channel


@dataclass(frozen=True)
class Timing:
    """Latencies of the gateware, in cycles, measured on simulations of the whole core."""

    start: int = 2  # from the start of a frame to the first word of the stream
    layer: int = 6  # from the last write of a layer to the start of the next
    first_set: int = 4  # from there to the first step, beyond the load of its weights
    reload_binary: int = 5  # from one set to the next, at least; or one more than its words
    reload_mac: int = 7
    drain_binary: int = 12  # from a block's last step to its first drained word
    drain_mac: int = 15
    tile: int = 9  # between the drains of two tiles
    post: int = 26  # from the last drained word to its write
    reduction: int = 12  # from the start of a pool or mean to its last write, beyond its reads
    bank: int = 11  # from a tile's last drained word until its parameters are done with
    finish: int = 10  # from the last logit to the end, beyond one cycle a class
    descriptors: int = 3  # LAYER packets that the stream may be ahead
    queue: int = 512  # words that wait in front of the loader where they come slowly

    def reload(self, layer: Layer) -> int:
        return self.reload_binary if layer.kind is LayerKind.BINARY else self.reload_mac

    def drain(self, layer: Layer) -> int:
        return self.drain_binary if layer.kind is LayerKind.BINARY else self.drain_mac


TIMING = Timing()


@dataclass
class LayerEstimate:
    """Cycles of one layer, or of a part, from the end of the one before. ``waits``: thereof lost,
    by reason."""

    name: str
    kind: str
    packet: PacketType
    cycles: int
    waits: dict[str, int] = field(default_factory=dict)


def set_words(layer: Layer, geometry: Geometry) -> int:
    """Words of the ring in one weight set."""
    return geometry.set_bits(layer.kind) // geometry.port_bits


def packet_words(layer: Layer, geometry: Geometry) -> int:
    """Words of the layer's packets in the image."""
    words = 1 + LAYER_WORDS
    if layer.tiles is not None:
        weights = layer.tiles.steps * set_words(layer, geometry) * geometry.port_bits // WORD_BITS
        words += layer.tiles.count * (1 + geometry.lanes * CHANNEL_WORDS + 1 + weights)
    return words


def packet_count(layer: Layer) -> int:
    """The layer's packets in the image."""
    return 1 + (2 * layer.tiles.count if layer.tiles is not None else 0)


def input_words(stem: Layer) -> int:
    """Words of pixels that the stem, or a part of one, reads for the first time."""
    rows = stem.out_size[0] * stem.stride
    return rows * stem.in_size[1] * stem.in_channels * PIXEL_BITS // WORD_BITS


def block_sizes(layer: Layer) -> list[int]:
    assert layer.block is not None
    count = ceil_div(layer.pixels, layer.block)
    return [layer.block] * (count - 1) + [layer.pixels - (count - 1) * layer.block]


def groups_of_tile(layer: Layer, geometry: Geometry, tile: int) -> int:
    """Words of L channels that a pixel of the tile has."""
    assert layer.tiles is not None
    return layer.tiles.last_groups if tile == layer.tiles.count - 1 else geometry.groups


def reduction_cycles(layer: Layer, geometry: Geometry) -> int:
    """Reads of a pool or mean."""
    words = ceil_div(layer.in_channels, geometry.post_lanes)
    return layer.in_size[0] * layer.in_size[1] * words


class _InstantStream(Stream):
    """All weights are there already."""

    def parameters(self, words: int) -> float:
        return 0

    def weights(self, sets: int, words: int) -> list[float]:
        return [0] * sets

    def release(self, words: int, times: Sequence[float], end: float) -> None:
        pass


def convolution_cycles(layer: Layer, geometry: Geometry, timing: Timing) -> int:
    """Cycles of one convolution whose weights never have to be waited for."""
    stream = _InstantStream(geometry, start=0, rate=1, queue=0)
    return round(_Convolution(layer, geometry, timing, stream, 0).run())


class _Convolution:
    """One convolution that starts ``now``."""

    def __init__(
        self, layer: Layer, geometry: Geometry, timing: Timing, stream: Stream, now: float
    ) -> None:
        self._layer, self._geometry = layer, geometry
        self._timing, self._stream = timing, stream
        self._words = set_words(layer, geometry)
        self._reload = max(self._words + 1, timing.reload(layer))
        self._now = self._drained = now  # the arrays' steps, the last drained word
        self._ready = now + timing.first_set + self._words  # when the next set can be used
        self.waits: dict[str, float] = {"weights": 0, "reload": 0, "post": 0}

    def run(self) -> float:
        """The time of the last write."""
        layer, geometry, timing, stream = self._layer, self._geometry, self._timing, self._stream
        assert layer.tiles is not None
        blocks, drainable, drain = block_sizes(layer), self._now, timing.drain(layer)
        for tile in range(layer.tiles.count):
            params = stream.parameters(geometry.lanes * CHANNEL_WORDS)
            arrivals = stream.weights(layer.tiles.steps, self._words)
            groups = groups_of_tile(layer, geometry, tile)
            for index, pixels in enumerate(blocks):
                if index == 0:
                    starts = self._first_block(pixels, arrivals)
                else:
                    starts = self._block(pixels, len(arrivals))
                first = max(drainable, starts[-1] + drain, params)
                self._drained = max(first + pixels * groups, self._now + drain)
                drainable = self._drained
            stream.release(self._words, starts, self._drained + timing.bank)
            drainable += timing.tile
        return self._drained + timing.post

    def _first_block(self, pixels: int, arrivals: Sequence[float]) -> list[float]:
        """When its sets begin. Only these can meet weights that have not arrived."""
        starts: list[float] = []
        for arrival in arrivals:
            begin = max(self._now, self._ready)
            self.waits["reload"] += begin - self._now
            loaded = arrival + self._timing.first_set
            self.waits["weights"] += max(0, loaded - begin)
            begin = max(begin, loaded)
            if len(starts) == len(arrivals) - 1:
                begin = self._after_drain(begin)
            starts.append(begin)
            self._ready, self._now = begin + self._reload, begin + pixels
        return starts

    def _block(self, pixels: int, sets: int) -> list[float]:
        """The same of any other block."""
        begin, pace = max(self._now, self._ready), max(pixels, self._reload)
        self.waits["reload"] += begin - self._now + (sets - 1) * (pace - pixels)
        starts = [begin + number * pace for number in range(sets)]
        starts[-1] = self._after_drain(starts[-1])
        self._ready, self._now = starts[-1] + self._reload, starts[-1] + pixels
        return starts

    def _after_drain(self, begin: float) -> float:
        self.waits["post"] += max(0, self._drained - begin)
        return max(begin, self._drained)


class Timeline:
    """The layers of a frame, one after the other, from its start."""

    def __init__(self, program: Program, timing: Timing) -> None:
        self._geometry, self._timing = program.geometry, timing
        self._classes = program.network.classes
        self._stream = Stream(
            program.geometry, start=timing.start, rate=program.stream_rate, queue=timing.queue
        )
        self._input_shares = program.input_shares
        self._begun: list[float] = []
        self._now: float = 0

    def copy(self) -> "Timeline":
        """What comes next can be tried on a copy."""
        other = copy.copy(self)
        other._stream, other._begun = self._stream.copy(), self._begun.copy()
        return other

    def skip(self, layer: Layer) -> None:
        """The layer's packets pass, and it is not computed."""
        stream = self._stream
        stream.take(packet_words(layer, self._geometry))
        stream.wait(stream.now + packet_count(layer))

    def run(self, layer: Layer) -> LayerEstimate:
        timing, begun = self._timing, self._begun
        queued = begun[-timing.descriptors] if len(begun) >= timing.descriptors else 0
        begin = max(self._now, self._stream.layer(queued))
        waits: dict[str, float] = {"stream": begin - self._now}
        begun.append(begin)
        if layer.tiles is None:
            end = begin + reduction_cycles(layer, self._geometry) + timing.reduction
        else:
            convolution = _Convolution(layer, self._geometry, timing, self._stream, begin)
            end = convolution.run()
            waits |= convolution.waits
        if layer.kind is LayerKind.STEM and self._input_shares:
            self._stream.yield_to(input_words(layer))
        end += timing.layer
        if layer.kind is LayerKind.CLASSIFIER and layer.ends:
            end += self._classes + timing.finish
        before, self._now = self._now, end
        return LayerEstimate(
            layer.name,
            layer.kind.name,
            layer.packet,
            round(end) - round(before),
            {reason: round(cycles) for reason, cycles in waits.items()},
        )


def skipped(*, alone: bool) -> PacketType:
    """What is not computed in a frame ``alone``, or in one between two others."""
    return PacketType.AHEAD if alone else PacketType.STEM


def estimate(
    program: Program, timing: Timing = TIMING, *, alone: bool = False
) -> list[LayerEstimate]:
    """What is computed in a frame, in order; the sum is the whole frame. The blocks must have been
    chosen. ``alone``: no frame comes before or after it."""
    timeline, done = Timeline(program, timing), []
    for layer in program.layers:
        if layer.packet is skipped(alone=alone):
            timeline.skip(layer)
        else:
            done.append(timeline.run(layer))
    return done


def frame_cycles(program: Program) -> int:
    """Cycles of a frame between two others."""
    return sum(layer.cycles for layer in estimate(program))
