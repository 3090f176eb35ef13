"""The model image: a linear stream of 32-bit words, little endian on disk.

    header (HEADER_WORDS words)            checked once, when the image is loaded
    frame section (header.frame_words)     streamed front to back for every frame
        LAYER packet
        PARAMS, WEIGHTS packets, one pair for each tile of the layer (none for pool and mean)
        ...
        END packet: one word, the CRC-32 of all frame words before it

A LAYER may also be called STEM or AHEAD, and then is not always computed. The stem of a frame may
be computed while the frame before it is: by AHEAD packets, between the layers whose weights take
longer to come than to use. They are skipped, with the tiles that follow them, unless another frame
has been announced; and the STEM packets of a frame are skipped if its stem has been computed ahead.

A packet is a PACKET header word followed by ``length`` payload words.

* LAYER, STEM, AHEAD payload: one ``isa.layer.LAYER``.
* PARAMS payload: M channels of ``isa.layer.CHANNEL``, CHANNEL_WORDS words each.
* WEIGHTS payload: the tile's weight sets in order of the steps, each as words of P bits. A set has
  M rows, one for each lane: K bits of a binary layer, T int8 weights of any other, S of the stem.
  Each word brings the next B = P/M bits of every row, those of row m in its bits m*B..; so a bit of
  the port belongs to one lane, and the wires behind it are short.
"""

import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from amaranth.lib import data, enum

from isa import checked
from isa.bits import WORD_BITS
from isa.geometry import Geometry
from isa.layer import CHANNEL, LAYER
from isa.registers import ErrorCode

MAGIC = int.from_bytes(b"RBNN", "little")
VERSION = 1
NAME_WORDS = 8
CHANNEL_WORDS = checked.word_count(CHANNEL)
LAYER_WORDS = checked.word_count(LAYER)


class ImageError(ValueError):
    """An image that cannot be used; the message says what was expected, what came, what to do.

    ``code``: what the gateware reports of such an image.
    """

    def __init__(self, message: str, code: ErrorCode = ErrorCode.PACKET) -> None:
        super().__init__(message)
        self.code = code


class PacketType(enum.Enum, shape=8):
    LAYER = 1
    PARAMS = 2
    WEIGHTS = 3
    END = 4
    STEM = 5  # a LAYER of this frame, unless it was computed ahead
    AHEAD = 6  # a LAYER of the next frame, if there is one


LAYER_TYPES = (PacketType.LAYER, PacketType.STEM, PacketType.AHEAD)


PACKET = data.StructLayout({"type": PacketType, "length": 16, "crc8": 8})

HEADER = data.StructLayout(
    {
        "magic": 32,
        "version": 32,
        "geometry": 32,  # Geometry.digest
        "frame_words": 32,  # length of the frame section
        "input_height": 16,
        "input_width": 16,
        "input_channels": 8,
        "layers": 8,  # LAYER, STEM and AHEAD packets in the frame section
        "classes": 16,
        "logit_exponent": 32,  # one logit LSB is 2**(logit_exponent - 64)
        "frame_crc32": 32,  # of the whole frame section but its last word, which equals it
        "name": 32 * NAME_WORDS,  # UTF-8, filled with zeros
        "crc32": 32,  # of the header words before this one
    }
)
HEADER_WORDS = checked.word_count(HEADER)
LOGIT_EXPONENT_BIAS = 64


def crc8(values: Iterable[int]) -> int:
    """CRC-8 of bytes: polynomial 0x07, initial value 0, not reflected (CRC-8/SMBUS)."""
    crc = 0
    for value in values:
        crc ^= value
        for _ in range(8):
            crc = (crc << 1 ^ (0x07 if crc & 0x80 else 0)) & 0xFF
    return crc


def crc32(words: list[int]) -> int:
    """CRC-32 (ISO-HDLC, as zlib) of words, least significant byte first."""
    return zlib.crc32(words_to_bytes(words))


def words_to_bytes(words: list[int]) -> bytes:
    return np.asarray(words, "<u4").tobytes()


@dataclass(frozen=True)
class Packet:
    type: PacketType
    payload: list[int]

    def encode(self) -> list[int]:
        if not 0 < len(self.payload) < 1 << 16:
            raise ImageError(f"Packet payload must be 1 to 65535 words, not {len(self.payload)}")
        length = len(self.payload)
        crc = crc8([self.type.value, length & 0xFF, length >> 8])
        fields: dict[str, int | PacketType] = {"type": self.type, "length": length, "crc8": crc}
        return [*checked.to_words(PACKET, fields), *self.payload]


@dataclass(frozen=True)
class ImageInfo:
    """What a header says of the network."""

    name: str
    input_shape: tuple[int, int, int]
    classes: int
    layers: int
    logit_exponent: int

    @property
    def logit_lsb(self) -> float:
        return 2.0**self.logit_exponent

    @property
    def input_bytes(self) -> int:
        height, width, channels = self.input_shape
        return height * width * channels


@dataclass(frozen=True)
class Image:
    """A parsed image: what the header says, its packets without END, and its words."""

    info: ImageInfo
    packets: list[Packet]
    words: list[int]

    @property
    def frame(self) -> list[int]:
        """The frame section."""
        return self.words[HEADER_WORDS:]

    @property
    def first_layer_words(self) -> int:
        """Words of the frame section before the second layer: all that the stem waits for."""
        words = 0
        for number, packet in enumerate(self.packets):
            if number and packet.type in LAYER_TYPES:
                break
            words += 1 + len(packet.payload)
        return words

    @property
    def crc32(self) -> int:
        """The CRC-32 of the frame section, which tells images apart."""
        return self.words[-1]

    def to_bytes(self) -> bytes:
        return words_to_bytes(self.words)


def build(geometry: Geometry, info: ImageInfo, packets: Iterable[Packet]) -> Image:
    """Assembles an image, END packet and header included."""
    packets = list(packets)
    frame = [word for packet in packets for word in packet.encode()]
    end = Packet(PacketType.END, [0]).encode()[:1]
    crc = crc32(frame + end)
    frame += [*end, crc]
    height, width, channels = info.input_shape
    header = checked.to_words(
        HEADER,
        {
            "magic": MAGIC,
            "version": VERSION,
            "geometry": geometry.digest,
            "frame_words": len(frame),
            "input_height": height,
            "input_width": width,
            "input_channels": channels,
            "layers": info.layers,
            "classes": info.classes,
            "logit_exponent": info.logit_exponent + LOGIT_EXPONENT_BIAS,
            "frame_crc32": crc,
            "name": int.from_bytes(info.name.encode(), "little"),
            "crc32": 0,
        },
    )
    header[-1] = crc32(header[:-1])
    return Image(info, packets, header + frame)


def parse(raw: bytes, geometry: Geometry) -> Image:
    """Checks and splits an image. Raises ImageError for anything that the gateware would refuse.

    It looks at things in the loader's order, so that both name the same fault.
    """
    if len(raw) < 4 * HEADER_WORDS:
        raise ImageError(
            f"Image must be at least {4 * HEADER_WORDS} bytes long, not {len(raw)}: truncated?"
        )
    if len(raw) % 4:
        raise ImageError(f"Image must be a whole number of 32-bit words, not {len(raw)} bytes")
    words = [int(word) for word in np.frombuffer(raw, "<u4")]
    if words[0] != MAGIC:
        raise ImageError(
            f"Image must begin with {MAGIC:#010x} ('RBNN'), not {words[0]:#010x}", ErrorCode.MAGIC
        )
    header = checked.from_words(HEADER, words[:HEADER_WORDS])
    if header["crc32"] != crc32(words[: HEADER_WORDS - 1]):
        raise ImageError(
            "Image header must match its CRC-32, but it is corrupt: compile it again",
            ErrorCode.HEADER_CRC,
        )
    if header["version"] != VERSION:
        raise ImageError(
            f"Image format must be version {VERSION}, not {header['version']}",
            ErrorCode.IMAGE_VERSION,
        )
    if header["geometry"] != geometry.digest:
        raise ImageError(
            f"Image must be compiled for geometry {geometry.name} ({geometry.digest:#010x}), not "
            f"{header['geometry']:#010x}: compile it again for this board",
            ErrorCode.FOREIGN_GEOMETRY,
        )
    frame = words[HEADER_WORDS:]
    if len(frame) != header["frame_words"]:
        raise ImageError(
            f"Image must have {header['frame_words']} frame words, not {len(frame)}: truncated?"
        )
    packets = list(_packets(frame, geometry))
    if not packets or packets[-1].type is not PacketType.END:
        raise ImageError("Image frame must end with an END packet: compile it again")
    if crc32(frame[:-1]) != frame[-1] or frame[-1] != header["frame_crc32"]:
        raise ImageError(
            "Image frame must match its CRC-32, but it is corrupt: compile it again",
            ErrorCode.FRAME_CRC,
        )
    layers = sum(packet.type in LAYER_TYPES for packet in packets)
    if layers != header["layers"]:
        raise ImageError(
            f"Image must have {header['layers']} layers, not {layers}: compile it again"
        )
    name = header["name"].to_bytes(4 * NAME_WORDS, "little").rstrip(b"\0").decode(errors="replace")
    info = ImageInfo(
        name=name,
        input_shape=(header["input_height"], header["input_width"], header["input_channels"]),
        classes=header["classes"],
        layers=header["layers"],
        logit_exponent=header["logit_exponent"] - LOGIT_EXPONENT_BIAS,
    )
    return Image(info, packets[:-1], words)


_BEGINS_LAYER = (*LAYER_TYPES, PacketType.WEIGHTS)
_PREDECESSORS = {
    **dict.fromkeys(LAYER_TYPES, (None, *_BEGINS_LAYER)),  # None: the frame begins
    PacketType.PARAMS: _BEGINS_LAYER,
    PacketType.WEIGHTS: (PacketType.PARAMS,),
    PacketType.END: _BEGINS_LAYER,
}


def _packets(frame: list[int], geometry: Geometry) -> Iterator[Packet]:
    """The packets, END included, each with header, order and length checked."""
    kinds = {kind.value: kind for kind in PacketType}
    previous: PacketType | None = None
    number = position = 0
    while position < len(frame):
        head = checked.decode(PACKET, frame[position])
        length = head["length"]
        if head["crc8"] != crc8([head["type"], length & 0xFF, length >> 8]):
            raise ImageError(
                f"Packet header at frame word {position} must match its CRC-8: corrupt"
            )
        if head["type"] not in kinds:
            raise ImageError(f"Packet type at frame word {position} is unknown: {head['type']}")
        kind = kinds[head["type"]]
        _check_packet(number, kind, length, previous, geometry)
        if position + 1 + length > len(frame):
            raise ImageError(f"Packet at frame word {position} reaches beyond the image's end")
        yield Packet(kind, frame[position + 1 : position + 1 + length])
        previous = kind
        number += 1
        position += 1 + length


def _check_packet(
    number: int, kind: PacketType, length: int, previous: PacketType | None, geometry: Geometry
) -> None:
    """Whether such a packet may follow ``previous``, None where the frame begins."""
    if previous not in _PREDECESSORS[kind]:
        after = "at the beginning" if previous is None else f"after {previous.name}"
        raise ImageError(f"Image packet {number} must not be {kind.name} {after}: compile it again")
    if kind is PacketType.WEIGHTS:
        port_words = geometry.port_bits // WORD_BITS
        rule, good = f"a multiple of {port_words}", length > 0 and length % port_words == 0
    else:
        expected = {
            **dict.fromkeys(LAYER_TYPES, LAYER_WORDS),
            PacketType.PARAMS: geometry.lanes * CHANNEL_WORDS,
            PacketType.END: 1,
        }[kind]
        rule, good = str(expected), length == expected
    if not good:
        raise ImageError(
            f"Image packet {number} ({kind.name}) must have {rule} words, not {length}: "
            f"compile it again"
        )
