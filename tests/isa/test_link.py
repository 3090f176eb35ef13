"""Frames of the serial link, byte for byte."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isa import checked, link
from isa.link import Command, Status

quick = settings(max_examples=60, deadline=None, derandomize=True, database=None)
words = st.lists(st.integers(0, 0xFFFF_FFFF), max_size=link.MAX_WORDS)


def reference_crc16(raw: bytes) -> int:
    crc = 0xFFFF
    for byte in raw:
        crc ^= byte << 8
        for _ in range(8):
            crc = (crc << 1 ^ (0x1021 if crc & 0x8000 else 0)) & 0xFFFF
    return crc


def test_crc_has_its_published_check_value():
    assert link.crc16(b"123456789") == bytes([0x29, 0xB1])
    assert link.crc16(b"") == b"\xff\xff"


def test_the_gateware_is_told_the_same_crc():
    algorithm = link.CRC16.algorithm if hasattr(link.CRC16, "algorithm") else link.CRC16
    assert (algorithm.crc_width, algorithm.polynomial, algorithm.initial_crc) == (
        16,
        0x1021,
        0xFFFF,
    )
    assert not algorithm.reflect_input
    assert not algorithm.reflect_output
    assert algorithm.xor_output == 0


def test_a_crc_behind_its_bytes_leaves_zero():
    """What the receiver makes use of: it feeds the CRC through the register, too."""
    assert reference_crc16(b"abc" + link.crc16(b"abc")) == 0


def test_requests_byte_for_byte():
    body = bytes([7, 1, 0x56, 0x34, 0x12, 3])
    assert link.request(7, Command.READ, 0x123456, 3) == (
        b"\xa5" + body + reference_crc16(body).to_bytes(2, "big")
    )
    body = bytes([255, 2, 0, 1, 0, 2]) + bytes([4, 3, 2, 1, 0xFF, 0, 0, 0])
    assert link.request(255, Command.WRITE, 0x100, [0x01020304, 0xFF]) == (
        b"\xa5" + body + reference_crc16(body).to_bytes(2, "big")
    )
    assert (link.REQUEST_BYTES, link.RESPONSE_BYTES) == (6, 4)


def test_responses_byte_for_byte():
    body = bytes([9, 2, 3, 5])
    assert link.response(9, Command.WRITE, Status.BUSY, 5) == (
        b"\x5a" + body + reference_crc16(body).to_bytes(2, "big")
    )
    body = bytes([0, 0, 0, 1, link.VERSION, 0, 0, 0])
    assert link.response(0, Command.SYNC, Status.OK, [link.VERSION]) == (
        b"\x5a" + body + reference_crc16(body).to_bytes(2, "big")
    )


@quick
@given(st.integers(0, 255), st.sampled_from(list(Command)), st.integers(0, (1 << 24) - 1), words)
def test_requests_come_back(sequence, command, address, payload):
    raw = link.request(sequence, command, address, payload)
    body, crc = raw[1:-2], raw[-2:]
    assert raw[0] == link.REQUEST_SYNC
    assert int.from_bytes(crc, "big") == reference_crc16(body)
    head = int.from_bytes(body[: link.REQUEST_BYTES], "little")
    assert checked.decode(link.REQUEST, head) == {
        "sequence": sequence,
        "command": command.value,
        "address": address,
        "count": len(payload),
    }
    assert link.bytes_to_words(body[link.REQUEST_BYTES :]) == payload


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((256, Command.READ, 0, 1), "Field sequence must be in 0..255, not 256"),
        ((0, Command.READ, 1 << 24, 1), "Field address must be in 0..16777215, not 16777216"),
        ((0, Command.READ, 0, 256), "Field count must be in 0..255, not 256"),
    ],
)
def test_what_does_not_fit_is_refused(arguments, message):
    with pytest.raises(ValueError) as error:
        link.request(*arguments)
    assert str(error.value) == message


def test_words_that_do_not_fit_are_refused():
    for word in (-1, 1 << 32):
        with pytest.raises(OverflowError):
            link.words_to_bytes([word])


def test_constants_fit_each_other():
    assert link.MAX_WORDS < 1 << 8
    assert link.REQUEST_SYNC != link.RESPONSE_SYNC
    assert link.BUS_TIMEOUT < link.BYTE_TIMEOUT
