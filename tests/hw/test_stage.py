"""A register stage: order under any stalls, a word a cycle, and no path through it."""

import pytest

from hw.stage import Stage
from sim.bench import receive, send, simulate

ITEMS = [0x1234 * i & 0xFFFF for i in range(1, 60)]


@pytest.mark.parametrize("giving", ["none", "light", "heavy"])
@pytest.mark.parametrize("taking", ["none", "light", "heavy"])
def test_passes_on_what_comes_in_order(giving, taking):
    dut = Stage(16)

    async def gives(ctx):
        await send(ctx, dut.input, ITEMS, giving, seed=1)

    async def bench(ctx):
        assert await receive(ctx, dut.output, len(ITEMS), taking, seed=2) == ITEMS

    simulate(dut, bench, gives)


def test_is_a_cycle_late_and_no_slower():
    dut = Stage(16)

    async def bench(ctx):
        ctx.set(dut.input.valid, 1)
        ctx.set(dut.output.ready, 1)
        for item in ITEMS:
            ctx.set(dut.input.payload, item)
            assert ctx.get(dut.input.ready)
            await ctx.tick()
            assert (ctx.get(dut.output.valid), ctx.get(dut.output.payload)) == (1, item)

    simulate(dut, bench)


def test_takes_two_items_and_decides_by_registers():
    dut = Stage(16)

    async def bench(ctx):
        ctx.set(dut.input.valid, 1)
        for ready in (1, 1, 0):
            for output_ready in (0, 1, 0):
                ctx.set(dut.output.ready, output_ready)
                assert ctx.get(dut.input.ready) == ready
            await ctx.tick()
        assert ctx.get(dut.output.valid)

    simulate(dut, bench)
