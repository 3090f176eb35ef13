"""Verilog of Amaranth components: memories whose words are all equal are set in a loop."""

import re

import pytest
from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from sim.verilog import to_verilog


class Remembers(wiring.Component):
    """A memory of eight bytes, read through its port."""

    address: In(3)
    data: Out(8)

    def __init__(self, init):
        self._init = init
        super().__init__()

    def elaborate(self, platform):
        m = Module()
        m.submodules.memory = memory = Memory(shape=8, depth=8, init=self._init)
        read = memory.read_port()
        m.d.comb += [read.addr.eq(self.address), read.en.eq(1), self.data.eq(read.data)]
        return m


@pytest.mark.parametrize("value", [0, 0xA5])
def test_equal_words_are_set_in_a_loop(value):
    text = to_verilog(Remembers([value] * 8), "remembers")
    loops = re.findall(r"for \((\S+) = 0; \S+ < 8; \S+ = \S+ \+ 1\)\n +\S+\[\1 \] = (\S+);", text)
    assert [int(value.partition("'h")[2], 16) for _, value in loops] == [value]
    assert not re.search(r"\[\d\] = 8'h", text)


def test_other_words_are_set_one_by_one():
    text = to_verilog(Remembers([0, 0, 0, 0, 0, 0, 0, 1]), "remembers")
    assert "for (" not in text
    assert len(re.findall(r"\[\d\] = 8'h", text)) == 8
