"""The assembler: words to items, at a word a cycle."""

import random

import pytest

from hw.assembler import WordAssembler
from sim.bench import receive, send, simulate


@pytest.mark.parametrize("bits", [32, 40, 64, 512])
@pytest.mark.parametrize("stalls", ["none", "light", "heavy"])
def test_assembler_joins_words_least_significant_first(bits, stalls):
    dut = WordAssembler(bits)
    items = [(3**400 * (i + 1) >> i) & ((1 << bits) - 1) for i in range(12)]
    words = [item >> (32 * i) & 0xFFFF_FFFF for item in items for i in range(-(-bits // 32))]

    async def push(ctx):
        await send(ctx, dut.words, words, stalls)

    async def pull(ctx):
        assert await receive(ctx, dut.items, len(items), stalls) == items

    simulate(dut, push, pull)


@pytest.mark.parametrize("bits", [32, 64, 96, 512])
def test_assembler_takes_a_word_a_cycle(bits):
    dut = WordAssembler(bits)

    async def bench(ctx):
        ctx.set(dut.words.valid, 1)
        ctx.set(dut.items.ready, 1)
        for _ in range(100):
            assert ctx.get(dut.words.ready)
            await ctx.tick()

    simulate(dut, bench)


@pytest.mark.parametrize("bits", [32, 64, 512])
def test_room_promises_that_the_next_cycle_takes_a_word(bits):
    dut = WordAssembler(bits)

    async def bench(ctx):
        luck = random.Random(bits)
        promised = kept = 0
        for _ in range(2000):
            ctx.set(dut.words.valid, luck.random() < 0.8)
            ctx.set(dut.items.ready, luck.random() < 0.1)
            promised = ctx.get(dut.room)
            kept += promised
            await ctx.tick()
            assert ctx.get(dut.words.ready) or not promised
        assert 0 < kept < 2000

    simulate(dut, bench, deadline_cycles=3000)
