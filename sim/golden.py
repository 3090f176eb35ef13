"""The golden model: executes an encoded image on frames, word for word as the gateware does.

It keeps the machine's memories (input, residual map, bit maps, features), addresses them by the
layer descriptors, and computes with `isa.fixed`. A whole layer is computed at once, for a batch of
frames: with addresses that do not depend on the data, the order within a layer does not matter once
`golden_access.check_schedule` has proved it.

Values are exact: matrix products run in float32 or float64, whichever holds every partial sum.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from isa import fixed
from isa.fixed import ACC_BITS, IntArray
from isa.geometry import Geometry
from isa.image import Image
from isa.layer import LayerKind
from sim import golden_access as access
from sim.golden_access import Places
from sim.golden_program import GoldenError, Layer, decode_image

__all__ = ["Golden", "GoldenError", "GoldenFrame", "LayerTrace", "Writes"]

#: Frames that are computed together; more of them no longer fit the processor's caches.
BATCH = 16

FloatArray = npt.NDArray[np.floating]


@dataclass(frozen=True)
class Writes:
    """What a layer writes to one memory: ``data[k]`` goes to ``places.addresses[k]``.

    Residuals and features: L values a word; logits: the same; bits: M bits a sub-word, whose
    address counts sub-words.
    """

    places: Places
    data: IntArray


@dataclass(frozen=True)
class LayerTrace:
    """Everything that a layer writes in one frame; None where it does not write that memory."""

    index: int
    kind: LayerKind
    residual: Writes | None = None
    bits: Writes | None = None
    features: Writes | None = None
    logits: Writes | None = None


@dataclass(frozen=True)
class GoldenFrame:
    """Result of one frame. ``logits``: int64 (classes,)."""

    logits: IntArray
    layers: list[LayerTrace]


class Golden:
    """An image, ready to be executed. Raises GoldenError if its schedule is not sound."""

    def __init__(self, geometry: Geometry, image: Image) -> None:
        self.geometry, self.info = geometry, image.info
        layers = decode_image(geometry, image)
        access.check_schedule(geometry, layers, image.info.input_bytes)
        self._units = [_unit(geometry, layer) for layer in layers]

    def run(self, frame: npt.NDArray[np.uint8]) -> GoldenFrame:
        """One frame, uint8 of shape (H, W, C), with all that every layer writes."""
        self._check(frame[None])
        state = _State(self.geometry, frame[None])
        layers = []
        for unit in self._units:
            unit.run(state)
            layers.append(unit.trace(state))
        return GoldenFrame(state.logits[0, : self.info.classes], layers)

    def run_batch(self, frames: npt.NDArray[np.uint8]) -> IntArray:
        """Logits (N, classes) of frames (N, H, W, C)."""
        self._check(frames)
        logits = np.zeros((len(frames), self.info.classes), np.int64)
        for start in range(0, len(frames), BATCH):
            state = _State(self.geometry, frames[start : start + BATCH])
            for unit in self._units:
                unit.run(state)
            logits[start : start + BATCH] = state.logits[:, : self.info.classes]
        return logits

    def _check(self, frames: npt.NDArray[np.uint8]) -> None:
        if frames.dtype != np.uint8:
            raise TypeError(f"Frame must be uint8, not {frames.dtype}")
        if frames.shape[1:] != self.info.input_shape:
            raise ValueError(
                f"Frame must have shape {self.info.input_shape}, not {frames.shape[1:]}"
            )


class _State:
    """The memories, for a batch of N frames.

    Maps have one word more than the geometry: bits hold 0 there, which is what a masked step reads.
    """

    def __init__(self, geometry: Geometry, frames: npt.NDArray[np.uint8]) -> None:
        count, lanes = len(frames), geometry.post_lanes
        self.input = frames.reshape(count, -1)
        self.residual = np.zeros((count, geometry.residual_words, lanes), np.int16)
        self.bits = np.zeros((count, geometry.bit_words + 1, geometry.word_bits), np.float32)
        self.features = np.zeros((count, -(-geometry.channels // lanes), lanes), np.int64)
        self.logits = np.zeros((count, 0), np.int64)


class _Unit:
    """A layer with its addresses: ``run`` changes the state, ``trace`` reads back what it wrote."""

    def __init__(self, geometry: Geometry, layer: Layer) -> None:
        self.geometry, self.layer = geometry, layer
        self.index, self.kind = layer.index, layer.kind

    def run(self, state: _State) -> None:
        raise NotImplementedError

    def trace(self, state: _State) -> LayerTrace:
        raise NotImplementedError


def _unit(geometry: Geometry, layer: Layer) -> _Unit:
    if layer.kind is LayerKind.POOL:
        return _Pool(geometry, layer)
    if layer.kind is LayerKind.MEAN:
        return _Mean(geometry, layer)
    if layer.kind is LayerKind.CLASSIFIER:
        return _Classifier(geometry, layer)
    return _Convolution(geometry, layer)


class _Products:
    """Accumulators of a convolution: (N, pixels, tiles * M) from the state's source memory."""

    def __init__(self, geometry: Geometry, layer: Layer) -> None:
        assert layer.weights is not None
        self._kind, self._pixels = layer.kind, layer.pixels
        reads = access.operands(geometry, layer)
        # (tiles, steps, M, K or T) -> (steps * K, tiles * M)
        weights = layer.weights.astype(np.float64).transpose(1, 3, 0, 2)
        weights = weights.reshape(weights.shape[0] * weights.shape[1], -1)
        self._constant: FloatArray | None = None
        if layer.kind is LayerKind.BINARY:
            # popcount(x XNOR w) = sum of x * (2w - 1) + (1 - w), and acc = 2 * popcount - count
            self._reads = np.where(reads.inside, reads.addresses, geometry.bit_words)
            zeros = (1 - weights).reshape(layer.steps, -1, weights.shape[1]).sum(axis=1)
            first = np.arange(layer.steps) % layer.fields["inner"] % layer.fields["channel_words"]
            counts = np.where(first == 0, layer.fields["channels"], 0)
            inside = reads.inside.astype(np.float64)
            self._constant = (2 * (inside @ zeros) - (inside @ counts)[:, None]).astype(np.float32)
            self._weights: FloatArray = (4 * weights - 2).astype(np.float32)
            return
        self._reads = reads.addresses
        largest = {
            LayerKind.STEM: 255,
            LayerKind.POINTWISE: 1 << (fixed.RESIDUAL_BITS - 1),
            LayerKind.CLASSIFIER: 1 << (fixed.FEATURE_BITS - 1),
        }[layer.kind]
        bound = int(np.abs(weights).sum(axis=0).max()) * largest
        limit = fixed.limits(ACC_BITS)[1]
        layer.require(bound <= limit, f"accumulate at most {limit}", bound)
        self._weights = weights.astype(np.float32 if bound < 1 << 24 else np.float64)
        if layer.kind is LayerKind.STEM:
            channels = layer.fields["in_channels"]
            layer.require(1 <= channels <= 4, "have 1 to 4 input channels", channels)
            values = np.arange(4) * 8
            self._border = (layer.fields["border"] >> values & 0xFF).astype(np.uint8)
            # The border's bytes follow the frame's; tap t of step n takes channel (n*T + t) % C.
            per_row = np.arange(layer.fields["inner"] * geometry.taps) % channels
            border = layer.fields["frame_bytes"] + np.tile(per_row, layer.fields["kernel_rows"])
            self._reads = np.where(reads.inside, reads.addresses, border)

    def __call__(self, state: _State) -> IntArray:
        count = len(state.input)
        if self._kind is LayerKind.BINARY:
            source: npt.NDArray[np.generic] = state.bits
        elif self._kind is LayerKind.STEM:
            border = np.broadcast_to(self._border, (count, 4))
            source = np.concatenate([state.input, border], axis=1)
        elif self._kind is LayerKind.POINTWISE:
            source = state.residual.reshape(count, -1)
        else:
            source = state.features.reshape(count, -1)
        values = np.take(source, self._reads.ravel(), axis=1)
        matrix = values.reshape(count * self._pixels, -1).astype(self._weights.dtype, copy=False)
        acc = matrix @ self._weights
        acc = acc.reshape(count, self._pixels, -1)
        if self._constant is not None:
            acc += self._constant
        return acc.astype(np.int64)


class _Convolution(_Unit):
    """Stem, binary and pointwise layers: residuals and perhaps bits."""

    def __init__(self, geometry: Geometry, layer: Layer) -> None:
        super().__init__(geometry, layer)
        self._products = _Products(geometry, layer)
        self._residual = access.residual_places(geometry, layer)
        self._bits = access.bit_places(geometry, layer) if layer.fields["write_bits"] else None
        self._words = layer.words(geometry)
        self._pooled = layer.kind is LayerKind.STEM and bool(layer.fields["pooled"])
        self._shortcut = layer.kind is LayerKind.BINARY and bool(layer.fields["shortcut"])

    def run(self, state: _State) -> None:
        geometry, layer = self.geometry, self.layer
        assert layer.params is not None
        count, width = len(state.input), self._words * geometry.post_lanes
        acc = self._products(state)
        shortcut = None
        if self._shortcut:
            shortcut = np.zeros(acc.shape, np.int64)
            read = np.take(state.residual, self._residual.addresses, axis=1)
            shortcut[:, :, :width] = read.reshape(count, layer.pixels, width)
        residual, bits = fixed.post_process(acc, shortcut, layer.params, layer.shifts)
        if self._pooled:
            residual, bits = self._pool(residual), self._pool(bits)
        state.residual[:, self._residual.addresses] = residual[:, :, :width].reshape(
            count, -1, geometry.post_lanes
        )
        if self._bits is not None:
            self._write_bits(state, self._bits, bits)

    def _pool(self, x: IntArray) -> IntArray:
        """3x3 stride 2 with a border that is ignored: the maximum, which for bits is OR."""
        height, width = self.layer.fields["out_height"], self.layer.fields["out_width"]
        x = x.reshape(len(x), height, width, -1)
        for axis in (1, 2):
            odd = np.take(x, np.arange(1, x.shape[axis], 2), axis)
            even = np.take(x, np.arange(0, x.shape[axis], 2), axis)
            # The odd row or column before; the first has none, and takes itself once more.
            before = np.take(odd, np.maximum(np.arange(odd.shape[axis]) - 1, 0), axis)
            x = np.maximum(np.maximum(odd, even), before)
        return x.reshape(len(x), -1, x.shape[-1])

    def _write_bits(self, state: _State, places: Places, bits: IntArray) -> None:
        """All sub-words of every word: those beyond the last tile are cleared by the first."""
        geometry, layer = self.geometry, self.layer
        words = -(-layer.fields["tiles"] // geometry.sub_words)
        full = np.zeros((*bits.shape[:2], words * geometry.word_bits), np.float32)
        width = self._words * geometry.post_lanes
        full[:, :, :width] = bits[:, :, :width]
        pixels = layer.fields["bit_base"] + np.arange(bits.shape[1]) * layer.fields["bit_pixel"]
        addresses = (pixels[:, None] + np.arange(words)).ravel()
        state.bits[:, addresses] = full.reshape(len(bits), -1, geometry.word_bits)

    def trace(self, state: _State) -> LayerTrace:
        bits = None
        if self._bits is not None:
            sub_words = state.bits[0].reshape(-1, self.geometry.lanes)
            bits = Writes(self._bits, sub_words[self._bits.addresses].astype(np.int64))
        return LayerTrace(
            self.index, self.kind, residual=_residuals(state, self._residual), bits=bits
        )


def _residuals(state: _State, places: Places) -> Writes:
    return Writes(places, state.residual[0, places.addresses].astype(np.int64))


class _Pool(_Unit):
    """2x2 average within the residual map."""

    def __init__(self, geometry: Geometry, layer: Layer) -> None:
        super().__init__(geometry, layer)
        self._reads = access.average_reads(layer)
        self._places = access.residual_places(geometry, layer)

    def run(self, state: _State) -> None:
        total = sum(state.residual[:, corner].astype(np.int64) for corner in self._reads)
        state.residual[:, self._places.addresses] = fixed.round_shift(np.asarray(total), 2)

    def trace(self, state: _State) -> LayerTrace:
        return LayerTrace(self.index, self.kind, residual=_residuals(state, self._places))


class _Mean(_Unit):
    """Sum over all pixels of the residual map, one feature a channel."""

    def __init__(self, geometry: Geometry, layer: Layer) -> None:
        super().__init__(geometry, layer)
        self._reads = access.average_reads(layer)
        self._places = access.vector_places(geometry, layer)
        # what features of the largest residuals would be
        bound = np.array(layer.pixels << (fixed.RESIDUAL_BITS - 1))
        largest, limit = int(fixed.round_shift(bound, layer.fields["a"])), fixed.limits(16)[1]
        layer.require(largest <= limit, f"shift its sums to at most {limit}", largest)

    def run(self, state: _State) -> None:
        pixels, words = self._reads.shape
        values = np.take(state.residual, self._reads.ravel(), axis=1).astype(np.int64)
        sums = values.reshape(len(values), pixels, words, -1).sum(axis=1)
        features = fixed.round_shift(sums, self.layer.fields["a"])
        state.features[:, self._places.addresses] = features

    def trace(self, state: _State) -> LayerTrace:
        features = state.features[0, self._places.addresses]
        return LayerTrace(self.index, self.kind, features=Writes(self._places, features))


class _Classifier(_Unit):
    """Features to logits."""

    def __init__(self, geometry: Geometry, layer: Layer) -> None:
        super().__init__(geometry, layer)
        self._products = _Products(geometry, layer)
        self._places = access.vector_places(geometry, layer)

    def run(self, state: _State) -> None:
        assert self.layer.params is not None
        acc = self._products(state)[:, 0]
        state.logits = fixed.logits(acc, self.layer.params, self.layer.shifts)

    def trace(self, state: _State) -> LayerTrace:
        words = state.logits[0].reshape(-1, self.geometry.post_lanes)
        logits = Writes(self._places, words[self._places.addresses])
        return LayerTrace(self.index, self.kind, logits=logits)
