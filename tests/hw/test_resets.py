"""Divided resets: equally late for all parts, and a flip-flop for each of them."""

import json

import pytest
from amaranth.back import rtlil
from amaranth.hdl import ClockDomain, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.resets import Parts
from hw.synth import synthesise
from sim.bench import simulate


class Counter(wiring.Component):
    count: Out(8)

    def elaborate(self, platform):
        m = Module()
        m.d.sync += self.count.eq(self.count + 1)
        return m


class Counters(wiring.Component):
    """Three parts that count, and a count beside them."""

    reset: In(1)

    def __init__(self, cycles=1):
        self.counters = [Counter() for _ in range(3)]
        self.own = Signal(8)
        self._cycles = cycles
        super().__init__()

    def elaborate(self, platform):
        m = Module()
        parts = Parts(m, {"sync": self.reset}, cycles=self._cycles)
        parts.first = self.counters[0]
        for number, counter in enumerate(self.counters[1:]):
            parts[f"counter{number}"] = counter
        m.d.sync += self.own.eq(self.own + 1)
        return m


@pytest.mark.parametrize("cycles", [1, 2, 4])
def test_all_parts_are_reset_together_and_nothing_else(cycles):
    dut = Counters(cycles)
    counts = [counter.count for counter in dut.counters]

    async def bench(ctx):
        await ctx.tick().repeat(20)
        ctx.set(dut.reset, 1)
        for cycle in range(1, 40):
            if cycle == 10:
                ctx.set(dut.reset, 0)
            await ctx.tick()
            expected = 20 + cycle if cycle <= cycles else max(0, cycle - 9 - cycles)
            assert [ctx.get(count) for count in counts] == [expected] * 3
        assert ctx.get(dut.own) == 20 + 39

    simulate(dut, bench)


def test_each_part_has_a_flip_flop_of_its_own(tmp_path):
    dut, m = Counters(), Module()
    m.domains.sync = domain = ClockDomain(reset_less=True)
    m.submodules.dut = dut
    counts = [counter.count for counter in dut.counters]
    (tmp_path / "top.il").write_text(rtlil.convert(m, ports=[domain.clk, dut.reset, *counts]))
    synthesise(tmp_path / "top.il", json=tmp_path / "top.json")
    cells = json.loads((tmp_path / "top.json").read_text())["modules"]["top"]["cells"].values()
    ports = [cell["connections"] for cell in cells if cell["type"] == "TRELLIS_FF"]
    drivers = {port["Q"][0] for port in ports}
    resets = [port["LSR"][0] for port in ports if port["LSR"][0] in drivers]
    assert sorted(map(resets.count, set(resets))) == [8, 8, 8]


def test_without_resets_nothing_is_reset():
    m = Module()
    Parts(m, {}).counter = counter = Counter()
    assert m.submodules.counter is counter
