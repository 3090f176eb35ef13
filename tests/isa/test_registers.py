"""No two registers or windows share an address, in any geometry."""

from itertools import pairwise

import pytest

from isa import link
from isa.geometry import GEOMETRIES
from isa.registers import ADDRESS_BITS, CONTROL, PORTS, ErrorCode, Register, Source, State
from isa.trace import ACTIVITIES


def windows(geometry):
    """(first, past the last) address of everything."""
    sizes = {
        Register.TOP_CLASS: geometry.top_k,
        Register.TOP_LOGIT: geometry.top_k,
        Register.LOGITS: geometry.classes,
        Register.IMAGE: geometry.image_words,
    }
    return sorted((int(r), r + sizes.get(r, 1)) for r in Register)


@pytest.mark.parametrize("geometry", GEOMETRIES.values(), ids=lambda g: g.name)
def test_nothing_overlaps(geometry):
    found = windows(geometry)
    assert len(Register.__members__) == len(found)  # no aliases
    assert found[0][0] == 0
    for (_, end), (start, _) in pairwise(found):
        assert end <= start
    assert found[-1][1] <= 1 << ADDRESS_BITS


def test_the_link_reaches_every_address():
    assert ADDRESS_BITS <= link.ADDRESS_BITS


def test_ports():
    assert PORTS == {Register.INPUT, Register.STREAM}


def test_perf_counters_follow_each_other():
    names = [Register(Register.CYCLES + 1 + i).name.lower() for i in range(len(ACTIVITIES))]
    assert names == ["binary_cycles", *ACTIVITIES[1:]]
    assert names[0].removesuffix("_cycles") == ACTIVITIES[0].removesuffix("_layer")


def test_control_bits():
    assert {name: (f.offset, f.width) for name, f in CONTROL} == {
        "start": (0, 1), "check": (1, 1), "abort": (2, 1), "more": (3, 1),
    }  # fmt: skip


def test_reset_values_are_zero():
    """What a register reads after power-up, and what an idle one must read."""
    assert (State.IDLE.value, ErrorCode.NONE.value, Source.RAM.value) == (0, 0, 0)
    for kind in (State, ErrorCode, Source):
        assert [member.value for member in kind] == list(range(len(kind)))
