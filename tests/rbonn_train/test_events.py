"""Logs: the table, and the records of the event file."""

import csv
import struct
from pathlib import Path
from typing import Any

import pytest

from rbonn_train.events import crc32c, event_file, record, write_logs

CURVE: list[dict[str, Any]] = [
    {"step": "step 1", "epoch": 1, "loss": 1.5, "train_accuracy": 0.5, "test_accuracy": 0.25,
     "quantised": False, "seconds": 2.0},
    {"step": "step 2", "epoch": 1, "loss": 0.5, "train_accuracy": 0.75, "test_accuracy": None,
     "quantised": True, "seconds": 300.5},
]  # fmt: skip
LAYERS: list[dict[str, Any]] = [{}, {"blocks.0": {"flips": 0.125, "chosen": "a0"}}]


def test_the_checksum() -> None:
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(b"") == 0


def test_a_record() -> None:
    # Of tensorflow's record writer, for the bytes "abc".
    found = record(b"abc")
    assert found[:8] == struct.pack("<Q", 3)
    assert found[12:15] == b"abc"
    value = crc32c(b"abc")
    assert value == 0x364B3FB7
    mask = ((value >> 15 | value << 17) + 0xA282EAD8) % 2**32
    assert found[15:] == struct.pack("<I", mask)


def masked(content: bytes) -> int:
    """The checksum by long division of polynomials, then masked as tensorflow does."""
    bits = "".join(f"{byte:08b}"[::-1] for byte in content)
    value = int(bits, 2) << 32 ^ 0xFFFFFFFF << len(bits)
    for place in reversed(range(len(bits))):
        if value >> place + 32 & 1:
            value ^= 0x11EDC6F41 << place
    value = int(f"{value:032b}"[::-1], 2) ^ 0xFFFFFFFF
    return ((value >> 15 | value << 17) % 2**32 + 0xA282EAD8) % 2**32


def contents(file: bytes) -> list[bytes]:
    """What the records of a file hold; both checksums of each are right."""
    found = []
    while file:
        length, checksum = struct.unpack("<QI", file[:12])
        assert checksum == masked(file[:8])
        content, rest = file[12 : 12 + length], file[12 + length :]
        assert struct.unpack("<I", rest[:4]) == (masked(content),)
        found.append(content)
        file = rest[4:]
    return found


@pytest.mark.parametrize("size", [1, 3, 300])
def test_records_have_two_checksums(size: int) -> None:
    content = bytes(number * 7 % 256 for number in range(size))
    assert contents(record(content) + record(b"abc")) == [content, b"abc"]


def test_a_file_begins_as_those_of_tensorflow() -> None:
    assert next(event_file([], []))[:13] == b'\x18\0\0\0\0\0\0\0\xa3\x7fK"\t'


def fields(content: bytes) -> list[tuple[int, Any]]:
    """A protocol buffer, decoded."""
    found: list[tuple[int, Any]] = []
    place = 0

    def varint() -> int:
        nonlocal place
        value = shift = 0
        while True:
            byte = content[place]
            place, value, shift = place + 1, value | (byte & 127) << shift, shift + 7
            if byte < 128:
                return value

    while place < len(content):
        key = varint()
        match key & 7:
            case 0:
                value: Any = varint()
            case 1:
                value, place = struct.unpack_from("<d", content, place)[0], place + 8
            case 2:
                length = varint()
                value, place = content[place : place + length], place + length
            case 5:
                value, place = struct.unpack_from("<f", content, place)[0], place + 4
        found.append((key >> 3, value))
    return found


def test_events_hold_the_scalars() -> None:
    file = b"".join(event_file(CURVE, LAYERS))
    first, *rows = [fields(content) for content in contents(file)]
    assert first == [(1, 0.0), (3, b"brain.Event:2")]
    found = []
    for row in rows:
        (_, time), (_, step), (kind, summary) = row
        assert kind == 5
        found.append((time, step, [tuple(v for _, v in fields(v)) for _, v in fields(summary)]))
    assert found == [
        (2.0, 1, [(b"loss", 1.5), (b"train_accuracy", 0.5), (b"test_accuracy", 0.25),
                  (b"seconds", 2.0)]),
        (302.5, 2, [(b"loss", 0.5), (b"train_accuracy", 0.75), (b"seconds", 300.5),
                    (b"flips/blocks.0", 0.125)]),
    ]  # fmt: skip


def test_a_later_epoch_only_adds(tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    write_logs(path, CURVE[:1], LAYERS[:1])
    events = next((tmp_path / "tensorboard" / "net").iterdir())
    before, number = events.read_bytes(), events.stat().st_ino
    write_logs(path, CURVE, LAYERS)
    assert events.read_bytes().startswith(before)
    assert len(events.read_bytes()) > len(before)
    assert events.stat().st_ino == number
    with (tmp_path / "net.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["loss"] for row in rows] == ["1.5", "0.5"]
    assert list(rows[0]) == list(CURVE[0])
