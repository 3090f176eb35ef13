"""Which images a device is made to hold, which it holds already, and which it refuses."""

import dataclasses

import pytest

from host.device import Device
from host.device_errors import EXPLANATIONS, DeviceError
from isa.geometry import TINY, ULX3S_25F
from isa.image import HEADER_WORDS, Packet, PacketType, build
from isa.registers import ErrorCode, Register, Source
from tests.geometries import TINY_SDRAM
from tests.host.faulty_transport import (
    FRAMES,
    IMAGE,
    INFO,
    PACKETS,
    Faulty,
    check,
    corrupt_memory,
    loaded,
)


def test_progress_reaches_the_end():
    seen = []
    loaded(progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (len(IMAGE.words), len(IMAGE.words))


def test_image_that_does_not_fit():
    big = build(TINY, INFO, [*PACKETS[:2], Packet(PacketType.WEIGHTS, [0] * TINY.image_words)])
    with pytest.raises(DeviceError) as caught:
        Device(Faulty()).load_image(big)
    assert str(caught.value) == (
        f"Image must fit the 8192 words of the device's image memory, not {len(big.words)}: "
        f"{len(big.words) - 8192} too many"
    )


@pytest.mark.parametrize(
    ("geometry", "source", "memory"),
    [(TINY, Source.SDRAM, "an SDRAM"), (TINY_SDRAM, Source.RAM, "a block RAM")],
)
def test_an_image_memory_that_is_not_there(geometry, source, memory):
    device = Device(Faulty(geometry=geometry), expected=geometry, source=source)
    with pytest.raises(DeviceError) as caught:
        device.load_image(build(geometry, INFO, PACKETS))
    assert str(caught.value) == f"Device must have {memory} to keep its image there: it has none"


def damaged(position, value):
    """The image with one word replaced; header fields keep a valid CRC-32 where it is asked for."""
    words = list(IMAGE.words)
    words[position] = value
    return dataclasses.replace(IMAGE, words=words)


@pytest.mark.parametrize(
    ("position", "value", "code"),
    [
        (0, 0, ErrorCode.MAGIC),
        (2, 0, ErrorCode.HEADER_CRC),
        (HEADER_WORDS, IMAGE.words[HEADER_WORDS] ^ 0x100, ErrorCode.PACKET),
        (HEADER_WORDS + 1, 77, ErrorCode.FRAME_CRC),
    ],
)
def test_the_device_refuses_a_damaged_image(position, value, code):
    device = Device(Faulty())
    with pytest.raises(DeviceError) as caught:
        device.load_image(damaged(position, value))
    assert caught.value.code is code
    assert str(caught.value) == (f"Device reports an error: {EXPLANATIONS[code]} ({code.name})")
    with pytest.raises(DeviceError, match="must have an image before"):
        device.classify(FRAMES[0])
    device.load_image(IMAGE)
    check(FRAMES[0], device.classify(FRAMES[0]))


@pytest.fixture
def holding():
    """A device that was loaded by somebody else, say by its bitstream."""
    transport = Faulty()
    loaded(transport)
    transport.log.clear()
    return transport


def image_writes(transport):
    return sum(count for address, count in transport.log if address >= Register.IMAGE)


def test_an_image_that_the_device_holds_is_not_sent_again(holding):
    device = loaded(holding)
    assert image_writes(holding) == 0
    check(FRAMES[0], device.classify(FRAMES[0]))


def test_another_image_is_sent(holding):
    other = build(TINY, INFO, [*PACKETS[:2], Packet(PacketType.WEIGHTS, [8] * 4)])
    Device(holding).load_image(other)
    assert image_writes(holding) == len(other.words)
    assert holding.read(Register.IMAGE_CRC, 1) == [other.crc32]


def test_a_decayed_image_is_sent_again(holding):
    corrupt_memory(holding)
    device = loaded(holding)
    assert image_writes(holding) == len(IMAGE.words)
    check(FRAMES[0], device.classify(FRAMES[0]))


def test_the_image_is_read_back_by_its_crc():
    class Forgetful(Faulty):
        def _read_word(self, address):
            return 5 if address == Register.IMAGE_CRC else super()._read_word(address)

    with pytest.raises(DeviceError) as caught:
        loaded(Forgetful())
    assert str(caught.value) == (
        f"Device must have the image with CRC-32 {IMAGE.crc32:#010x} after loading it, not the "
        "one with 0x00000005"
    )


def test_foreign_image():
    foreign = build(ULX3S_25F, INFO, PACKETS)
    with pytest.raises(DeviceError) as caught:
        Device(Faulty()).load_image(foreign)
    assert caught.value.code is ErrorCode.FOREIGN_GEOMETRY
