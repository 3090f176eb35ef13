# amaranth: UnusedElaboratable=no
"""The unit-test bench: transfers under stalls, the withdraw checker, the deadline."""

import pytest
from amaranth.hdl import Module
from amaranth.lib import data, stream, wiring
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.wiring import In, Out

from sim.bench import DeadlineError, receive, send, simulate
from sim.handshake import STALLS, StreamError


class Pair(data.Struct):
    low: 3
    high: data.ArrayLayout(5, 2)


class Queue(wiring.Component):
    i: In(stream.Signature(Pair))
    o: Out(stream.Signature(Pair))

    def elaborate(self, platform):
        m = Module()
        m.submodules.fifo = fifo = SyncFIFOBuffered(width=13, depth=3)
        m.d.comb += [
            fifo.w_data.eq(self.i.payload),
            fifo.w_en.eq(self.i.valid),
            self.i.ready.eq(fifo.w_rdy),
            self.o.payload.eq(fifo.r_data),
            self.o.valid.eq(fifo.r_rdy),
            fifo.r_en.eq(self.o.ready),
        ]
        return m


class Flicker(wiring.Component):
    """Breaks the rule: offers a payload every other cycle, taken or not."""

    o: Out(stream.Signature(8))

    def elaborate(self, platform):
        m = Module()
        m.d.sync += self.o.valid.eq(~self.o.valid)
        return m


class Invert(wiring.Component):
    a: In(1)
    b: Out(1)

    def elaborate(self, platform):
        m = Module()
        m.d.comb += self.b.eq(~self.a)
        return m


@pytest.mark.parametrize("source", STALLS)
@pytest.mark.parametrize("sink", STALLS)
def test_round_trip(source, sink):
    dut = Queue()
    items = [{"low": n % 8, "high": [n % 31, (7 * n) % 32]} for n in range(60)]
    got = []

    async def drive(ctx):
        await send(ctx, dut.i, items, source)

    async def collect(ctx):
        got.extend(await receive(ctx, dut.o, len(items), sink))

    simulate(dut, drive, collect, deadline_cycles=600)
    assert [{"low": p.low, "high": list(p.high)} for p in got] == items


def test_withdrawn_payload_is_caught():
    dut = Flicker()

    async def collect(ctx):
        await receive(ctx, dut.o, 50, "heavy")

    with pytest.raises(StreamError, match=r"^Stream o withdrew payload 0x0 before it was taken"):
        simulate(dut, collect)


def test_deadline_names_the_waiting_bench():
    dut = Queue()

    async def hungry(ctx):
        await receive(ctx, dut.o, 1)

    async def done(ctx):
        await ctx.tick()

    with pytest.raises(DeadlineError) as error:
        simulate(dut, hungry, done, deadline_cycles=20)
    expected = "Simulation did not finish within 20 cycles; still waiting: hungry"
    assert str(error.value) == expected


def test_combinational_component():
    dut = Invert()

    async def check(ctx):
        assert ctx.get(dut.b) == 1
        ctx.set(dut.a, 1)
        assert ctx.get(dut.b) == 0

    simulate(dut, check)


def test_bad_arguments():
    with pytest.raises(ValueError) as error:
        simulate(Invert())
    assert str(error.value) == "Simulation must be given at least one test bench, not none"
    with pytest.raises(ValueError) as error:
        simulate(Invert(), lambda ctx: None, deadline_cycles=0)
    assert str(error.value) == "Deadline must be at least one cycle, not 0"
