"""The queue between two clocks: order, back-pressure, what its levels promise."""
# amaranth: UnusedElaboratable=no

import random

import pytest
from amaranth.sim import Simulator

from hw.memory_queue import CrossingQueue

DEPTH = 32


@pytest.mark.parametrize("source_ps", [7500, 10007, 16671])
@pytest.mark.parametrize("stalls", [(0.0, 0.0), (0.0, 0.6), (0.6, 0.0), (0.4, 0.4)])
def test_words_pass_in_order(source_ps, stalls):
    dut = CrossingQueue(16, depth=DEPTH, source="source", target="target")
    luck = random.Random(source_ps)
    words = [luck.getrandbits(16) for _ in range(400)]
    inside, most = [0], [0]

    async def push(ctx):
        for number, word in enumerate(words):
            while luck.random() < stalls[0]:
                await ctx.tick("source")
            ctx.set(dut.input.payload, word)
            ctx.set(dut.input.valid, 1)
            await ctx.tick("source").until(dut.input.ready)
            ctx.set(dut.input.valid, 0)
            inside[0] += 1
            most[0] = max(most[0], inside[0])
            assert ctx.get(dut.level) >= inside[0] - 5  # two late, two going out, one just gone
            if number == 200:  # let it fill up, or run dry
                await ctx.tick("source").repeat(100)

    async def pull(ctx):
        for number, word in enumerate(words):
            if number == 100:
                await ctx.tick("target").repeat(500)  # it fills up
                assert inside[0] > DEPTH - CrossingQueue.SLACK
                assert ctx.get(dut.waiting) == inside[0] - 2
            while luck.random() < stalls[1]:
                await ctx.tick("target")
            ctx.set(dut.output.ready, 1)
            (got,) = await ctx.tick("target").sample(dut.output.payload).until(dut.output.valid)
            ctx.set(dut.output.ready, 0)
            inside[0] -= 1
            assert got == word

    simulator = Simulator(dut)
    simulator.add_clock(source_ps * 1e-12, domain="source")
    simulator.add_clock(8e-9, domain="target")
    simulator.add_testbench(push)
    simulator.add_testbench(pull)
    simulator.run()
    assert inside[0] == 0
    assert most[0] <= DEPTH


@pytest.mark.parametrize("depth", [8, 24])
def test_depth_is_checked(depth):
    with pytest.raises(ValueError) as caught:
        CrossingQueue(8, depth=depth, source="source", target="target")
    assert str(caught.value) == f"Crossing queue depth must be a power of two from 16, not {depth}"
