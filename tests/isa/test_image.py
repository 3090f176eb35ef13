"""The image: published CRC values, the way there and back, and everything that parse refuses."""

import dataclasses
import itertools
import random

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from isa import checked
from isa.geometry import TINY, ULX3S_25F
from isa.image import (
    CHANNEL_WORDS,
    HEADER,
    HEADER_WORDS,
    LAYER_TYPES,
    LAYER_WORDS,
    MAGIC,
    PACKET,
    ImageError,
    ImageInfo,
    Packet,
    PacketType,
    build,
    crc8,
    crc32,
    parse,
    words_to_bytes,
)
from isa.registers import ErrorCode

LAYER, PARAMS, WEIGHTS, END, STEM, AHEAD = PacketType
INFO = ImageInfo("grün", (6, 5, 3), classes=10, layers=2, logit_exponent=-7)


def packet(kind, length=None):
    """A packet of random words, of the right length unless another is given."""
    lengths = dict.fromkeys(LAYER_TYPES, LAYER_WORDS)
    lengths |= {PARAMS: TINY.lanes * CHANNEL_WORDS, WEIGHTS: 9, END: 1}
    generator = random.Random(kind.value)
    count = lengths[kind] if length is None else length
    return Packet(kind, [generator.getrandbits(32) for _ in range(count)])


PACKETS = [packet(kind) for kind in (STEM, PARAMS, WEIGHTS, PARAMS, WEIGHTS, LAYER)]
IMAGE = build(TINY, INFO, PACKETS)
RAW = IMAGE.to_bytes()


def refused(raw, geometry=TINY, code=ErrorCode.PACKET) -> str:
    """The message; `code` is what the gateware reports of such an image."""
    with pytest.raises(ImageError) as error:
        parse(raw, geometry)
    assert error.value.code is code
    return str(error.value)


def with_header(raw=RAW, **fields) -> bytes:
    """Other fields, and the right CRC-32 of the header."""
    words = [int(word) for word in np.frombuffer(raw, "<u4")]
    values = checked.from_words(HEADER, words[:HEADER_WORDS]) | fields
    head = checked.to_words(HEADER, values)
    head[-1] = crc32(head[:-1])
    return words_to_bytes(head + words[HEADER_WORDS:])


def with_packets(*packets, layers=None) -> bytes:
    """An image of these packets, in which every CRC is right."""
    count = sum(p.type is LAYER for p in packets) if layers is None else layers
    return build(TINY, dataclasses.replace(INFO, layers=count), packets).to_bytes()


# --- CRCs and layout -------------------------------------------------------------------------


def test_crcs_have_their_published_check_values():
    assert crc8(b"123456789") == 0xF4
    assert crc32([0x34333231, 0x38373635]) == 0x9AE0DAAF  # "12345678"
    assert crc8(b"") == crc32([]) == 0


def test_words_are_little_endian():
    assert words_to_bytes([0x04030201, 5]) == bytes([1, 2, 3, 4, 5, 0, 0, 0])


def test_layout():
    assert (HEADER_WORDS, LAYER_WORDS, CHANNEL_WORDS, PACKET.size) == (17, 11, 4, 32)
    assert HEADER.size == 32 * HEADER_WORDS
    assert RAW[:4] == b"RBNN"
    assert IMAGE.words[0] == MAGIC
    words = IMAGE.words
    assert (words[1], words[2], words[3]) == (1, TINY.digest, len(words) - HEADER_WORDS)
    assert words[4] == 6 | 5 << 16
    assert words[5] == 3 | 2 << 8 | 10 << 16
    assert words[6] == 64 - 7
    assert words[7] == words[-1] == crc32(words[HEADER_WORDS:-1])
    assert RAW[32:64] == "grün".encode().ljust(32, b"\0")
    assert words[16] == crc32(words[:16])


def test_a_packet_is_its_header_and_its_payload():
    head, *payload = Packet(WEIGHTS, [7, 0x1234] * 150).encode()
    assert head == 3 | 300 << 8 | crc8([3, 300 & 0xFF, 300 >> 8]) << 24
    assert payload == [7, 0x1234] * 150
    for length in (0, 1 << 16):
        with pytest.raises(ImageError) as error:
            Packet(WEIGHTS, [0] * length).encode()
        assert str(error.value) == f"Packet payload must be 1 to 65535 words, not {length}"
    assert len(Packet(WEIGHTS, [0] * 65535).encode()) == 65536


def test_comes_back():
    image = parse(RAW, TINY)
    assert image == IMAGE
    assert (image.info, image.packets, image.to_bytes()) == (INFO, PACKETS, RAW)
    assert image.frame == image.words[HEADER_WORDS:]
    assert sum(1 + len(p.payload) for p in PACKETS) + 2 == len(image.frame)
    assert (image.info.logit_lsb, image.info.input_bytes) == (2**-7, 90)


def test_the_name_fills_its_field():
    info = dataclasses.replace(INFO, name="n" * 32)
    assert parse(build(TINY, info, PACKETS).to_bytes(), TINY).info == info
    with pytest.raises(ValueError, match=r"^Field name must be in 0\.\."):
        build(TINY, dataclasses.replace(INFO, name="n" * 33), PACKETS)
    assert parse(with_header(name=0xFF41), TINY).info.name == "A\N{REPLACEMENT CHARACTER}"


# --- what is refused -------------------------------------------------------------------------


@pytest.mark.parametrize("length", [0, 1, 67])
def test_shorter_than_a_header(length):
    assert refused(RAW[:length]) == (
        f"Image must be at least 68 bytes long, not {length}: truncated?"
    )


@pytest.mark.parametrize("length", [69, len(RAW) - 1, len(RAW) + 2])
def test_part_of_a_word(length):
    assert refused((RAW + b"\0\0\0\0")[:length]) == (
        f"Image must be a whole number of 32-bit words, not {length} bytes"
    )


@pytest.mark.parametrize("words", [-1, -30, 1, -len(IMAGE.frame)])
def test_another_length(words):
    frame = len(IMAGE.frame)
    raw = (RAW + bytes(4))[: len(RAW) + 4 * words]
    assert refused(raw) == f"Image must have {frame} frame words, not {frame + words}: truncated?"


def test_magic():
    assert refused(b"RBNM" + RAW[4:], code=ErrorCode.MAGIC) == (
        "Image must begin with 0x4e4e4252 ('RBNN'), not 0x4d4e4252"
    )


def test_version():
    assert (
        refused(with_header(version=2), code=ErrorCode.IMAGE_VERSION)
        == "Image format must be version 1, not 2"
    )


def test_geometry():
    assert refused(RAW, ULX3S_25F, ErrorCode.FOREIGN_GEOMETRY) == (
        f"Image must be compiled for geometry ulx3s-25f ({ULX3S_25F.digest:#010x}), not "
        f"{TINY.digest:#010x}: compile it again for this board"
    )


CORRUPT_HEADER = "Image header must match its CRC-32, but it is corrupt: compile it again"
CORRUPT_FRAME = "Image frame must match its CRC-32, but it is corrupt: compile it again"


# Places of the packet headers in the frame section, that of END included.
PACKET_STARTS = [0, *itertools.accumulate(1 + len(item.payload) for item in PACKETS)]


def expected_message(word: int) -> tuple[str, ErrorCode]:
    """What a damaged word must lead to: how the message begins, and the code."""
    if word == 0:
        return "Image must begin with", ErrorCode.MAGIC
    if word < HEADER_WORDS:
        return CORRUPT_HEADER, ErrorCode.HEADER_CRC
    if (at := word - HEADER_WORDS) in PACKET_STARTS:
        return f"Packet header at frame word {at} must match its CRC-8: corrupt", ErrorCode.PACKET
    return CORRUPT_FRAME, ErrorCode.FRAME_CRC


@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(st.integers(0, 8 * len(RAW) - 1))
@example(0)
@example(8 * len(RAW) - 1)
@example(32 * HEADER_WORDS - 1)
@example(32 * HEADER_WORDS)
def test_any_flipped_bit_is_found(bit):
    damaged = bytearray(RAW)
    damaged[bit // 8] ^= 1 << bit % 8
    message, code = expected_message(bit // 32)
    assert refused(bytes(damaged), code=code).startswith(message)


@pytest.mark.parametrize("start", PACKET_STARTS)
def test_any_flipped_bit_of_a_packet_header_is_found(start):
    first = 4 * (HEADER_WORDS + start)
    for bit in range(32):
        damaged = bytearray(RAW)
        damaged[first + bit // 8] ^= 1 << bit % 8
        message, code = expected_message(HEADER_WORDS + start)
        assert refused(bytes(damaged), code=code) == message


@settings(max_examples=100, deadline=None, derandomize=True, database=None)
@given(st.integers(0, len(RAW) - 1))
def test_any_truncation_is_found(length):
    assert refused(RAW[:length])


def test_the_header_names_another_frame():
    assert refused(with_header(frame_crc32=5), code=ErrorCode.FRAME_CRC) == CORRUPT_FRAME


def raw_frame(*frame) -> bytes:
    """An image of these frame words, whatever they are; its header is right."""
    return with_header(
        RAW[: 4 * HEADER_WORDS] + words_to_bytes(list(frame)),
        frame_words=len(frame),
        frame_crc32=frame[-1] if frame else 0,
    )


def header_word(kind: int, length: int) -> int:
    return kind | length << 8 | crc8([kind, length & 0xFF, length >> 8]) << 24


def test_packets_that_make_no_sense():
    layer = packet(LAYER).encode()
    assert refused(raw_frame(*layer, header_word(9, 1), 0)) == (
        "Packet type at frame word 12 is unknown: 9"
    )
    assert refused(raw_frame(*layer, header_word(LAYER.value, LAYER_WORDS), 0)) == (
        "Packet at frame word 12 reaches beyond the image's end"
    )
    no_end = "Image frame must end with an END packet: compile it again"
    assert refused(raw_frame(*layer)) == no_end
    assert refused(raw_frame()) == no_end


@pytest.mark.parametrize(
    ("kinds", "message"),
    [
        ([], "packet 0 must not be END at the beginning"),
        ([PARAMS], "packet 0 must not be PARAMS at the beginning"),
        ([WEIGHTS], "packet 0 must not be WEIGHTS at the beginning"),
        ([LAYER, WEIGHTS], "packet 1 must not be WEIGHTS after LAYER"),
        ([LAYER, PARAMS], "packet 2 must not be END after PARAMS"),
        ([LAYER, PARAMS, PARAMS], "packet 2 must not be PARAMS after PARAMS"),
        ([LAYER, PARAMS, LAYER], "packet 2 must not be LAYER after PARAMS"),
        ([LAYER, PARAMS, WEIGHTS, WEIGHTS], "packet 3 must not be WEIGHTS after WEIGHTS"),
        ([LAYER, END, LAYER], "packet 2 must not be LAYER after END"),
        ([LAYER, END], "packet 2 must not be END after END"),
    ],
)
def test_packets_in_the_wrong_order(kinds, message):
    assert refused(with_packets(*map(packet, kinds))) == f"Image {message}: compile it again"


def test_packets_of_the_wrong_length():
    cases = [
        ([packet(LAYER, LAYER_WORDS + 1)], "0 (LAYER) must have 11 words, not 12"),
        ([packet(LAYER), packet(PARAMS, 15)], "1 (PARAMS) must have 16 words, not 15"),
    ]
    for packets, message in cases:
        expected = f"Image packet {message}: compile it again"
        assert refused(with_packets(*packets, packet(WEIGHTS))) == expected
    layer = packet(LAYER).encode()
    words = [*layer, header_word(END.value, 2), 3]
    assert refused(raw_frame(*words, crc32(words))) == (
        "Image packet 1 (END) must have 1 words, not 2: compile it again"
    )
    params = packet(PARAMS).encode()
    words = [*layer, *params, header_word(WEIGHTS.value, 0), header_word(END.value, 1)]
    assert refused(raw_frame(*words, crc32(words))) == (
        "Image packet 2 (WEIGHTS) must have a multiple of 1 words, not 0: compile it again"
    )


def test_weights_fill_words_of_the_port():
    params = Packet(PARAMS, [0] * ULX3S_25F.lanes * CHANNEL_WORDS)
    info = dataclasses.replace(INFO, layers=1)

    def image(words):
        return build(ULX3S_25F, info, [packet(LAYER), params, packet(WEIGHTS, words)]).to_bytes()

    assert len(parse(image(12), ULX3S_25F).packets) == 3
    assert refused(image(13), ULX3S_25F) == (
        "Image packet 2 (WEIGHTS) must have a multiple of 4 words, not 13: compile it again"
    )


def test_number_of_layers():
    assert refused(with_packets(*PACKETS, layers=3)) == (
        "Image must have 3 layers, not 2: compile it again"
    )
