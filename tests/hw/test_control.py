"""The states of a frame in `Control`: commands, errors, aborts, stems computed ahead."""

import pytest
from amaranth.sim import Simulator

from isa import checked
from isa.registers import CONTROL, ErrorCode, Register, State
from sim.bench import simulate
from tests.hw.control_bench import control, finish, make_ready, pulse
from tests.hw.frontend import command, error, read, state, write


def test_a_frame_passes_through_its_states():
    dut = control()

    async def bench(ctx):
        assert not ctx.get(dut.interrupt)
        await make_ready(ctx, dut)
        assert ctx.get(dut.interrupt)
        for count in (1, 2):
            await command(ctx, dut.bus, "start")
            assert not ctx.get(dut.interrupt)
            ctx.set(dut.frame_ok, 0)  # as the loader does at `start`
            assert await state(ctx, dut.bus) == State.RUNNING
            await pulse(ctx, dut.frame_done)
            for _ in range(5):  # logits wait for the CRC
                await ctx.tick()
            assert await state(ctx, dut.bus) == State.RUNNING
            ctx.set(dut.frame_ok, 1)
            await ctx.tick()
            await ctx.tick()
            assert ctx.get(dut.interrupt)
            assert await state(ctx, dut.bus) == State.DONE
            assert await read(ctx, dut.bus, Register.FRAMES) == count
            assert await error(ctx, dut.bus) == ErrorCode.NONE

    simulate(dut, bench)


def test_strobes_last_one_cycle():
    dut = control()
    counts = {"check": 0, "start": 0}

    async def bench(ctx):
        await make_ready(ctx, dut)
        await command(ctx, dut.bus, "start")
        for _ in range(10):
            await ctx.tick()

    async def count(ctx):
        async for _, _, check, start in ctx.tick().sample(dut.check, dut.start):
            counts["check"] += check
            counts["start"] += start

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.add_testbench(count, background=True)
    simulator.run()
    assert counts == {"check": 1, "start": 1}


@pytest.mark.parametrize("name", ["check", "start"])
def test_commands_in_the_wrong_state_are_refused(name):
    dut = control()

    async def bench(ctx):
        if name == "start":
            await command(ctx, dut.bus, "start")  # IDLE: nothing has been checked
            assert await state(ctx, dut.bus) == State.ERROR
            assert await error(ctx, dut.bus) == ErrorCode.NOT_READY
            assert ctx.get(dut.interrupt)
        await make_ready(ctx, dut)
        assert await error(ctx, dut.bus) == ErrorCode.NONE  # cleared by the check
        await command(ctx, dut.bus, "start")
        await command(ctx, dut.bus, name)  # RUNNING
        await ctx.tick()
        assert ctx.get(dut.abort)
        assert await state(ctx, dut.bus) == State.ERROR
        assert await error(ctx, dut.bus) == ErrorCode.NOT_READY

    simulate(dut, bench)


def test_abort_leads_to_idle_from_everywhere():
    dut = control()

    async def bench(ctx):
        for prepare in (None, "check", "ready", "start", "done", "error"):
            if prepare == "check":
                await command(ctx, dut.bus, "check")
            elif prepare is not None:
                await make_ready(ctx, dut)
                if prepare != "ready":
                    await command(ctx, dut.bus, "start")
                if prepare == "done":
                    await finish(ctx, dut)
                if prepare == "error":
                    ctx.set(dut.error, ErrorCode.FRAME_CRC)
                    await pulse(ctx, dut.error_valid)
            await command(ctx, dut.bus, "abort")
            await ctx.tick()
            cycles = 0
            ctx.set(dut.bus.valid, 1)  # a read
            while ctx.get(dut.abort):
                await ctx.tick()
                cycles += 1
            assert cycles == dut.ABORT_CYCLES
            for _ in range(dut.RESET_CYCLES):
                assert not ctx.get(dut.bus.ack)
                await ctx.tick()
            await ctx.tick().until(dut.bus.ack)
            ctx.set(dut.bus.valid, 0)
            assert await state(ctx, dut.bus) == State.IDLE
            assert await error(ctx, dut.bus) == ErrorCode.NONE

    simulate(dut, bench)


@pytest.mark.parametrize("phase", ["check", "frame"])
def test_an_error_of_the_loader_aborts(phase):
    dut = control()

    async def bench(ctx):
        ctx.set(dut.error, ErrorCode.PACKET)
        await pulse(ctx, dut.error_valid)  # IDLE: nobody streams, so nobody can complain
        assert await state(ctx, dut.bus) == State.IDLE
        if phase == "frame":
            await make_ready(ctx, dut)
        await command(ctx, dut.bus, "start" if phase == "frame" else "check")
        await pulse(ctx, dut.error_valid)
        await ctx.tick().repeat(2)
        assert ctx.get(dut.abort)
        assert await state(ctx, dut.bus) == State.ERROR
        assert await error(ctx, dut.bus) == ErrorCode.PACKET
        await finish(ctx, dut)  # too late
        assert await state(ctx, dut.bus) == State.ERROR

    simulate(dut, bench)


def start_bits(more):
    return checked.encode(CONTROL, dict.fromkeys(CONTROL.members, 0) | {"start": 1, "more": more})


def test_a_stem_that_was_computed_ahead_is_not_computed_again():
    dut = control()

    async def bench(ctx):
        await make_ready(ctx, dut)
        for more, done in ((0, 0), (1, 0), (1, 1), (0, 1), (0, 0), (1, 0), (0, 1)):
            ctx.set(dut.frame_ok, 0)
            await write(ctx, dut.bus, Register.CONTROL, start_bits(more))
            assert await state(ctx, dut.bus) == State.RUNNING
            assert (ctx.get(dut.more), ctx.get(dut.stem_done)) == (more, done)
            await finish(ctx, dut)
            assert await state(ctx, dut.bus) == State.DONE

    simulate(dut, bench)


@pytest.mark.parametrize("event", ["abort", "check", "error"])
def test_a_stem_that_was_computed_ahead_is_forgotten(event):
    dut = control()

    async def bench(ctx):
        await make_ready(ctx, dut)
        await write(ctx, dut.bus, Register.CONTROL, start_bits(1))
        await finish(ctx, dut)
        if event == "error":
            await command(ctx, dut.bus, "start")
            ctx.set(dut.error, ErrorCode.PACKET)
            await pulse(ctx, dut.error_valid)
        if event == "abort":
            await command(ctx, dut.bus, "abort")
        await make_ready(ctx, dut)
        await command(ctx, dut.bus, "start")
        assert await state(ctx, dut.bus) == State.RUNNING
        assert not ctx.get(dut.stem_done)

    simulate(dut, bench)


@pytest.mark.parametrize("latency", [0, None])
def test_logit_latency_is_checked(latency):
    with pytest.raises(ValueError) as caught:
        control(logit_latency=latency)
    assert str(caught.value) == f"Control logit_latency must be a positive integer, not {latency!r}"
