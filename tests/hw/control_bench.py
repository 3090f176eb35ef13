# amaranth: UnusedElaboratable=no
"""`Control` by itself, with the loader's and the core's answers from the test."""

from hw.control import Control
from isa.geometry import TINY
from isa.registers import State
from tests.hw.frontend import command, state

WATCHDOG = 200


def control(**options):
    return Control(**({"geometry": TINY, "watchdog_cycles": WATCHDOG} | options))


async def pulse(ctx, signal):
    ctx.set(signal, 1)
    await ctx.tick()
    ctx.set(signal, 0)


async def make_ready(ctx, dut):
    await command(ctx, dut.bus, "check")
    assert await state(ctx, dut.bus) == State.CHECKING
    await pulse(ctx, dut.checked)
    assert await state(ctx, dut.bus) == State.READY


async def finish(ctx, dut):
    await pulse(ctx, dut.frame_done)
    ctx.set(dut.frame_ok, 1)
    for _ in range(3):
        await ctx.tick()
