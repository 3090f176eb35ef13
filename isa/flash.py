"""The board's SPI flash: what is where, and how one file for all of it is made.

    0               the bitstream, which the FPGA loads by itself at power-up
    IMAGE_OFFSET    the model image, as in its file, where the geometry has an external memory

Bytes between and behind are erased. At start-up, once the external memory has passed its test, the
gateware reads the word at IMAGE_OFFSET. If that is the image's magic word, it copies header and
frame section to the external memory, sets SOURCE to SDRAM and does what CHECK does: the state
becomes READY, or ERROR with the code of the check. Without the magic word the state stays IDLE. A
header whose frame section is longer than flash or memory is copied alone. While that goes on,
`copying` in MEMORY is 1; a host that writes SOURCE, CONTROL or IMAGE ends it, at any place, for
good.
"""

from isa.bits import WORD_BITS
from isa.geometry import Geometry

FLASH_BYTES = 1 << 24
ADDRESS_BITS = 24
IMAGE_OFFSET = 4 << 20
"""Behind the largest bitstream of an ECP5-85F, 2.4 MB uncompressed with every block RAM filled."""

ERASED = 0xFF


def image_words(geometry: Geometry) -> int:
    """The longest image that flash and external memory have room for; 0 without such a memory."""
    return min(geometry.sdram_image_words, (FLASH_BYTES - IMAGE_OFFSET) * 8 // WORD_BITS)


def combine(geometry: Geometry, bitstream: bytes, image: bytes = b"") -> bytes:
    """The flash's content from its first byte to the last that is not erased, without an image if
    that is empty. ValueError if the two overlap, or an image does not fit."""
    if len(bitstream) > IMAGE_OFFSET:
        raise ValueError(
            f"Bitstream must end before the image at {IMAGE_OFFSET:#x}, not at "
            f"{len(bitstream):#x}: compress it"
        )
    if not image:
        return bitstream
    room = image_words(geometry) * WORD_BITS // 8
    if len(image) > room:
        raise ValueError(
            f"Image must fit the {room} bytes that flash and SDRAM of {geometry.name} have for it, "
            f"not {len(image)}: {len(image) - room} too many"
        )
    return bitstream.ljust(IMAGE_OFFSET, bytes([ERASED])) + image
