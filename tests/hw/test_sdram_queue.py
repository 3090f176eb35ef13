"""The queue of beats: order, back-pressure, whole bursts, and when a beat comes."""
# amaranth: UnusedElaboratable=no

import random

from amaranth.sim import Simulator

from hw.sdram_chip import BURST_BEATS
from hw.sdram_queue import BEAT, BeatQueue

BURSTS = 2


def test_beats_come_when_they_are_asked_for():
    dut = BeatQueue(bursts=BURSTS)
    luck = random.Random(1)
    beats = [luck.getrandbits(18) for _ in range(60 * BURST_BEATS)]
    stored = [0]
    whole = [0]

    async def push(ctx):
        for beat in beats:
            while luck.random() < 0.2:
                await ctx.tick("memory")
            ctx.set(dut.input.payload, BEAT.from_bits(beat))
            ctx.set(dut.input.valid, 1)
            await ctx.tick("memory").until(dut.input.ready)
            ctx.set(dut.input.valid, 0)
            stored[0] += 1

    async def count(ctx):
        while True:
            _, _, strobe = await ctx.tick("memory").sample(dut.whole)
            whole[0] += strobe

    async def pull(ctx):
        await ctx.tick("memory").repeat(200)  # it fills up
        assert BURSTS * BURST_BEATS <= stored[0] <= 2 * BURSTS * BURST_BEATS
        taken, asked = 0, []
        while taken < len(beats):
            ready = taken // BURST_BEATS + 1 <= whole[0] or taken % BURST_BEATS
            ask = bool(ready) and luck.random() < 0.8
            ctx.set(dut.next, ask)
            asked.append(taken if ask else None)
            taken += ask
            await ctx.tick("memory")
            if len(asked) >= dut.READ_LATENCY and asked[-dut.READ_LATENCY] is not None:
                beat = ctx.get(dut.beat.as_value())
                assert beat == beats[asked[-dut.READ_LATENCY]]
        await ctx.tick("memory").repeat(3)
        assert whole[0] == len(beats) // BURST_BEATS

    simulator = Simulator(dut)
    simulator.add_clock(7.5e-9, domain="memory")
    simulator.add_testbench(push)
    simulator.add_testbench(count, background=True)
    simulator.add_testbench(pull)
    simulator.run()
