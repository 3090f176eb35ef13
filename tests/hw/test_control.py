# amaranth: UnusedElaboratable=no
"""Registers, windows, ports, commands, watchdog, perf counters: `Control` by itself."""

import pytest
from amaranth.sim import Simulator

from hw.control import Control
from hw.perf import LATENCY, PERF, PERF_REGISTERS
from isa import checked, image
from isa.geometry import TINY
from isa.registers import (
    ADDRESS_BITS,
    CONTROL,
    IMAGE_ADDRESS_BITS,
    MEMORY,
    ErrorCode,
    Register,
    Source,
    State,
)
from sim.bench import receive, simulate
from tests.geometries import TINY_SDRAM
from tests.hw.frontend import command, error, read, state, write

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


def test_identifies_itself():
    dut = control()

    async def bench(ctx):
        ctx.set(dut.classes, 10)
        ctx.set(dut.image_crc, 0x89ABCDEF)
        ctx.set(dut.memory, memory := MEMORY.const({"present": 1, "fault_address": 0x123456}))
        expected = {
            Register.ID: image.MAGIC,
            Register.VERSION: image.VERSION,
            Register.GEOMETRY: TINY.digest,
            Register.STATUS: State.IDLE.value,
            Register.ERROR: ErrorCode.NONE.value,
            Register.FRAMES: 0,
            Register.WATCHDOG: WATCHDOG,
            Register.CLASSES: 10,
            Register.SOURCE: Source.RAM.value,
            Register.IMAGE_CRC: 0x89ABCDEF,
            Register.MEMORY: memory.as_bits(),
            0x0F: 0,
            0x30: 0,
            Register.INPUT: 0,
            Register.STREAM: 0,
            0x300: 0,
            Register.IMAGE: 0,
            (1 << ADDRESS_BITS) - 1: 0,
        }
        for address, value in expected.items():
            assert await read(ctx, dut.bus, address) == value, hex(address)

    simulate(dut, bench)


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


@pytest.mark.parametrize("stalls", ["none", "light", "heavy"])
@pytest.mark.parametrize("port", ["input", "stream"])
def test_ports_push_every_word_once(port, stalls):
    dut = control()
    words = [0x1000_0001 * i for i in range(15)]
    address = {"input": Register.INPUT, "stream": Register.STREAM}[port]

    async def push(ctx):
        await write(ctx, dut.bus, address, *words)

    async def pull(ctx):
        assert await receive(ctx, getattr(dut, port), len(words), stalls) == words

    simulate(dut, push, pull)


def test_a_word_given_up_is_not_pushed():
    """A master that gives up in any cycle before the acknowledge has pushed nothing."""
    dut = control()
    bus = dut.bus

    async def bench(ctx):
        await write(ctx, bus, Register.INPUT, 1)  # fills the buffer; nobody takes it
        ctx.set(bus.address, int(Register.INPUT))
        ctx.set(bus.write_data, 2)
        for held in range(1, 12):
            ctx.set(bus.write, 1)
            ctx.set(bus.valid, 1)
            for _ in range(held):
                _, _, ack = await ctx.tick().sample(bus.ack)
                assert not ack
            ctx.set(bus.valid, 0)
            for _ in range(3):
                await ctx.tick()
        assert await receive(ctx, dut.input, 1) == [1]
        for held in (1, 2):  # the buffer is empty now, and the request too short
            ctx.set(bus.valid, 1)
            for _ in range(held):
                await ctx.tick()
            ctx.set(bus.valid, 0)
            for _ in range(4):
                _, _, valid = await ctx.tick().sample(dut.input.valid)
                assert not valid

    simulate(dut, bench)


def test_ports_are_emptied_by_an_abort_and_closed_by_an_error():
    dut = control()

    async def bench(ctx):
        await write(ctx, dut.bus, Register.INPUT, 1)
        await command(ctx, dut.bus, "abort")
        await write(ctx, dut.bus, Register.INPUT, 2)  # waits until the abort is over
        assert await receive(ctx, dut.input, 1) == [2]
        await command(ctx, dut.bus, "start")
        assert await state(ctx, dut.bus) == State.ERROR
        await write(ctx, dut.bus, Register.INPUT, 3)
        await write(ctx, dut.bus, Register.STREAM, 4)
        for _ in range(4):
            _, _, *valid = await ctx.tick().sample(dut.input.valid, dut.stream.valid)
            assert valid == [0, 0]

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


OFFSETS = (0, 5, TINY.image_words - 1, (1 << IMAGE_ADDRESS_BITS) - 1)


def test_image_words_are_written_where_they_belong():
    dut = control()
    bus = dut.bus
    seen = []

    async def bench(ctx):
        ctx.set(dut.image_write.ready, 1)
        for offset in OFFSETS:
            ctx.set(bus.valid, 1)
            ctx.set(bus.write, 1)
            ctx.set(bus.address, Register.IMAGE + offset)
            ctx.set(bus.write_data, offset ^ 0xABCD_0000)
            ack = 0
            while not ack:
                _, _, ack, valid, address, word = await ctx.tick().sample(
                    bus.ack, dut.image_write.valid, dut.image_write.address, dut.image_write.data
                )
                if valid:
                    seen.append((address, word))
            ctx.set(bus.valid, 0)
        await ctx.tick()
        assert ctx.get(dut.image_write.valid)
        seen.append((ctx.get(dut.image_write.address), ctx.get(dut.image_write.data)))

    simulate(dut, bench)
    assert seen == [(o, o ^ 0xABCD_0000) for o in OFFSETS]


def test_nothing_is_written_while_an_image_word_waits():
    dut = control()

    async def bench(ctx):
        await write(ctx, dut.bus, Register.IMAGE + 7, 1)
        for address in (Register.IMAGE + 8, Register.CONTROL, Register.INPUT, Register.SOURCE):
            ctx.set(dut.bus.valid, 1)
            ctx.set(dut.bus.write, 1)
            ctx.set(dut.bus.address, address)
            for _ in range(20):
                assert not (await ctx.tick().sample(dut.bus.ack))[2]
            assert ctx.get(dut.image_write.valid)
            assert ctx.get(dut.image_write.address) == 7
            ctx.set(dut.bus.valid, 0)
            await ctx.tick()
        assert await read(ctx, dut.bus, Register.ID) == image.MAGIC
        ctx.set(dut.image_write.ready, 1)
        await write(ctx, dut.bus, Register.IMAGE + 8, 2)
        assert ctx.get(dut.image_write.address) == 8

    simulate(dut, bench)


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


@pytest.mark.parametrize("latency", [1, 2, 3])
def test_logits_are_read_through_any_latency_but_only_when_done(latency):
    dut = control(logit_latency=latency)
    logits = [(-1) ** i * (i * 77777 + 1) for i in range(TINY.classes)]

    async def memory(ctx):
        pipeline = [0] * (latency - 1)
        ctx.set(dut.top_class, [9, 8, 7, 6, 5])
        ctx.set(dut.top_logit, [5, 0, -1, -2, -(1 << 23)])
        async for _, _, address in ctx.tick().sample(dut.logit_address):
            pipeline.append(logits[address])
            ctx.set(dut.logit_data, pipeline.pop(0))

    async def bench(ctx):
        await make_ready(ctx, dut)
        assert await read(ctx, dut.bus, Register.LOGITS) == 0
        assert await read(ctx, dut.bus, Register.TOP_CLASS) == 0
        assert await read(ctx, dut.bus, Register.TOP_LOGIT + 4) == 0
        await command(ctx, dut.bus, "start")
        await finish(ctx, dut)
        for index, logit in enumerate(logits):
            assert await read(ctx, dut.bus, Register.LOGITS + index) == logit & 0xFFFF_FFFF
        assert await read(ctx, dut.bus, Register.LOGITS + TINY.classes) == 0
        top = [await read(ctx, dut.bus, Register.TOP_CLASS + i) for i in range(6)]
        assert top == [9, 8, 7, 6, 5, 0]
        top = [await read(ctx, dut.bus, Register.TOP_LOGIT + i) for i in range(6)]
        assert top == [5, 0, 0xFFFF_FFFF, 0xFFFF_FFFE, 0xFF80_0000, 0]

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(memory, background=True)
    simulator.add_testbench(bench)
    simulator.run()


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


@pytest.mark.parametrize("latency", [0, None])
def test_logit_latency_is_checked(latency):
    with pytest.raises(ValueError) as caught:
        control(logit_latency=latency)
    assert str(caught.value) == f"Control logit_latency must be a positive integer, not {latency!r}"


@pytest.mark.parametrize("cycles", [0, 1 << 32])
def test_watchdog_cycles_are_checked(cycles):
    with pytest.raises(ValueError) as caught:
        control(watchdog_cycles=cycles)
    assert str(caught.value) == f"Control watchdog_cycles must be in 1..4294967295, not {cycles!r}"


def test_a_geometry_without_image_ram_refuses_that_source():
    dut = control(geometry=TINY_SDRAM)

    async def bench(ctx):
        await command(ctx, dut.bus, "check")
        assert await state(ctx, dut.bus) == State.ERROR
        assert await error(ctx, dut.bus) == ErrorCode.NO_MEMORY

    simulate(dut, bench)
