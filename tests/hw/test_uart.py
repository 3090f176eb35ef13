# amaranth: UnusedElaboratable=no
"""UART: both directions, stalls, clock mismatch, glitches, overflow, framing, exact error texts."""

from fractions import Fraction

import pytest
from amaranth.hdl import Module
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from hw.uart import UARTReceiver, UARTTransmitter
from sim.bench import CYCLE, receive, send, simulate
from sim.handshake import STALLS

DIVISORS = [6, 20, Fraction(25, 3), Fraction(80, 11)]
BYTES = [0x00, 0xFF, 0x55, 0xAA, 0x01, 0x80, 0x7E, 0xC3]


class Loop(wiring.Component):
    """Transmitter wired to receiver."""

    i: In(stream.Signature(8))
    o: Out(stream.Signature(8))
    overflow: Out(1)
    framing_error: Out(1)

    def __init__(self, *, divisor):
        self.divisor = divisor
        super().__init__()

    def elaborate(self, platform):
        m = Module()
        m.submodules.tx = tx = UARTTransmitter(divisor=self.divisor)
        m.submodules.rx = rx = UARTReceiver(divisor=self.divisor)
        wiring.connect(m, tx.bytes, wiring.flipped(self.i))
        wiring.connect(m, wiring.flipped(self.o), rx.bytes)
        m.d.comb += [
            rx.pin.eq(tx.pin),
            self.overflow.eq(rx.overflow),
            self.framing_error.eq(rx.framing_error),
        ]
        return m


async def drive_line(ctx, pin, bits, clocks_per_bit):
    """Put `bits` on the line as a far end whose bits last `clocks_per_bit` of our clocks."""
    for bit in bits:
        ctx.set(pin, bit)
        # Real-valued delays: the far end's edges fall anywhere between ours.
        await ctx.delay(clocks_per_bit * CYCLE)


def frame(byte, stop=1):
    return [0, *((byte >> i) & 1 for i in range(8)), stop]


def listen(dut, bits, clocks_per_bit, *, cycles=4000, ready=True):
    """Bytes, overflows and framing errors that `dut` reports while `bits` are on its line."""
    got, flags = [], {"overflow": 0, "framing_error": 0}

    async def line(ctx):
        await ctx.delay(0.3 * CYCLE)
        await drive_line(ctx, dut.pin, bits, clocks_per_bit)

    async def watch(ctx):
        ctx.set(dut.bytes.ready, ready)
        for _ in range(cycles):
            _, _, valid, byte, overflow, framing = await ctx.tick().sample(
                dut.bytes.valid, dut.bytes.payload, dut.overflow, dut.framing_error
            )
            if valid and ready:
                got.append(byte)
            flags["overflow"] += overflow
            flags["framing_error"] += framing

    simulate(dut, line, watch, deadline_cycles=cycles + 10)
    return got, flags


@pytest.mark.parametrize("divisor", DIVISORS, ids=str)
@pytest.mark.parametrize("stalls", STALLS)
def test_loop(divisor, stalls):
    dut = Loop(divisor=divisor)
    got = []
    flags = []

    async def drive(ctx):
        await send(ctx, dut.i, BYTES, stalls)

    async def collect(ctx):
        got.extend(await receive(ctx, dut.o, len(BYTES), stalls))

    async def watch(ctx):
        async for _, _, overflow, framing in ctx.tick().sample(dut.overflow, dut.framing_error):
            flags.append((overflow, framing))
            if len(got) == len(BYTES):
                return

    simulate(dut, drive, collect, watch, deadline_cycles=3000)
    assert got == BYTES
    assert set(flags) == {(0, 0)}


@pytest.mark.parametrize("divisor", DIVISORS, ids=str)
def test_bytes_follow_without_a_gap(divisor):
    """The line, sampled in the middle of every ideal bit, is exactly the frames end to end."""
    dut = UARTTransmitter(divisor=divisor)
    line = []

    async def drive(ctx):
        await send(ctx, dut.bytes, BYTES)

    async def watch(ctx):
        await ctx.tick().until(dut.bytes.ready)  # the first byte is taken at this edge
        for _ in range(int(divisor * 10 * len(BYTES)) + 4):
            line.append(ctx.get(dut.pin))
            await ctx.tick()

    simulate(dut, drive, watch)
    expected = [bit for byte in BYTES for bit in frame(byte)]
    middles = [int((index + Fraction(1, 2)) * divisor) for index in range(len(expected))]
    assert [line[at] for at in middles] == expected
    # Every bit starts within a clock of its place: the first and last sample of each are its own.
    edges = [(int(i * divisor) + 1, int((i + 1) * divisor) - 1) for i in range(len(expected))]
    assert all(line[a] == line[b] == bit for (a, b), bit in zip(edges, expected, strict=True))


@pytest.mark.parametrize("divisor", [6, 20, Fraction(25, 3)], ids=str)
@pytest.mark.parametrize("mismatch", [-0.02, 0.0, 0.02])
def test_far_end_off_by_two_percent(divisor, mismatch):
    dut = UARTReceiver(divisor=divisor)
    bits = [bit for byte in BYTES for bit in frame(byte)] + [1, 1]
    assert listen(dut, bits, float(divisor) * (1 + mismatch), cycles=1800) == (
        BYTES,
        {"overflow": 0, "framing_error": 0},
    )


def test_far_end_off_by_ten_percent_is_noticed():
    """The mismatch test can fail: ten percent is more than a frame of ten bits can bear."""
    dut = UARTReceiver(divisor=20)
    bits = [bit for byte in BYTES for bit in frame(byte)] + [1] * 12
    got, flags = listen(dut, bits, 18, cycles=2000)
    assert got != BYTES or flags["framing_error"]


def test_glitch_is_no_start_bit():
    dut = UARTReceiver(divisor=20)

    async def line(ctx):
        ctx.set(dut.pin, 0)
        await ctx.delay(7 * CYCLE)
        ctx.set(dut.pin, 1)
        await ctx.delay(40 * CYCLE)
        await drive_line(ctx, dut.pin, [*frame(0xA5), 1], 20)

    got = []

    async def collect(ctx):
        got.extend(await receive(ctx, dut.bytes, 1))

    simulate(dut, line, collect, deadline_cycles=400)
    assert got == [0xA5]


def test_missing_stop_bit():
    dut = UARTReceiver(divisor=10)
    # A break: the line stays low for three frames, which is one error, then a byte.
    bits = [*frame(0x12, stop=0), *[0] * 20, 1, *frame(0x34), 1, 1]
    got, flags = listen(dut, bits, 10, cycles=600)
    assert got == [0x34]
    assert flags == {"overflow": 0, "framing_error": 1}


def test_overflow_keeps_the_first_byte():
    dut = UARTReceiver(divisor=10)
    bits = [*frame(0x12), *frame(0x34), *frame(0x56), 1, 1]
    got, flags = listen(dut, bits, 10, cycles=400, ready=False)
    assert got == []
    assert flags == {"overflow": 2, "framing_error": 0}

    dut = UARTReceiver(divisor=10)

    async def line(ctx):
        await drive_line(ctx, dut.pin, bits, 10)

    async def late(ctx):
        await ctx.tick().repeat(380)
        assert await receive(ctx, dut.bytes, 1) == [0x12]
        assert ctx.get(dut.bytes.valid) == 0

    simulate(dut, line, late)


@pytest.mark.parametrize(
    ("unit", "subject"),
    [(UARTReceiver, "UART receiver"), (UARTTransmitter, "UART transmitter")],
)
@pytest.mark.parametrize(
    ("divisor", "kind", "rule"),
    [
        (8.3, TypeError, "must be an int or a Fraction, not 8.3"),
        (True, TypeError, "must be an int or a Fraction, not True"),
        (5, ValueError, "must be at least 6 clocks per bit, not Fraction(5, 1)"),
        (65536, ValueError, "must have a numerator of at most 65535, not Fraction(65536, 1)"),
    ],
)
def test_bad_divisor(unit, subject, divisor, kind, rule):
    with pytest.raises(kind) as error:
        unit(divisor=divisor)
    assert str(error.value) == f"{subject} divisor {rule}"
