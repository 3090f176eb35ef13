"""The timers of the SDRAM's controller, cycle by cycle."""
# amaranth: UnusedElaboratable=no

import pytest
from amaranth.hdl import Module, Signal
from amaranth.sim import Simulator

from hw.sdram_time import Countdown, Timer


def cycles_until(module, start, done):
    """From a cycle in which `start` is set to the first one in which `done` is."""
    result = []

    async def bench(ctx):
        await ctx.tick("memory").repeat(20)
        assert ctx.get(done)
        ctx.set(start, 1)
        await ctx.tick("memory")
        ctx.set(start, 0)
        count = 1
        while not ctx.get(done):
            await ctx.tick("memory")
            count += 1
        result.append(count)

    simulator = Simulator(module)
    simulator.add_clock(7.5e-9, domain="memory")
    simulator.add_testbench(bench)
    simulator.run()
    return result[0]


@pytest.mark.parametrize("cycles", [2, 3, 9])
def test_countdown(cycles):
    m, start, over = Module(), Signal(), Signal()
    countdown = Countdown(m, 9, "countdown")
    m.d.comb += over.eq(countdown.over)
    with m.If(start):
        m.d.memory += countdown.load(cycles)
    assert cycles_until(m, start, over) == cycles


@pytest.mark.parametrize("cycles", [1, 2, 3, 9])
def test_a_strobe_is_kept_back(cycles):
    m, start, strobe = Module(), Signal(), Signal()
    timer = Timer(m, 9, "timer")
    m.d.memory += strobe.eq(~timer.pending & ~start)
    with m.If(start):
        m.d.memory += timer.load(cycles)
    assert cycles_until(m, start, strobe) == max(cycles, 2)
