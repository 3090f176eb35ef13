"""Bitstreams that are made up: with all that a real one has, but with few frames."""

from hw.bitstream_check import FRAME_BYTES


def crc16(raw):
    """Of the polynomial 0x8005, bit by bit."""
    crc = 0
    for byte in raw:
        crc ^= byte << 8
        for _ in range(8):
            crc = (crc << 1 ^ 0x8005) & 0xFFFF if crc >> 15 else crc << 1
    return crc


def with_crc(raw):
    return raw + crc16(raw).to_bytes(2, "big")


def bitstream(idcode, size=10_000):
    """Three frames, a block RAM, and dummies behind the end up to ``size`` bytes."""
    begin = b"\xff\0Part: LFE5U\0\xff\xff\xff\xbd\xb3\xff\xff\xff\xff\x3b\0\0\0"
    head = b"\xe2\0\0\0" + idcode.to_bytes(4, "big") + b"\x22\0\0\0\x40\0\0\0\x46\0\0\0"
    head += b"\x02\0\0\0" + bytes(range(31, 39)) + b"\xb8\x91\0\x03"
    zeros = bytes(FRAME_BYTES[idcode] // 8 + 1)  # a bit for each byte, and for what fills it up
    # The last bytes of the third: 0x5A as it is, one of the dictionary, one with bit 3 set.
    other = int("0" * (len(zeros) * 8 - 3) + "1101011010" + "101001" + "100011", 2) << 5
    frames = [zeros, zeros, other.to_bytes(len(zeros) + 3, "big")]
    raw = begin + with_crc(head + frames[0])
    raw += with_crc(b"\xff" + frames[1]) + with_crc(b"\xff" + frames[2]) + b"\xff"
    block = b"\xf6\0\0\0\0\0\0\0\xb2\xd0\x01\0" + bytes(i % 251 for i in range(256 * 9))
    # The dummy behind the last frame is in the next CRC; those behind it are in none.
    raw += b"\xff" * 5 + crc_behind(b"\xff", block) + crc_behind(b"", b"\xc2\x80\0\0\0\0\0\0")
    return (raw + b"\x5e\0\0\0").ljust(size, b"\xff")


def crc_behind(before, raw):
    """`raw`, with a CRC of that and of what came ``before`` some dummies."""
    return raw + crc16(before + raw).to_bytes(2, "big")
