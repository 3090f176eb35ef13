"""What answers at each address of `Control`'s bus: registers, ports, image words, logits."""

import pytest
from amaranth.sim import Simulator

from isa import image
from isa.geometry import TINY
from isa.registers import (
    ADDRESS_BITS,
    IMAGE_ADDRESS_BITS,
    MEMORY,
    ErrorCode,
    Register,
    Source,
    State,
)
from sim.bench import receive, simulate
from tests.hw.control_bench import WATCHDOG, control, finish, make_ready
from tests.hw.frontend import command, read, state, write


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
