"""Packing against shifts and masks of Python integers."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isa.bits import pack, sign_bits, unpack

quick = settings(max_examples=60, deadline=None, derandomize=True, database=None)


def reference_pack(values, width, word_bits):
    total = sum((value & ((1 << width) - 1)) << (width * i) for i, value in enumerate(values))
    words = -(-len(values) * width // word_bits)
    return [total >> (word_bits * i) & ((1 << word_bits) - 1) for i in range(words)]


@st.composite
def packed(draw):
    """Width, word size, signedness, and values that fit."""
    width = draw(st.integers(1, 40))
    word_bits = draw(st.sampled_from([1, 4, 8, 9, 18, 32, 64, 128]))
    signed = draw(st.booleans())
    low, high = (-(1 << (width - 1)), (1 << (width - 1)) - 1) if signed else (0, (1 << width) - 1)
    values = draw(st.lists(st.integers(low, high) | st.sampled_from([low, high]), max_size=20))
    return width, word_bits, signed, values


@quick
@given(packed())
def test_packs_like_shifts_and_comes_back(case):
    width, word_bits, signed, values = case
    words = pack(values, width, word_bits)
    assert words == reference_pack(values, width, word_bits)
    assert unpack(words, width, word_bits, len(values), signed=signed).tolist() == values


def test_the_first_value_is_lowest():
    assert pack([1, 0, 1, 1], 1, 4) == [0b1101]
    assert pack([0x12, 0x34, 0x56, 0x78, -1], 8, 32) == [0x78563412, 0x000000FF]
    assert pack(np.array([[1, 2], [3, 4]]), 4, 8) == [0x21, 0x43]


@pytest.mark.parametrize("values", [[0, 16], [-9, 3], [-9, 16]])
def test_values_that_do_not_fit_are_refused(values):
    with pytest.raises(ValueError) as error:
        pack(values, 4, 32)
    assert str(error.value) == f"Packed values must fit 4 bits, not {values[0]}..{values[1]}"
    assert pack([-8, 15], 4, 32) == [0xF8]  # the limits of both kinds do fit


def test_sign_of_zero_is_plus_one():
    assert sign_bits([-1.0, -0.0, 0.0, 1e-30, -1e-30, 5.0]).tolist() == [0, 1, 1, 1, 0, 1]
    assert sign_bits(np.array([[-1, 0]])).tolist() == [[0, 1]]
