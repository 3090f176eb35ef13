"""`Control`'s watchdog and perf counters."""

import pytest

from hw.perf import LATENCY, PERF, PERF_REGISTERS
from isa.registers import ErrorCode, Register, State
from sim.bench import simulate
from tests.hw.control_bench import WATCHDOG, control, make_ready, pulse
from tests.hw.frontend import command, error, read, state, write


def test_the_watchdog_bites_when_nothing_moves():
    dut = control()

    async def bench(ctx):
        await make_ready(ctx, dut)
        for _ in range(2 * WATCHDOG):
            await ctx.tick()
        assert await state(ctx, dut.bus) == State.READY  # it guards only what runs
        await command(ctx, dut.bus, "start")
        for _ in range(10):
            for _ in range(WATCHDOG - 5):
                await ctx.tick()
            await pulse(ctx, dut.progress)
        cycles = 0
        while not ctx.get(dut.interrupt):
            await ctx.tick()
            cycles += 1
        assert WATCHDOG <= cycles <= WATCHDOG + 3
        assert await error(ctx, dut.bus) == ErrorCode.WATCHDOG
        await write(ctx, dut.bus, Register.WATCHDOG, 30)
        assert await read(ctx, dut.bus, Register.WATCHDOG) == 30
        await command(ctx, dut.bus, "check")
        for _ in range(40):
            await ctx.tick()
        assert await error(ctx, dut.bus) == ErrorCode.WATCHDOG

    simulate(dut, bench)


@pytest.mark.parametrize("cycles", [0, 1 << 32])
def test_watchdog_cycles_are_checked(cycles):
    with pytest.raises(ValueError) as caught:
        control(watchdog_cycles=cycles)
    assert str(caught.value) == f"Control watchdog_cycles must be in 1..4294967295, not {cycles!r}"


def test_perf_counters_cover_the_frame():
    dut = control()
    names = list(PERF.members)

    async def bench(ctx):
        await make_ready(ctx, dut)
        for scale in (3, 2):
            for name in names:
                ctx.set(dut.perf[name], 1)  # before the frame: not counted
            await command(ctx, dut.bus, "start")
            while ctx.get(dut.state) != State.RUNNING:
                await ctx.tick()
            ctx.set(dut.frame_ok, 0)
            for cycle in range(1, 101 + LATENCY):  # the first cycle of the frame is cycle 1
                at = cycle - LATENCY  # the levels are those of this cycle
                for index, name in enumerate(names):  # up before the frame, and at both its ends
                    tail = scale * (index + 1) - 1
                    ctx.set(dut.perf[name], at <= 1 or at > 100 - tail)
                ctx.set(dut.frame_done, cycle == 100)
                await ctx.tick()
            for name in names:
                ctx.set(dut.perf[name], 1)  # after the frame: not counted
            for _ in range(10):
                await ctx.tick()
            ctx.set(dut.frame_ok, 1)
            await ctx.tick()
            assert await state(ctx, dut.bus) == State.DONE
            assert await read(ctx, dut.bus, Register.CYCLES) == 100
            for index, name in enumerate(names):
                assert await read(ctx, dut.bus, PERF_REGISTERS[name]) == scale * (index + 1)

    simulate(dut, bench)
