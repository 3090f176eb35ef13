"""Whether an ECP5's bitstream is whole: every CRC in it, and its end.

A bitstream is a list of commands: a byte, 24 bits of information, and a payload. Bit 23 of the
information says that a CRC-16 follows, of all bytes since the last one, dummies between commands
left out. The configuration comes in frames, each with a CRC of its own and a dummy, which counts.
Source: Project Trellis, "Bitstream format"; Lattice TN1260.
"""

import enum
import re

PREAMBLE = b"\xff\xff\xbd\xb3"
DUMMY = 0xFF
ENABLE_CRC = 1 << 23
#: Bytes of a frame before it is compressed, by IDCODE: LFE5U-25F and LFE5U-85F.
FRAME_BYTES = {0x41111043: 74, 0x41113043: 142}
EBR_FRAME_BYTES = 9
#: A command and its information.
HEAD_BYTES = 4
#: Dummies behind the end: clocks with which the FPGA starts.
END_BYTES = 4
_CRC = 0x8005


class Command(enum.IntEnum):
    """What ecppack writes."""

    DICTIONARY = 0x02
    CONTROL = 0x22
    RESET_CRC = 0x3B
    INIT_ADDRESS = 0x46
    DONE = 0x5E
    SPI_MODE = 0x79
    FRAMES = 0x82
    EBR_FRAMES = 0xB2
    COMPRESSED_FRAMES = 0xB8
    USERCODE = 0xC2
    VERIFY_ID = 0xE2
    EBR_ADDRESS = 0xF6


#: Of the others, there is none; frames are counted.
PAYLOAD_BYTES = {
    Command.DICTIONARY: 8,
    Command.CONTROL: 4,
    Command.USERCODE: 4,
    Command.VERIFY_ID: 4,
    Command.EBR_ADDRESS: 4,
}


def check_bitstream(bitstream):
    """ValueError, which names the byte, if a bitstream is cut off or a byte of it has changed.

    ``bitstream``: bytes, as ecppack writes them, compressed or not; comments before the preamble
    are not protected.
    """
    at = bitstream.find(PREAMBLE)
    reader = _Reader(bitstream, len(bitstream) if at < 0 else at + len(PREAMBLE))
    while reader.command():
        pass
    end = bitstream[reader.at :]
    if len(end) < END_BYTES:
        raise _cut_off(bitstream)
    if end.strip(bytes([DUMMY])):
        raise _damaged("only dummies behind its end", reader.at)


class _Reader:
    """`at` is the next byte; `_crc` that of the bytes since the last CRC."""

    def __init__(self, bitstream, at):
        self._raw = bitstream
        self.at = at
        self._crc = 0
        self._frame_bytes = None

    def command(self):
        """Reads the next one; whether there are more behind it."""
        while self._raw[self.at : self.at + 1] == bytes([DUMMY]):
            self.at += 1
        at = self.at
        code, *information = self._take(HEAD_BYTES)
        information = int.from_bytes(information, "big")
        if code not in tuple(Command):
            raise _damaged(f"only commands that ecppack writes, not {code:#04x},", at)
        if code in (Command.RESET_CRC, Command.DONE) and information:  # which no CRC is for
            raise _damaged(f"{Command(code).name} without information", at)
        if code == Command.RESET_CRC:
            self._crc = 0
        elif code in (Command.FRAMES, Command.COMPRESSED_FRAMES):
            self._frames(information & 0xFFFF, code == Command.COMPRESSED_FRAMES)
        elif code == Command.EBR_FRAMES:
            self._take((information & 0xFFFF) * EBR_FRAME_BYTES)
            self._check_crc()
        else:
            payload = self._take(PAYLOAD_BYTES.get(code, 0))
            if code == Command.VERIFY_ID:
                self._frame_bytes = FRAME_BYTES.get(int.from_bytes(payload, "big"))
            if information & ENABLE_CRC:
                self._check_crc()
        return code != Command.DONE

    def _frames(self, count, compressed):
        if self._frame_bytes is None:
            raise _damaged("the IDCODE of an FPGA of ours before its frames", self.at)
        size = self._frame_bytes
        if compressed:  # a byte's code is 1, 6 or 10 bits long, and a frame a multiple of 8 bytes
            size = -(-size // 8) * 8
            frame = re.compile(f"(?:0|10.{{4}}|11.{{8}}){{{size}}}")
            most = size * 10 // 8
        for _ in range(count):
            if compressed:
                window = self._raw[self.at : self.at + most]
                bits = f"{int.from_bytes(window, 'big'):0{8 * len(window)}b}"
                found = frame.match(bits)
                if not found:
                    raise _cut_off(self._raw)
                self._take(-(-found.end() // 8))
            else:
                self._take(size)
            self._check_crc()
            self._take(1)

    def _take(self, count):
        taken = self._raw[self.at : self.at + count]
        if len(taken) < count:
            raise _cut_off(self._raw)
        self.at += count
        self._crc = _crc16(taken, self._crc)
        return taken

    def _check_crc(self):
        at, expected = self.at, self._crc
        found = int.from_bytes(self._take(2), "big")
        if found != expected:
            raise _damaged(f"CRC-16 {expected:#06x}, not {found:#06x},", at)
        self._crc = 0


def _crc16(data, crc):
    for byte in data:
        crc = crc << 8 & 0xFF00 ^ _TABLE[crc >> 8 ^ byte]
    return crc


def _table():
    for crc in range(256):
        crc <<= 8
        for _ in range(8):
            crc = crc << 1 ^ (_CRC if crc >> 15 else 0)
            crc &= 0xFFFF
        yield crc


_TABLE = tuple(_table())


def _damaged(rule, at):
    return ValueError(
        f"Bitstream must have {rule} at byte {at:,}: it is damaged; copy it or build it again"
    )


def _cut_off(bitstream):
    return ValueError(
        f"Bitstream must go on to its end (ISC_PROGRAM_DONE), but is cut off after "
        f"{len(bitstream):,} bytes: copy it or build it again"
    )
