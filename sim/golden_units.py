"""The layers of the golden model: what each does to the memories, and what it has written."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from isa import fixed
from isa.fixed import IntArray
from isa.geometry import Geometry
from isa.layer import LayerKind
from sim import golden_access as access
from sim import golden_kernels as kernels
from sim.golden_access import Places
from sim.golden_products import (
    UNIT_BITS,
    BinaryProducts,
    MacProducts,
    Maps,
    State,
    unit_bits,
    units_a_word,
)
from sim.golden_program import Layer


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


class Unit:
    """A layer with its addresses: ``run`` changes the state, ``trace`` reads back what it wrote
    in the first frame."""

    def __init__(self, geometry: Geometry, layer: Layer) -> None:
        self.geometry, self.layer = geometry, layer
        self.index, self.kind = layer.index, layer.kind

    def run(self, state: State) -> None:
        raise NotImplementedError

    def trace(self, state: State) -> LayerTrace:
        raise NotImplementedError


def make_unit(geometry: Geometry, layer: Layer) -> Unit:
    if layer.kind is LayerKind.POOL:
        return _Pool(geometry, layer)
    if layer.kind is LayerKind.MEAN:
        return _Mean(geometry, layer)
    if layer.kind is LayerKind.CLASSIFIER:
        return _Classifier(geometry, layer)
    return _Convolution(geometry, layer)


class _Convolution(Unit):
    """Stem, binary and pointwise layers: residuals and perhaps bits."""

    def __init__(self, geometry: Geometry, layer: Layer) -> None:
        super().__init__(geometry, layer)
        assert layer.params is not None
        binary, fields = layer.kind is LayerKind.BINARY, layer.fields
        self._products = (BinaryProducts if binary else MacProducts)(geometry, layer)
        self._residual = access.residual_places(geometry, layer)
        self._bits = access.bit_places(geometry, layer) if fields["write_bits"] else None
        words = layer.words(geometry)
        self._width = words * geometry.post_lanes
        self._pooled = layer.kind is LayerKind.STEM and bool(fields["pooled"])
        self._shortcut = binary and bool(fields["shortcut"])
        self._table = kernels.table_of(layer.params)[:, : self._width]
        self._rules = kernels.rules_of(layer.shifts)
        # Words of a pixel follow each other in both maps.
        self._places = self._residual.addresses[::words] * geometry.post_lanes
        pixels = np.arange(len(self._places))
        self._bit_places = fields["bit_base"] + pixels * fields["bit_pixel"]
        self._bit_places *= units_a_word(geometry)
        # All sub-words of every word: those beyond the last tile are cleared by the first.
        self._units = -(-fields["tiles"] // geometry.sub_words) * units_a_word(geometry)

    def run(self, state: State) -> None:
        acc = self._products(state)
        signs: npt.NDArray[np.integer] = np.empty(acc.shape, np.uint8)
        if self._pooled:
            maps: Maps = np.empty((len(state.input), self.layer.pixels * self._width), np.int16)
            places = np.arange(self.layer.pixels) * self._width
            kernels.post_process(acc, maps, places, False, self._table, self._rules, signs)
            above = state.stem_row or (None, None)
            maps, signs = self._by_frame(maps), self._by_frame(signs)
            ends = self.layer.fields["ends"]
            state.stem_row = None if ends else (maps[:, -1].copy(), signs[:, -1].copy())
            signs = self._pool(signs, above[1])
            pooled = self._pool(maps, above[0]).reshape(len(maps), -1, self.geometry.post_lanes)
            memory = state.residual.reshape(len(maps), -1, self.geometry.post_lanes)
            memory[:, self._residual.addresses] = pooled
        else:
            kernels.post_process(
                acc, state.residual, self._places, self._shortcut, self._table, self._rules, signs
            )
        if self._bits is not None:
            width = unit_bits(self.geometry)
            kernels.pack_signs(signs, width, self._units, self._bit_places, state.bits)

    def _by_frame(self, maps: Maps) -> Maps:
        """(N, height, width, channels), before the max-pool."""
        fields = self.layer.fields
        return maps.reshape(-1, fields["out_height"], fields["out_width"], self._width)

    def _pool(self, values: Maps, above: Maps | None) -> Maps:
        """(N * pixels, channels) of either map, after the max-pool. ``above``: the row before the
        first one, of the part before this."""
        if above is not None:
            values = np.concatenate([above[:, None], above[:, None], values], axis=1)
        height, width = values.shape[1:3]
        result = np.empty((len(values), height // 2, width // 2, self._width), values.dtype)
        kernels.max_pool(np.ascontiguousarray(values), result)
        return result[:, 0 if above is None else 1 :].reshape(-1, self._width)

    def trace(self, state: State) -> LayerTrace:
        bits = None
        if self._bits is not None:
            lanes = np.unpackbits(state.bits[0].view(np.uint8), bitorder="little")
            used = lanes.reshape(-1, UNIT_BITS)[:, : unit_bits(self.geometry)]
            sub_words = used.reshape(-1, self.geometry.lanes)
            bits = Writes(self._bits, sub_words[self._bits.addresses].astype(np.int64))
        residual = _words(self.geometry, state.residual, self._residual)
        return LayerTrace(self.index, self.kind, residual=residual, bits=bits)


def _words(geometry: Geometry, memory: npt.NDArray[np.integer], places: Places) -> Writes:
    """Words of L values at ``places``, of the first frame."""
    words = memory[0].reshape(-1, geometry.post_lanes)
    return Writes(places, words[places.addresses].astype(np.int64))


class _Pool(Unit):
    """2x2 average within the residual map."""

    def __init__(self, geometry: Geometry, layer: Layer) -> None:
        super().__init__(geometry, layer)
        self._reads = access.average_reads(layer)
        self._places = access.residual_places(geometry, layer)

    def run(self, state: State) -> None:
        words = state.residual.reshape(len(state.residual), -1, self.geometry.post_lanes)
        total = words[:, self._reads].sum(axis=1, dtype=np.int64)
        words[:, self._places.addresses] = fixed.round_shift(total, 2)

    def trace(self, state: State) -> LayerTrace:
        residual = _words(self.geometry, state.residual, self._places)
        return LayerTrace(self.index, self.kind, residual=residual)


class _Mean(Unit):
    """Sum over all pixels of the residual map, one feature a channel."""

    def __init__(self, geometry: Geometry, layer: Layer) -> None:
        super().__init__(geometry, layer)
        self._reads = access.average_reads(layer)
        self._places = access.vector_places(geometry, layer)
        # what features of the largest residuals would be
        bound = np.array(layer.pixels << (fixed.RESIDUAL_BITS - 1))
        largest = int(fixed.round_shift(bound, layer.fields["a"]))
        limit = fixed.limits(fixed.FEATURE_BITS)[1]
        layer.require(largest <= limit, f"shift its sums to at most {limit}", largest)

    def run(self, state: State) -> None:
        words = state.residual.reshape(len(state.residual), -1, self.geometry.post_lanes)
        sums = words[:, self._reads].sum(axis=1, dtype=np.int64)
        features = fixed.round_shift(sums, self.layer.fields["a"]).reshape(len(sums), -1)
        state.features[:, : features.shape[1]] = features

    def trace(self, state: State) -> LayerTrace:
        features = _words(self.geometry, state.features, self._places)
        return LayerTrace(self.index, self.kind, features=features)


class _Classifier(Unit):
    """Features to logits."""

    def __init__(self, geometry: Geometry, layer: Layer) -> None:
        super().__init__(geometry, layer)
        assert layer.params is not None
        self._products = MacProducts(geometry, layer)
        self._places = access.vector_places(geometry, layer)
        width = layer.words(geometry) * geometry.post_lanes
        self._params = fixed.ChannelParameters(*kernels.table_of(layer.params)[:, :width])
        start = layer.fields["dst_base"] * geometry.post_lanes
        self._channels = slice(start, start + width)

    def run(self, state: State) -> None:
        acc = self._products(state).astype(np.int64)
        state.logits[:, self._channels] = fixed.logits(acc, self._params, self.layer.shifts)

    def trace(self, state: State) -> LayerTrace:
        logits = _words(self.geometry, state.logits, self._places)
        return LayerTrace(self.index, self.kind, logits=logits)
