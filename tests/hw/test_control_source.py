"""Where `Control` has the image come from, and when it must be checked again."""

import pytest
from amaranth.sim import Simulator

from isa.registers import ErrorCode, Register, Source, State
from sim.bench import simulate
from tests.geometries import TINY_SDRAM
from tests.hw.control_bench import control, finish, make_ready, pulse
from tests.hw.frontend import command, error, read, state, write


@pytest.mark.parametrize(
    ("memory", "code"),
    [
        ({"present": 1, "ready": 1}, ErrorCode.NONE),
        ({"present": 1}, ErrorCode.NO_MEMORY),
        ({"present": 1, "ready": 1, "fault": 1}, ErrorCode.NO_MEMORY),
        ({}, ErrorCode.NO_MEMORY),
    ],
)
def test_an_image_in_sdram_needs_a_good_memory(memory, code):
    dut = control()

    async def bench(ctx):
        ctx.set(dut.memory, memory)
        await write(ctx, dut.bus, Register.SOURCE, Source.SDRAM.value)
        await command(ctx, dut.bus, "check")
        failed = code != ErrorCode.NONE
        assert await state(ctx, dut.bus) == (State.ERROR if failed else State.CHECKING)
        assert await error(ctx, dut.bus) == code

    simulate(dut, bench)


def test_a_geometry_without_image_ram_refuses_that_source():
    dut = control(geometry=TINY_SDRAM)

    async def bench(ctx):
        await command(ctx, dut.bus, "check")
        assert await state(ctx, dut.bus) == State.ERROR
        assert await error(ctx, dut.bus) == ErrorCode.NO_MEMORY

    simulate(dut, bench)


def test_an_image_from_the_flash_is_checked():
    dut = control(geometry=TINY_SDRAM)
    checks = 0

    async def count(ctx):
        nonlocal checks
        async for _, _, check in ctx.tick().sample(dut.check):
            checks += check

    async def bench(ctx):
        await pulse(ctx, dut.copied)
        assert ctx.get(dut.source) == Source.SDRAM
        assert await state(ctx, dut.bus) == State.CHECKING
        await pulse(ctx, dut.checked)
        assert await state(ctx, dut.bus) == State.READY
        assert checks == 1

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(count, background=True)
    simulator.add_testbench(bench)
    simulator.run()


@pytest.mark.parametrize(
    ("address", "claims"),
    [
        (Register.SOURCE, True),
        (Register.CONTROL, True),
        (Register.IMAGE + 5, True),
        (Register.WATCHDOG, False),
        (Register.INPUT, False),
        (Register.STREAM, False),
    ],
)
def test_the_hosts_word_is_before_the_flashs(address, claims):
    """An image that comes in the very cycle in which the host takes over is not checked."""
    dut = control(geometry=TINY_SDRAM)

    async def bench(ctx):
        ctx.set(dut.bus.valid, 1)
        ctx.set(dut.bus.write, 1)
        ctx.set(dut.bus.address, address)
        ctx.set(dut.bus.write_data, 0x100)
        await ctx.tick().until(dut.bus.ack)
        ctx.set(dut.bus.valid, 0)
        assert ctx.get(dut.claim) == claims
        await pulse(ctx, dut.copied)
        assert not ctx.get(dut.claim)
        await ctx.tick()
        assert await state(ctx, dut.bus) == (State.IDLE if claims else State.CHECKING)
        assert ctx.get(dut.source) == (Source.RAM if claims else Source.SDRAM)

    simulate(dut, bench)


@pytest.mark.parametrize("address", [Register.IMAGE + 3, Register.SOURCE])
@pytest.mark.parametrize("done", [False, True], ids=["ready", "done"])
def test_a_changed_image_must_be_checked_again(address, done):
    dut = control()

    async def bench(ctx):
        await make_ready(ctx, dut)
        if done:
            await command(ctx, dut.bus, "start")
            await finish(ctx, dut)
        await write(ctx, dut.bus, address, 1)
        assert await state(ctx, dut.bus) == State.IDLE

    simulate(dut, bench)


def test_the_source_stays_while_it_streams():
    dut = control()

    async def bench(ctx):
        await write(ctx, dut.bus, Register.SOURCE, Source.LINK.value)
        assert ctx.get(dut.source) == Source.LINK
        await command(ctx, dut.bus, "check")
        await write(ctx, dut.bus, Register.SOURCE, Source.RAM.value)
        assert await read(ctx, dut.bus, Register.SOURCE) == Source.LINK.value
        assert await state(ctx, dut.bus) == State.CHECKING

    simulate(dut, bench)
