"""Cycles of a frame, before any hardware exists.

The image stream brings a word a cycle and runs ahead as far as ring, parameter banks and descriptor
queue allow. A convolution is a sequence of weight sets; a set is worked on for one cycle a pixel,
while the next is loaded. The last set of a block waits until the block before has been drained.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from compiler.ir import Layer, Program, ceil_div
from isa.bits import WORD_BITS
from isa.geometry import Geometry
from isa.image import CHANNEL_WORDS, LAYER_WORDS
from isa.layer import LayerKind


@dataclass(frozen=True)
class Timing:
    """Latencies of the gateware, in cycles, measured on simulations of the whole core."""

    start: int = 2  # from the start of a frame to the first word of the stream
    layer: int = 4  # from the last write of a layer to the start of the next
    first_set: int = 3  # from there to the first step, beyond the load of its weights
    reload_binary: int = 6  # from one set to the next, beyond a cycle a word
    reload_mac: int = 7
    drain: int = 11  # from a block's last step to its first drained word
    tile: int = 9  # between the drains of two tiles
    post: int = 19  # from the last drained word to its write
    reduction: int = 8  # from the start of a pool or mean to its last write, beyond its reads
    bank: int = 8  # from a tile's last drained word until its parameters are done with
    finish: int = 6  # from the last logit to the end, beyond one cycle a class
    descriptors: int = 3  # LAYER packets that the stream may be ahead

    def reload(self, layer: Layer) -> int:
        return self.reload_binary if layer.kind is LayerKind.BINARY else self.reload_mac


TIMING = Timing()
PARAMETER_BANKS = 2  # tiles whose parameters are held at once


@dataclass
class LayerEstimate:
    """Cycles of one layer, from the end of the one before. ``waits``: thereof lost, by reason."""

    name: str
    kind: str
    cycles: int
    waits: dict[str, int] = field(default_factory=dict)


def set_words(layer: Layer, geometry: Geometry) -> int:
    """Words of the ring in one weight set."""
    binary = layer.kind is LayerKind.BINARY
    return (geometry.binary_set_bits if binary else geometry.mac_set_bits) // geometry.port_bits


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


class _Stream:
    """When each word of the stream arrives; the ring frees the words of a set once it is used."""

    def __init__(self, geometry: Geometry, timing: Timing) -> None:
        self.now = timing.start
        self._ring_words = geometry.ring_words
        self._words_per_cycle = geometry.port_bits // WORD_BITS
        self._held: deque[tuple[int, int]] = deque()  # words and time of release, oldest first
        self._used = 0
        self._banks = deque([0] * PARAMETER_BANKS)  # when each becomes free

    def layer(self, not_before: int) -> int:
        """A LAYER packet, accepted from ``not_before`` on; the time it is complete."""
        self.now = max(self.now, not_before) + 1 + LAYER_WORDS
        return self.now

    def parameters(self, words: int) -> int:
        """A PARAMS packet, into the bank that the tile before the last one had."""
        self.now = max(self.now, self._banks.popleft()) + 1 + words
        return self.now

    def weights(self, sets: int, words: int) -> list[int]:
        """A WEIGHTS packet; the time at which each of its sets is in the ring."""
        self.now += 1
        arrivals = []
        for _ in range(sets):
            while self._used + words > self._ring_words:
                freed, time = self._held.popleft()
                self._used -= freed
                self.now = max(self.now, time)
            self._used += words
            self.now += words * self._words_per_cycle
            arrivals.append(self.now)
        return arrivals

    def release(self, words: int, times: Sequence[int], end: int) -> None:
        """The tile's sets, of so many words, are in the registers at these times, for the last
        time; its parameters are done with at ``end``."""
        self._held.extend((words, time) for time in times)
        self._banks.append(end)


class _InstantStream(_Stream):
    """All weights are there already."""

    def parameters(self, words: int) -> int:
        return 0

    def weights(self, sets: int, words: int) -> list[int]:
        return [0] * sets

    def release(self, words: int, times: Sequence[int], end: int) -> None:
        pass


def convolution_cycles(layer: Layer, geometry: Geometry, timing: Timing) -> int:
    """Cycles of one convolution whose weights never have to be waited for."""
    return _convolution(layer, geometry, timing, _InstantStream(geometry, timing), 0)[0]


def _convolution(
    layer: Layer, geometry: Geometry, timing: Timing, stream: _Stream, now: int
) -> tuple[int, dict[str, int]]:
    """The time of the last write, and the cycles waited."""
    assert layer.tiles is not None
    steps, words = layer.tiles.steps, set_words(layer, geometry)
    reload, blocks = words + timing.reload(layer), block_sizes(layer)
    waits = {"weights": 0, "reload": 0, "post": 0}
    drained = now
    ready = now + timing.first_set + words  # when the next set can be in the shadow registers
    for tile in range(layer.tiles.count):
        params = stream.parameters(geometry.lanes * CHANNEL_WORDS)
        arrivals = stream.weights(steps, words)
        groups = groups_of_tile(layer, geometry, tile)
        drainable = drained + timing.tile if tile else now
        for index, pixels in enumerate(blocks):
            starts: list[int] = []
            # Only the first block of a tile can meet weights that have not arrived.
            for arrival in arrivals if index == 0 else [0] * steps:
                begin = max(now, ready)
                waits["reload"] += begin - now
                loaded = arrival + timing.first_set
                waits["weights"] += max(0, loaded - begin)
                begin = max(begin, loaded)
                if len(starts) == steps - 1 and begin < drained:
                    waits["post"] += drained - begin
                    begin = drained
                starts.append(begin)
                ready, now = begin + reload, begin + pixels
            first = max(drainable, starts[-1] + timing.drain, params)
            drainable = drained = max(first + pixels * groups, now + timing.drain)
        stream.release(words, starts, drained + timing.bank)
    return drained + timing.post, waits


def estimate(program: Program, timing: Timing = TIMING) -> list[LayerEstimate]:
    """Every layer of a program whose blocks are chosen, in order; the sum is the whole frame."""
    geometry = program.geometry
    stream = _Stream(geometry, timing)
    begun: list[int] = []
    now, layers = 0, []
    for layer in program.layers:
        queued = begun[-timing.descriptors] if len(begun) >= timing.descriptors else 0
        begin = max(now, stream.layer(queued))
        waits = {"stream": begin - now}
        begun.append(begin)
        if layer.tiles is None:
            end = begin + reduction_cycles(layer, geometry) + timing.reduction
        else:
            end, more = _convolution(layer, geometry, timing, stream, begin)
            waits |= more
        end += timing.layer
        if layer.kind is LayerKind.CLASSIFIER:
            end += layer.out_channels + timing.finish
        layers.append(LayerEstimate(layer.name, layer.kind.name, end - now, waits))
        now = end
    return layers
