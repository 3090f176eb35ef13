"""Sizes of descriptor and parameters: what the largest geometry needs must fit."""

import pytest
from amaranth.hdl import Shape

from isa.geometry import GEOMETRIES
from isa.layer import CHANNEL, LAYER, PADDING_CHANNEL, LayerKind


def widths(layout):
    return {name: Shape.cast(field.shape).width for name, field in layout}


def test_channel():
    assert widths(CHANNEL) == {"m": 16, "n": 32, "slope": 16, "bias2": 16, "threshold": 18}
    assert all(Shape.cast(field.shape).signed for _, field in CHANNEL)
    assert CHANNEL.size == 98


def test_padding_gives_residual_0_and_bit_0():
    assert set(PADDING_CHANNEL) == set(CHANNEL.members)
    # t = 0 * acc + 0 and y = t + 0: the residual is 0, and y >= 1 is false
    assert PADDING_CHANNEL == {"m": 0, "n": 0, "slope": 0, "bias2": 0, "threshold": 1}


def test_layer_has_no_gaps():
    end = 0
    for _, field in LAYER:
        assert field.offset == end
        end += field.width
    assert LAYER.size == end == sum(widths(LAYER).values())
    assert not any(Shape.cast(field.shape).signed for _, field in LAYER)


@pytest.mark.parametrize("geometry", GEOMETRIES.values(), ids=lambda g: g.name)
def test_fields_reach_every_address(geometry):
    limits = {name: (1 << width) - 1 for name, width in widths(LAYER).items()}
    assert geometry.residual_words - 1 <= min(limits["src_base"], limits["dst_base"])
    assert geometry.bit_words - 1 <= min(limits["src_base"], limits["bit_base"])
    assert geometry.input_bytes <= limits["frame_bytes"]
    assert geometry.groups <= limits["last_groups"]
    assert geometry.channels // geometry.post_lanes <= limits["dst_pixel"]
    assert geometry.channels // geometry.word_bits <= min(limits["channel_words"], 31)
    assert geometry.classes <= limits["classes"]
    assert geometry.channels <= limits["channels"]
    assert max(geometry.channels, geometry.classes) // geometry.lanes <= limits["tiles"]
    assert geometry.BLOCK_PIXELS <= min(limits["block"], limits["last_block"])


def test_kinds():
    assert [kind.name for kind in LayerKind] == [
        "STEM", "BINARY", "POINTWISE", "CLASSIFIER", "POOL", "MEAN",
    ]  # fmt: skip
    assert [kind.value for kind in LayerKind] == list(range(6))
