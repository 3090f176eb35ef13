"""Every rule of a geometry in its words, the digest, and what follows from the sizes."""

import dataclasses
import zlib

import pytest

from isa.geometry import GEOMETRIES, TINY, ULX3S_25F, ULX3S_85F, Geometry
from isa.layer import LayerKind
from isa.registers import IMAGE_ADDRESS_BITS, Source

NUMBERS = [field.name for field in dataclasses.fields(Geometry) if field.name != "name"]
OPTIONAL = ("image_words", "sdram_bytes")
POWERS = ("lanes", "word_bits", "taps", "post_lanes", "input_bytes")


def refused(**changes) -> str:
    with pytest.raises(ValueError) as error:
        dataclasses.replace(TINY, **changes)
    return str(error.value)


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("value", [0, -4, 4.0, "4", True, None])
def test_numbers(name, value):
    rule = "a positive integer"
    if name in OPTIONAL:
        if value == 0:
            dataclasses.replace(TINY, **{name: 0})
            return
        rule = "0 or a positive integer"
    assert refused(**{name: value}) == f"Geometry {name} must be {rule}, not {value!r}"


@pytest.mark.parametrize("name", POWERS)
def test_powers_of_two(name):
    assert refused(**{name: 12}) == f"Geometry {name} must be a power of two, not 12"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lanes": 16}, "word_bits must be a multiple of lanes, not 8 and 16"),
        ({"post_lanes": 8}, "lanes must be a multiple of post_lanes, not 4 and 8"),
        ({"taps": 4, "stem_taps": 4}, "post_lanes must be a multiple of taps, not 2 and 4"),
        ({"lanes": 64, "word_bits": 64}, "port_bits must be a multiple of lanes, not 32 and 64"),
        ({"port_bits": 48}, "port_bits must be a multiple of 32, not 48 and 32"),
        ({"port_bits": 16}, "port_bits must be a multiple of 32, not 16 and 32"),
        ({"port_bits": 64}, "lanes * word_bits must be a multiple of port_bits, not 32 and 64"),
        (
            {"port_bits": 64, "word_bits": 16},
            "lanes * taps * 8 must be a multiple of port_bits, not 32 and 64",
        ),
        (
            {"port_bits": 64, "word_bits": 16, "post_lanes": 4, "taps": 2, "stem_taps": 3},
            "lanes * (stem_taps - taps) * 8 must be a multiple of port_bits, not 32 and 64",
        ),
        ({"taps": 2}, "stem_taps must be at least taps (2), not 1"),
        (
            {"classes": 65536},
            "classes must be at most 65535, what its registers can hold, not 65536",
        ),
        (
            {"image_words": 4194305},
            "image_words must be at most 4194304, what its registers can hold, not 4194305",
        ),
        (
            {"sdram_bytes": 512},
            "sdram_bytes must be 0 or a power of two in 1024..33554432, not 512",
        ),
        (
            {"sdram_bytes": 1 << 26},
            "sdram_bytes must be 0 or a power of two in 1024..33554432, not 67108864",
        ),
        (
            {"sdram_bytes": 3 << 20},
            "sdram_bytes must be 0 or a power of two in 1024..33554432, not 3145728",
        ),
        ({"top_k": 9}, "top_k must be at most 8, what its registers can hold, not 9"),
    ],
)
def test_rules(changes, message):
    assert refused(**changes) == f"Geometry {message}"


def test_the_largest_that_pass():
    dataclasses.replace(TINY, classes=65535, image_words=4194304, top_k=8, sdram_bytes=1 << 25)


def test_the_digest_changes_with_every_field():
    digests = {TINY.digest}
    for name in NUMBERS:
        # word_bits, lanes, ... allow no change of one alone that keeps all rules
        other = dataclasses.replace(TINY)
        object.__setattr__(other, name, getattr(TINY, name) + 1)
        digests.add(other.digest)
    digests.add(dataclasses.replace(TINY, name="other").digest)
    assert len(digests) == 2 + len(NUMBERS)
    assert all(0 <= digest < 1 << 32 for digest in digests)


def test_the_digest_is_the_crc_of_canonical_json():
    """Bitstreams and images carry it: the same sizes must give the same number everywhere."""
    text = (
        '{"bit_words": 512, "channels": 64, "classes": 16, "image_words": 8192, '
        '"input_bytes": 1024, "lanes": 4, "line_words": 256, "name": "x", "port_bits": 32, '
        '"post_lanes": 2, "residual_words": 2048, "ring_words": 256, "sdram_bytes": 0, '
        '"stem_taps": 3, "taps": 1, "top_k": 5, "word_bits": 8}'
    )
    geometry = Geometry("x", 4, 8, 1, 3, 32, 2, 256, 2048, 512, 1024, 256, 64, 16, 8192)
    assert geometry.digest == zlib.crc32(text.encode())


def test_derived_sizes():
    assert (TINY.groups, TINY.sub_words, TINY.residual_word_bits) == (2, 2, 18)
    assert (TINY.binary_set_bits, TINY.mac_set_bits) == (32, 32)
    big = ULX3S_25F
    assert (big.groups, big.sub_words, big.residual_word_bits) == (8, 2, 18)
    assert (big.binary_set_bits, big.mac_set_bits) == (16 * 32, 16 * 8)
    kinds = LayerKind.BINARY, LayerKind.STEM, LayerKind.POINTWISE, LayerKind.CLASSIFIER
    for geometry, set_bits in ((big, (512, 128, 128, 128)), (ULX3S_85F, (4096, 1536, 1024, 1024))):
        assert tuple(geometry.set_bits(kind) for kind in kinds) == set_bits
    assert [ULX3S_85F.taps_of(kind) for kind in kinds[1:]] == [3, 2, 2]
    assert GEOMETRIES["tiny"] is TINY
    assert (big.source, big.sdram_image_words, big.sdram_frame_bytes) == (Source.RAM, 0, 0)


def test_where_the_image_is():
    large = ULX3S_85F
    assert (large.source, large.sdram_image_words) == (Source.SDRAM, 1 << IMAGE_ADDRESS_BITS)
    assert large.sdram_frame_bytes == 1 << 24
    assert dataclasses.replace(large, image_words=1).source is Source.RAM
    assert dataclasses.replace(large, sdram_bytes=0).source is Source.LINK
    assert [name for name, geometry in GEOMETRIES.items() if name != geometry.name] == []
