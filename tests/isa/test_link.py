"""Frames of the serial link: byte for byte, and their CRC as the gateware computes it."""

import pytest

from isa import link
from isa.link import Command, Status


def test_a_request_byte_for_byte():
    frame = link.request(0x12, Command.WRITE, 0x0A_0B0C, [0x0403_0201, 0xFFFE_FDFC])
    assert frame[:-2].hex() == "a512020c0b0a0201020304fcfdfeff"
    assert frame[-2:] == link.crc16(frame[1:-2])
    assert link.request(1, Command.READ, 0x20, 7)[:-2].hex() == "a5010120000007"


def test_a_response_byte_for_byte():
    frame = link.response(0x12, Command.READ, Status.OK, [0x0403_0201])
    assert frame[:-2].hex() == "5a1201000101020304"
    assert frame[-2:] == link.crc16(frame[1:-2])
    assert link.response(3, Command.WRITE, Status.BUSY, 5)[:-2].hex() == "5a03020305"


def test_the_crc_is_the_one_of_the_catalogue():
    assert link.crc16(b"123456789") == bytes.fromhex("29b1")
    for raw in (b"", b"\x00", bytes(range(256))):
        expected = link.CRC16(8).compute(list(raw))
        assert link.crc16(raw) == expected.to_bytes(2, "big")


def test_words_are_packed_lowest_byte_first():
    words = [0, 1, 0x8000_0000, 0xFFFF_FFFF]
    assert link.bytes_to_words(link.words_to_bytes(words)) == words
    assert link.words_to_bytes([0x0403_0201]) == b"\1\2\3\4"


@pytest.mark.parametrize(
    ("sequence", "address", "message"),
    [
        (256, 0, "Field sequence must be in 0..255, not 256"),
        (0, 1 << 24, "Field address must be in 0..16777215, not 16777216"),
    ],
)
def test_what_does_not_fit_is_refused(sequence, address, message):
    with pytest.raises(ValueError) as caught:
        link.request(sequence, Command.READ, address, 1)
    assert str(caught.value) == message
