"""The layout of the flash: offsets, sizes, and what does not fit."""

import dataclasses

import pytest

from isa.flash import ADDRESS_BITS, FLASH_BYTES, IMAGE_OFFSET, combine, image_words
from isa.geometry import TINY, ULX3S_85F
from tests.geometries import TINY_SDRAM


def test_everything_lies_inside():
    assert IMAGE_OFFSET == 0x400000
    assert FLASH_BYTES == 1 << ADDRESS_BITS == 16 << 20
    assert image_words(ULX3S_85F) * 4 == FLASH_BYTES - IMAGE_OFFSET
    assert image_words(TINY_SDRAM) * 4 == TINY_SDRAM.sdram_bytes // 2
    assert image_words(TINY) == 0
    assert image_words(dataclasses.replace(TINY_SDRAM, sdram_bytes=1 << 24)) * 4 == 1 << 23


def test_the_image_is_behind_the_bitstream():
    content = combine(TINY_SDRAM, b"bitstream", b"image")
    assert content.startswith(b"bitstream\xff\xff")
    assert content[IMAGE_OFFSET:] == b"image"
    assert set(content[len(b"bitstream") : IMAGE_OFFSET]) == {0xFF}


def test_without_an_image_there_is_only_the_bitstream():
    assert combine(TINY, b"bitstream") == b"bitstream"


def test_what_just_fits():
    image = bytes(FLASH_BYTES - IMAGE_OFFSET)
    assert combine(ULX3S_85F, bytes(IMAGE_OFFSET), image) == bytes(FLASH_BYTES)


@pytest.mark.parametrize("image", [b"", b"image"])
def test_a_bitstream_over_the_image_is_refused(image):
    with pytest.raises(ValueError) as error:
        combine(ULX3S_85F, bytes(IMAGE_OFFSET + 1), image)
    assert str(error.value) == (
        "Bitstream must end before the image at 0x400000, not at 0x400001: compress it"
    )


@pytest.mark.parametrize(
    ("geometry", "room"),
    [(ULX3S_85F, 12_582_912), (TINY_SDRAM, 65_536), (TINY, 0)],
    ids=lambda value: getattr(value, "name", value),
)
def test_an_image_that_does_not_fit_is_refused(geometry, room):
    with pytest.raises(ValueError) as error:
        combine(geometry, b"", bytes(room + 3))
    assert str(error.value) == (
        f"Image must fit the {room} bytes that flash and SDRAM of {geometry.name} have for it, "
        f"not {room + 3}: 3 too many"
    )
