"""Frames of the serial link: how a host reads and writes the register map over a byte stream.

The host asks and the device answers; neither speaks out of turn. Multi-byte fields and words go
lowest byte first, the CRC-16 highest byte first.

    request     REQUEST_SYNC, REQUEST, count words (WRITE only), CRC-16
    response    RESPONSE_SYNC, RESPONSE, count words (READ and SYNC only), CRC-16

The CRC covers everything between sync byte and CRC. Words go to consecutive addresses, or all to
one where the address is a port (`isa.registers.PORTS`).

* A request is executed only after its CRC has proved right. One that is corrupt, or that stops for
  BYTE_TIMEOUT, is answered BAD_CRC; bytes outside a request are ignored.
* A WRITE with the sequence number of the one executed last is answered as that was, and not
  executed again: a host that missed an answer just repeats its request. Any other valid request
  makes the device forget that number. A host begins with silence (longer than BYTE_TIMEOUT) and
  SYNC, so that no number of an earlier host swallows its first WRITE.
* A request that the bus does not finish within BUS_TIMEOUT is answered BUSY; `count` is the number
  of words that were transferred, and the host asks for the rest with a new sequence number.
"""

import binascii

from amaranth.lib import data, enum
from amaranth.lib.crc import catalog

from isa.checked import encode

VERSION = 1  # answer to SYNC
REQUEST_SYNC = 0xA5
RESPONSE_SYNC = 0x5A
MAX_WORDS = 64  # of a request
ADDRESS_BITS = 24
WORD_BYTES = 4
CRC_BYTES = 2
BYTE_TIMEOUT = 0.02  # seconds of silence within a request after which it is given up
BUS_TIMEOUT = 0.01  # seconds that a request is tried for

#: CRC-16: polynomial 0x1021, initial value 0xFFFF, not reflected.
CRC16 = catalog.CRC16_IBM_3740


class Command(enum.Enum, shape=8):
    SYNC = 0  # forget the last sequence number; answered with one word, VERSION
    READ = 1
    WRITE = 2


class Status(enum.Enum, shape=8):
    OK = 0
    BAD_CRC = 1  # not executed: corrupt or incomplete; the sequence number may be wrong
    BAD_COMMAND = 2  # not executed: unknown command, count or address
    BUSY = 3  # executed in part: `count` words


REQUEST = data.StructLayout(
    {"sequence": 8, "command": Command, "address": ADDRESS_BITS, "count": 8}
)
RESPONSE = data.StructLayout({"sequence": 8, "command": Command, "status": Status, "count": 8})
REQUEST_BYTES = REQUEST.size // 8
RESPONSE_BYTES = RESPONSE.size // 8


def crc16(raw: bytes) -> bytes:
    """The CRC-16 of `raw`, as it is sent."""
    return binascii.crc_hqx(raw, 0xFFFF).to_bytes(CRC_BYTES, "big")


def words_to_bytes(words: list[int]) -> bytes:
    return b"".join(word.to_bytes(WORD_BYTES, "little") for word in words)


def bytes_to_words(raw: bytes) -> list[int]:
    return [
        int.from_bytes(raw[i : i + WORD_BYTES], "little") for i in range(0, len(raw), WORD_BYTES)
    ]


def request(sequence: int, command: Command, address: int, payload: list[int] | int) -> bytes:
    """A whole frame. `payload`: the words of a WRITE, or the number of words to READ."""
    count, words = (payload, []) if isinstance(payload, int) else (len(payload), payload)
    fields: dict[str, int | enum.Enum] = {
        "sequence": sequence,
        "command": command,
        "address": address,
        "count": count,
    }
    body = encode(REQUEST, fields).to_bytes(REQUEST_BYTES, "little") + words_to_bytes(words)
    return bytes([REQUEST_SYNC]) + body + crc16(body)


def response(sequence: int, command: Command, status: Status, payload: list[int] | int) -> bytes:
    """A whole frame. `payload`: the words read, or the number of words written."""
    count, words = (payload, []) if isinstance(payload, int) else (len(payload), payload)
    fields: dict[str, int | enum.Enum] = {
        "sequence": sequence,
        "command": command,
        "status": status,
        "count": count,
    }
    body = encode(RESPONSE, fields).to_bytes(RESPONSE_BYTES, "little") + words_to_bytes(words)
    return bytes([RESPONSE_SYNC]) + body + crc16(body)
