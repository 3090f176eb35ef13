"""Encoding refuses what does not fit, and decoding brings back what was encoded."""

import numpy as np
import pytest
from amaranth.hdl import Shape, signed
from amaranth.lib import data, enum
from hypothesis import given, settings
from hypothesis import strategies as st

from isa import checked
from isa.image import HEADER, PACKET
from isa.layer import CHANNEL, LAYER, LayerKind
from isa.link import REQUEST, RESPONSE

quick = settings(max_examples=60, deadline=None, derandomize=True, database=None)
layouts = pytest.mark.parametrize(
    "layout", [LAYER, CHANNEL, HEADER, PACKET, REQUEST, RESPONSE],
    ids=["layer", "channel", "header", "packet", "request", "response"],
)  # fmt: skip


class Colour(enum.Enum, shape=2):
    RED = 1
    BLUE = 3


SMALL = data.StructLayout({"flag": 1, "colour": Colour, "value": signed(5), "count": 26})
GOOD = {"flag": 1, "colour": Colour.BLUE, "value": -3, "count": 5}


def field_range(field) -> tuple[int, int]:
    shape = Shape.cast(field.shape)
    if shape.signed:
        return -(1 << (shape.width - 1)), (1 << (shape.width - 1)) - 1
    return 0, (1 << shape.width) - 1


@st.composite
def layout_values(draw):
    layout = draw(st.sampled_from([LAYER, CHANNEL, HEADER, SMALL]))
    return layout, {name: draw(st.integers(*field_range(field))) for name, field in layout}


@quick
@given(layout_values())
def test_comes_back(case):
    layout, values = case
    raw = checked.encode(layout, values)
    assert 0 <= raw < 1 << layout.size
    assert checked.decode(layout, raw) == values
    words = checked.to_words(layout, values)
    assert sum(word << 32 * i for i, word in enumerate(words)) == raw
    assert all(0 <= word < 1 << 32 for word in words)
    assert checked.from_words(layout, words) == values
    # Amaranth itself lays the bits out alike; but for enumerations, which it keeps apart.
    if layout is not LAYER and layout is not SMALL:
        assert layout.const(values).as_bits() == raw


def test_fields_stand_one_after_the_other():
    assert checked.encode(SMALL, GOOD) == 1 | 3 << 1 | 0b11101 << 3 | 5 << 8
    assert checked.to_words(SMALL, GOOD) == [5 << 8 | 0b11101 << 3 | 7, 0]
    ones = {"flag": 1, "colour": 3, "value": -1, "count": (1 << 26) - 1}
    assert checked.decode(SMALL, (1 << 34) - 1) == ones
    assert checked.from_words(SMALL, [0xFFFF_FFFF, 3]) == ones
    assert checked.encode(SMALL, GOOD | {"colour": 3, "count": np.int64(5)}) == checked.encode(
        SMALL, GOOD
    )


@layouts
def test_every_field_is_limited(layout):
    zeros = dict.fromkeys(layout.members, 0)
    assert checked.encode(layout, zeros) == 0
    for name, field in layout:
        low, high = field_range(field)
        ones = (1 << field.width) - 1
        negative = low < 0
        assert checked.encode(layout, zeros | {name: high}) == (ones >> negative) << field.offset
        for value in (low - 1, high + 1):
            with pytest.raises(ValueError) as error:
                checked.encode(layout, zeros | {name: value})
            assert str(error.value) == f"Field {name} must be in {low}..{high}, not {value}"


@layouts
def test_every_field_is_needed(layout):
    zeros = dict.fromkeys(layout.members, 0)
    for name in layout.members:
        less = {key: value for key, value in zeros.items() if key != name}
        with pytest.raises(KeyError) as error:
            checked.encode(layout, less)
        assert error.value.args == (f"Fields must all be given, not without ['{name}']",)


def test_unknown_fields_are_refused():
    with pytest.raises(KeyError) as error:
        checked.encode(SMALL, GOOD | {"zeta": 0, "alpha": 0})
    assert error.value.args == (
        "Fields must be among ['colour', 'count', 'flag', 'value'], not ['alpha', 'zeta']",
    )


@pytest.mark.parametrize("value", [2.0, 2.7, "2", None])
def test_only_integers(value):
    with pytest.raises(TypeError):
        checked.encode(SMALL, GOOD | {"count": value})


def test_what_cannot_be_decoded():
    with pytest.raises(ValueError) as error:
        checked.decode(PACKET, 1 << 32)
    assert str(error.value) == "Packed structure must fit 32 bits, not 0x100000000"
    with pytest.raises(ValueError, match=r"^Packed structure must fit 32 bits, not -0x1$"):
        checked.decode(PACKET, -1)
    with pytest.raises(ValueError) as error:
        checked.from_words(SMALL, [0])
    assert str(error.value) == "Structure must be 2 words long, not 1"
    with pytest.raises(ValueError) as error:
        checked.from_words(SMALL, [0, 0x14])
    assert str(error.value) == "Bits beyond 34 must be zero, not 0x5"


def test_word_count():
    for size, words in ((1, 1), (32, 1), (33, 2), (64, 2), (65, 3)):
        assert checked.word_count(data.StructLayout({"x": size})) == words


def test_enumerations_are_encoded_by_value():
    zeros = dict.fromkeys(LAYER.members, 0)
    for kind in LayerKind:
        assert checked.encode(LAYER, zeros | {"kind": kind}) == kind.value
