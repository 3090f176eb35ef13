"""Logs of a run for other programs: a table as CSV, and an event file for TensorBoard.

An event file is a sequence of records: length, checksum of it, bytes, checksum of them; the bytes
are a protocol buffer of tensorflow/core/util/event.proto, of which only scalars are needed.
"""

import csv
import io
import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from isa.checkpoint import write_atomically

FOLDER = "tensorboard"
NAME = "events.out.tfevents.0.rbonn"
SCALARS = ("loss", "train_accuracy", "test_accuracy", "seconds")
POLYNOMIAL = 0x82F63B78  # CRC-32C, reflected

Rows = Sequence[Mapping[str, Any]]


def write_logs(path: Path, curve: Rows, layers: Rows) -> None:
    """Writes ``path``.csv, a row an epoch, and the event file in the folder beside it.

    ``curve`` and ``layers``: those of :class:`rbonn_train.state.Progress`.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, list(curve[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(curve)
    write_atomically(path.with_suffix(".csv"), text.getvalue().encode())
    events = path.parent / FOLDER / path.stem / NAME
    events.parent.mkdir(parents=True, exist_ok=True)
    # Not replaced but rewritten, the same bytes and more: TensorBoard keeps the file open.
    events.write_bytes(b"".join(event_file(curve, layers)))


def event_file(curve: Rows, layers: Rows) -> Iterator[bytes]:
    """The records of an event file. Steps are epochs from 1, through both steps of a recipe; times
    are seconds of training."""
    yield record(_time(0.0) + _bytes(3, b"brain.Event:2"))
    elapsed = 0.0
    for number, (row, binary) in enumerate(zip(curve, layers, strict=True), 1):
        elapsed += row["seconds"]
        values = {name: row[name] for name in SCALARS if row[name] is not None}
        values |= {f"flips/{name}": layer["flips"] for name, layer in binary.items()}
        summary = b"".join(_bytes(1, _value(name, value)) for name, value in values.items())
        yield record(_time(elapsed) + _varint(2 << 3) + _varint(number) + _bytes(5, summary))


def record(content: bytes) -> bytes:
    """``content`` with its length and checksums."""
    length = struct.pack("<Q", len(content))
    return length + _masked(length) + content + _masked(content)


def crc32c(content: bytes) -> int:
    """CRC-32C (Castagnoli)."""
    value = 0xFFFFFFFF
    for byte in content:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ (POLYNOMIAL if value & 1 else 0)
    return value ^ 0xFFFFFFFF


def _masked(content: bytes) -> bytes:
    value = crc32c(content)
    return struct.pack("<I", ((value >> 15 | value << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def _varint(value: int) -> bytes:
    low, rest = value & 127, value >> 7
    return bytes([low | 128]) + _varint(rest) if rest else bytes([low])


def _bytes(field: int, content: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(content)) + content


def _time(seconds: float) -> bytes:
    return _varint(1 << 3 | 1) + struct.pack("<d", seconds)


def _value(name: str, value: float) -> bytes:
    return _bytes(1, name.encode()) + _varint(2 << 3 | 5) + struct.pack("<f", value)
