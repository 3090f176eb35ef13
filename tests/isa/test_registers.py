"""No two registers or windows share an address, in any geometry."""

import re
from itertools import pairwise

import pytest

from isa import link, registers
from isa.geometry import GEOMETRIES
from isa.registers import (
    ADDRESS_BITS,
    CONTROL,
    COUNTERS,
    EXCLUSIVE,
    PORTS,
    ErrorCode,
    Register,
    Source,
    State,
)
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
    """In an order that never changes: drivers read them in one go."""
    names = [register.name.lower() for register in COUNTERS]
    assert names == [
        "cycles", "binary_cycles", "array_busy", "mac_busy", "wait_weights", "wait_input",
        "wait_post", "wait_load", "stream_busy", "wait_stream", "reduce_busy", "begin_layer",
        "drain_layer", "scan_logits", "wait_crc",
    ]  # fmt: skip
    assert [int(register) for register in COUNTERS] == list(range(0x10, 0x1F))
    assert names[2:] == list(ACTIVITIES[1:])
    assert ACTIVITIES[0] == "binary_layer"


def test_every_exclusive_counter_is_described():
    """In the text at the beginning, which the contract quotes, in the same order."""
    described = re.findall("^    ([A-Z_]+)  ", registers.__doc__, re.MULTILINE)
    assert described == [register.name for register in EXCLUSIVE]


def test_control_bits():
    assert {name: (f.offset, f.width) for name, f in CONTROL} == {
        "start": (0, 1), "check": (1, 1), "abort": (2, 1), "more": (3, 1),
    }  # fmt: skip


def test_reset_values_are_zero():
    """What a register reads after power-up, and what an idle one must read."""
    assert (State.IDLE.value, ErrorCode.NONE.value, Source.RAM.value) == (0, 0, 0)
    for kind in (State, ErrorCode, Source):
        assert [member.value for member in kind] == list(range(len(kind)))
