"""Encoding and decoding of packed structures that refuses what Amaranth would silently truncate."""

import operator
from collections.abc import Mapping
from enum import Enum

from amaranth.hdl import Shape
from amaranth.lib import data

from isa.bits import WORD_BITS


def _range(shape: Shape) -> range:
    if shape.signed:
        return range(-(1 << (shape.width - 1)), 1 << (shape.width - 1))
    return range(1 << shape.width)


def encode(layout: data.StructLayout, values: Mapping[str, int | Enum]) -> int:
    """Packs one value per field. Raises KeyError for missing or unknown fields, ValueError for a
    value that does not fit its field, TypeError for one that is no integer."""
    if missing := sorted(set(layout.members) - set(values)):
        raise KeyError(f"Fields must all be given, not without {missing}")
    if unknown := sorted(set(values) - set(layout.members)):
        raise KeyError(f"Fields must be among {sorted(layout.members)}, not {unknown}")
    raw = 0
    for name, field in layout:
        value = values[name]
        number = operator.index(value.value if isinstance(value, Enum) else value)
        shape = Shape.cast(field.shape)
        if number not in _range(shape):
            low, high = _range(shape)[0], _range(shape)[-1]
            raise ValueError(f"Field {name} must be in {low}..{high}, not {number}")
        raw |= (number & ((1 << shape.width) - 1)) << field.offset
    return raw


def decode(layout: data.StructLayout, raw: int) -> dict[str, int]:
    """The inverse of :func:`encode`, with plain integers."""
    if not 0 <= raw < 1 << layout.size:
        raise ValueError(f"Packed structure must fit {layout.size} bits, not {raw:#x}")
    values = {}
    for name, field in layout:
        shape = Shape.cast(field.shape)
        value = raw >> field.offset & ((1 << shape.width) - 1)
        if shape.signed and value >> (shape.width - 1):
            value -= 1 << shape.width
        values[name] = value
    return values


def word_count(layout: data.StructLayout) -> int:
    """32-bit words that hold one such structure."""
    return -(-layout.size // WORD_BITS)


def to_words(layout: data.StructLayout, values: Mapping[str, int | Enum]) -> list[int]:
    """Little endian: the structure's least significant bits are in the first word."""
    raw = encode(layout, values)
    return [raw >> (WORD_BITS * i) & 0xFFFF_FFFF for i in range(word_count(layout))]


def from_words(layout: data.StructLayout, words: list[int]) -> dict[str, int]:
    if len(words) != word_count(layout):
        raise ValueError(f"Structure must be {word_count(layout)} words long, not {len(words)}")
    raw = sum(word << (WORD_BITS * i) for i, word in enumerate(words))
    if raw >> layout.size:
        raise ValueError(f"Bits beyond {layout.size} must be zero, not {raw >> layout.size:#x}")
    return decode(layout, raw)
