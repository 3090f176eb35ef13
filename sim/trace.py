"""Compares a simulated core's trace with the golden model, write by write, without tolerance.

Every layer must write every word that the golden model writes exactly once, with equal data, and no
other. The first difference is named by frame, layer, pixel and channel.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import numpy.typing as npt

from isa import bits
from isa.fixed import FEATURE_BITS, LOGIT_BITS, RESIDUAL_BITS, IntArray
from isa.geometry import Geometry
from isa.layer import LayerKind
from isa.trace import ACTIVITIES, FrameRecord, LayerRecord, Memory, WriteRecord
from sim.golden import GoldenFrame, LayerTrace, Writes

#: Width of a value, and whether it is signed.
VALUES = {
    Memory.RESIDUAL: (RESIDUAL_BITS, True),
    Memory.BITS: (1, False),
    Memory.FEATURES: (FEATURE_BITS, True),
    Memory.LOGITS: (LOGIT_BITS, True),
}


@dataclass(frozen=True)
class Difference:
    """One value that is not as expected; ``found`` says so of a word not written, or twice."""

    frame: int
    layer: int
    kind: LayerKind
    expected: str
    found: str
    memory: Memory | None = None  # None: the layer as a whole
    row: int = -1  # -1: an address that has no pixel
    column: int = -1
    channel: int = -1
    address: int = -1

    def __str__(self) -> str:
        where = f"Frame {self.frame}, layer {self.layer} ({self.kind.name.lower()})"
        what = f": expected {self.expected}, found {self.found}"
        if self.memory is None:
            return where + what
        place = (
            f"pixel ({self.row}, {self.column}), channel {self.channel} (address {self.address:#x})"
        )
        if self.row < 0:
            place = f"address {self.address:#x}"
        return f"{where}, {self.memory.name.lower()} at {place}{what}"


@dataclass(frozen=True)
class Comparison:
    """How many values were compared, how many differ, and the first differences."""

    compared: int
    mismatches: int
    differences: tuple[Difference, ...]


def expected_writes(layer: LayerTrace) -> dict[Memory, Writes]:
    """What the golden model writes, by memory."""
    found = {
        Memory.RESIDUAL: layer.residual,
        Memory.BITS: layer.bits,
        Memory.FEATURES: layer.features,
        Memory.LOGITS: layer.logits,
    }
    return {memory: writes for memory, writes in found.items() if writes is not None}


def compare_frame(
    geometry: Geometry, number: int, expected: GoldenFrame, found: FrameRecord, *, keep: int = 10
) -> Comparison:
    """Compares all layers of frame ``number``; ``keep`` differences are described."""
    compared = mismatches = 0
    kept: list[Difference] = []
    for index, layer in enumerate(expected.layers):
        record = found.layers[index] if index < len(found.layers) else None
        values = sum(writes.data.size for writes in expected_writes(layer).values())
        compared += values
        if record is None or (record.index, record.kind) != (layer.index, layer.kind):
            mismatches += values
            other = _layer_name(record)
            kept.append(Difference(number, layer.index, layer.kind, "this layer", other))
            continue
        for memory in Memory:
            writes = expected_writes(layer).get(memory)
            wrong = _Differences(geometry, number, layer, memory, writes, record.writes[memory])
            mismatches += wrong.count
            kept += islice(wrong, keep)
    for extra in found.layers[len(expected.layers) :]:
        mismatches += 1
        kept.append(Difference(number, extra.index, extra.kind, "no layer", "one more"))
    return Comparison(compared, mismatches, tuple(kept[:keep]))


def _layer_name(record: LayerRecord | None) -> str:
    return "none" if record is None else f"layer {record.index} ({record.kind.name.lower()})"


class _Differences:
    """The differences of one layer in one memory: their count, and an iterator over them."""

    def __init__(
        self,
        geometry: Geometry,
        frame: int,
        layer: LayerTrace,
        memory: Memory,
        expected: Writes | None,
        found: WriteRecord,
    ) -> None:
        self._frame, self._layer, self._memory = frame, layer, memory
        self._expected = expected
        addresses = np.array(found.addresses, np.int64)
        wanted = np.zeros(0, np.int64) if expected is None else expected.places.addresses
        # How often each expected word was written, and where in the trace the last time.
        order = np.argsort(wanted, kind="stable")
        slot = np.searchsorted(wanted[order], addresses)
        known = np.zeros(len(addresses), np.bool_)
        if wanted.size:
            slot = np.minimum(slot, len(wanted) - 1)
            known = wanted[order][slot] == addresses
        self._unexpected = np.flatnonzero(~known)
        self._found = found
        place = order[slot[known]] if wanted.size else slot[known]
        self._times = np.bincount(place, minlength=len(wanted))
        self._data = np.zeros((len(wanted), 0), np.int64)
        self._wrong: npt.NDArray[np.bool_] = np.zeros((len(wanted), 0), np.bool_)
        if expected is not None and wanted.size:
            self._data = np.zeros(expected.data.shape, np.int64)
            self._data[place] = unpack(geometry, memory, found.data)[known]
            self._wrong = self._data != expected.data
            self._wrong[self._times != 1] = True
        self.count = int(self._wrong.sum()) + len(self._unexpected)

    def __iter__(self) -> Iterator[Difference]:
        if self._expected is not None:
            for word, lane in np.argwhere(self._wrong):
                yield self._difference(self._expected, int(word), int(lane))
        for position in self._unexpected:
            yield Difference(
                frame=self._frame,
                layer=self._layer.index,
                kind=self._layer.kind,
                memory=self._memory,
                address=self._found.addresses[position],
                expected="no write",
                found=f"{self._found.data[position]:#x}",
            )

    def _difference(self, expected: Writes, word: int, lane: int) -> Difference:
        places, layer, times = expected.places, self._layer, self._times[word]
        found = str(self._data[word, lane])
        if times == 0:
            found = "no write"
        elif times > 1:
            found += f", written {times} times"
        return Difference(
            frame=self._frame,
            layer=layer.index,
            kind=layer.kind,
            memory=self._memory,
            row=int(places.rows[word]),
            column=int(places.columns[word]),
            channel=int(places.channels[word]) + lane,
            address=int(places.addresses[word]),
            expected=str(expected.data[word, lane]),
            found=found,
        )


def unpack(geometry: Geometry, memory: Memory, data: Sequence[int]) -> IntArray:
    """(words, values) of the integers of a trace."""
    width, signed = VALUES[memory]
    word_bits = memory.word_bits(geometry)
    lanes = word_bits // width
    if not data:
        return np.zeros((0, lanes), np.int64)
    values = bits.unpack(list(data), width, word_bits, len(data) * lanes, signed=signed)
    return values.reshape(-1, lanes)


def pack(geometry: Geometry, memory: Memory, data: IntArray) -> list[int]:
    """The inverse of :func:`unpack`."""
    return bits.pack(data, VALUES[memory][0], memory.word_bits(geometry))


def record_of(geometry: Geometry, frame: GoldenFrame) -> FrameRecord:
    """The trace of a core that does what the golden model does, one write a cycle."""
    layers, cycle = [], 0
    for layer in frame.layers:
        writes = {memory: WriteRecord() for memory in Memory}
        for memory, expected in expected_writes(layer).items():
            addresses = [int(address) for address in expected.places.addresses]
            writes[memory] = WriteRecord(addresses, pack(geometry, memory, expected.data))
        cycle += max(len(record.addresses) for record in writes.values())
        activity = dict.fromkeys(ACTIVITIES, 0)
        layers.append(LayerRecord(layer.index, layer.kind, cycle, writes, activity))
    return FrameRecord(layers, cycle + 1, dict.fromkeys(ACTIVITIES, 0))


@dataclass(frozen=True)
class LayerMaps:
    """A layer's result as arrays: residual and bits (H, W, C), features and logits (C,).

    C is what the layer computes: whole words or tiles, padding channels included.
    """

    index: int
    kind: LayerKind
    residual: IntArray | None
    bits: IntArray | None
    features: IntArray | None
    logits: IntArray | None


def golden_maps(frame: GoldenFrame) -> list[LayerMaps]:
    """All layers of a frame as arrays, to be compared with another reference."""
    return [
        LayerMaps(
            layer.index,
            layer.kind,
            _map(layer.residual),
            _map(layer.bits),
            None if layer.features is None else layer.features.data.ravel(),
            None if layer.logits is None else layer.logits.data.ravel(),
        )
        for layer in frame.layers
    ]


def _map(writes: Writes | None) -> IntArray | None:
    if writes is None:
        return None
    places, lanes = writes.places, writes.data.shape[1]
    shape = [int(part.max()) + 1 for part in (places.rows, places.columns, places.channels)]
    result = np.zeros((shape[0], shape[1], shape[2] - 1 + lanes), np.int64)
    for lane in range(lanes):
        result[places.rows, places.columns, places.channels + lane] = writes.data[:, lane]
    return result
