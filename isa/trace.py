"""The trace of a simulated core: what it wrote to its memories, layer by layer, as a text file.

One line for each write, in hexadecimal; one, in decimal, at the end of each layer and each frame.
``cycle`` counts clock cycles since reset, those of E and D lines by so many more as the counted
levels are late: `hw.perf.LATENCY`.

    R address data              residual map: a word of L residuals, 9 bits each, lane 0 lowest
    B address sub_word data     bit map: M sign bits, sub-word ``sub_word`` of a K-bit word
    F address data              features: a word of L sums, 16 bits each
    L address data              logits: a word of L, 24 bits each, from class address * L on
    E index kind cycle counts   the layer has ended: all lines since the last E are its writes.
                                ``counts``: cycles of the frame since then, of each of
                                ``ACTIVITIES``, in order
    D cycle counts              the frame has ended; ``counts`` as above
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import Enum

from isa import registers
from isa.fixed import FEATURE_BITS, LOGIT_BITS
from isa.geometry import Geometry
from isa.layer import LayerKind

#: What the perf counters count, in their order: see the registers in `isa.registers`.
ACTIVITIES = ("binary_layer", *(register.name.lower() for register in registers.COUNTERS[2:]))

#: One of these in every cycle of a frame.
EXCLUSIVE = tuple(register.name.lower() for register in registers.EXCLUSIVE)


class TraceError(ValueError):
    """A trace file that breaks the rules of this module; the message names the line."""


class Memory(Enum):
    """The memories that a trace records, by the letter of their lines."""

    RESIDUAL = "R"
    BITS = "B"
    FEATURES = "F"
    LOGITS = "L"

    def word_bits(self, geometry: Geometry) -> int:
        """Bits of one write: a residual word, a sub-word of bits, L features, L logits."""
        return {
            Memory.RESIDUAL: geometry.residual_word_bits,
            Memory.BITS: geometry.lanes,
            Memory.FEATURES: geometry.post_lanes * FEATURE_BITS,
            Memory.LOGITS: geometry.post_lanes * LOGIT_BITS,
        }[self]


@dataclass
class WriteRecord:
    """The writes of one layer to one memory, in order. Addresses of bits count sub-words."""

    addresses: list[int] = field(default_factory=list)
    data: list[int] = field(default_factory=list)


@dataclass
class LayerRecord:
    """One layer: what it wrote, the cycle of its end, and cycles by activity."""

    index: int
    kind: LayerKind
    cycle: int
    writes: dict[Memory, WriteRecord]
    activity: dict[str, int]


@dataclass
class FrameRecord:
    """One frame: its layers, the cycle of its end, and cycles by activity after the last layer."""

    layers: list[LayerRecord]
    cycle: int
    activity: dict[str, int]


def _no_writes() -> dict[Memory, WriteRecord]:
    return {memory: WriteRecord() for memory in Memory}


def read_trace(lines: Iterable[str], geometry: Geometry) -> list[FrameRecord]:
    """Parses a trace. Raises TraceError, naming the line, for anything that is no trace."""
    frames: list[FrameRecord] = []
    layers: list[LayerRecord] = []
    limits = {memory: 1 << memory.word_bits(geometry) for memory in Memory}
    writes = _no_writes()
    records = {memory.value: (writes[memory], limits[memory]) for memory in Memory}
    sub_words, number = geometry.sub_words, 0
    for number, line in enumerate(lines, start=1):
        parts = line.split()
        try:
            kind, *values = parts
            if kind == "B":
                address, sub_word, data = (int(value, 16) for value in values)
                if sub_word >= sub_words:
                    raise ValueError
                record, limit = records["B"]
                address = address * sub_words + sub_word
            elif kind in records:
                address, data = (int(value, 16) for value in values)
                record, limit = records[kind]
            elif kind == "E":
                index, layer_kind, cycle, *counts = (int(value) for value in values)
                activity = dict(zip(ACTIVITIES, counts, strict=True))
                layers.append(LayerRecord(index, LayerKind(layer_kind), cycle, writes, activity))
                writes = _no_writes()
                records = {memory.value: (writes[memory], limits[memory]) for memory in Memory}
                continue
            elif kind == "D":
                cycle, *counts = (int(value) for value in values)
                activity = dict(zip(ACTIVITIES, counts, strict=True))
                if any(record.addresses for record in writes.values()):
                    raise TraceError(f"Trace line {number} must follow the end of a layer")
                frames.append(FrameRecord(layers, cycle, activity))
                layers = []
                continue
            else:
                raise ValueError
            if data >= limit:
                raise ValueError
        except TraceError:
            raise
        except ValueError:  # unknown letters, too few or too many values, x or z digits
            raise TraceError(
                f"Trace line {number} must be a record of isa.trace, not {line.strip()[:80]!r}"
            ) from None
        record.addresses.append(address)
        record.data.append(data)
    if layers or any(record.addresses for record in writes.values()):
        raise TraceError(f"Trace must end with the end of a frame, not at line {number}")
    return frames


def write_trace(frames: Iterable[FrameRecord], geometry: Geometry) -> Iterator[str]:
    """The lines of a trace: the inverse of :func:`read_trace`, without line ends."""
    for frame in frames:
        for layer in frame.layers:
            for memory, record in layer.writes.items():
                for address, data in zip(record.addresses, record.data, strict=True):
                    where = f"{address:x}"
                    if memory is Memory.BITS:
                        word, sub_word = divmod(address, geometry.sub_words)
                        where = f"{word:x} {sub_word:x}"
                    yield f"{memory.value} {where} {data:x}"
            counts = _counts(layer.activity)
            yield f"E {layer.index} {layer.kind.value} {layer.cycle} {counts}"
        yield f"D {frame.cycle} {_counts(frame.activity)}"


def _counts(activity: dict[str, int]) -> str:
    return " ".join(str(activity[name]) for name in ACTIVITIES)
