"""The weight ring: order of the replays, whole sets, freeing, the latencies that it promises."""

import random
from itertools import pairwise

import pytest

from hw.weights import BITS_PER_COPY, WeightRing
from sim.bench import send, simulate

MAX_SET_WORDS = 9


def ring(depth, port_bits=16):
    return WeightRing(port_bits=port_bits, depth=depth, max_set_words=MAX_SET_WORDS)


async def start(ctx, dut, *, set_words, sets, blocks, tiles):
    ctx.set(dut.set_words, set_words)
    ctx.set(dut.sets, sets)
    ctx.set(dut.blocks, blocks)
    ctx.set(dut.tiles, tiles)
    await ctx.tick()
    ctx.set(dut.start, 1)
    await ctx.tick()
    ctx.set(dut.start, 0)


class Receiver:
    """The arrays: takes words with the cycles they come in, and frees each set in its time.

    ``wait`` gives the cycles from a set's announcement until it is freed.
    """

    def __init__(self, dut, wait):
        self.dut, self.wait = dut, wait
        self.words, self.arrived, self.announced, self.freed = [], [], [], []
        self.cycle = 0

    async def take(self, ctx, count):
        """``count`` words more."""
        while len(self.words) < count:
            await self.tick(ctx)

    async def tick(self, ctx):
        dut = self.dut
        due = self.announced[len(self.freed) :]
        free = bool(due) and self.cycle >= due[0] + self.wait()
        ctx.set(dut.freed, free)
        if free:
            self.freed.append(self.cycle)
        _, _, valid, loaded = await ctx.tick().sample(dut.valid, dut.loaded)
        if loaded:
            self.announced.append(self.cycle)
        self.cycle += 1
        if valid:
            self.arrived.append(self.cycle)
            self.words.append(ctx.get(dut.payload))


@pytest.mark.parametrize("stalls", ["none", "light", "heavy"])
@pytest.mark.parametrize("depth", [12, 16])
def test_replays_every_tile_for_every_block(depth, stalls):
    layers = [(3, 1, 4, 2), (1, 12, 1, 3), (1, 1, 1, 1), (5, 1, 3, 2), (6, 2, 2, 1), (2, 5, 3, 4),
              (1, 1, 3, 5), (1, 1, 1, 7), (9, 1, 2, 2), (1, 2, 2, 3)]  # fmt: skip
    dut = ring(depth)
    written, expected = [], []
    for number, (set_words, sets, blocks, tiles) in enumerate(layers):
        for tile in range(tiles):
            content = [1000 * number + 100 * tile + i for i in range(set_words * sets)]
            written += content
            expected += content * blocks
    rng = random.Random(4)
    receiver = Receiver(dut, lambda: 2 if stalls == "none" else rng.randrange(2, 20))

    async def write(ctx):
        await send(ctx, dut.write, written, stalls, seed=3)

    async def read(ctx):
        taken = set_count = 0
        for set_words, sets, blocks, tiles in layers:
            await start(ctx, dut, set_words=set_words, sets=sets, blocks=blocks, tiles=tiles)
            taken += set_words * sets * blocks * tiles
            await receiver.take(ctx, taken)
            set_count += sets * blocks * tiles
            while len(receiver.freed) < set_count:
                await receiver.tick(ctx)
        for _ in range(30):
            await receiver.tick(ctx)

    simulate(dut, write, read, deadline_cycles=20000)
    assert receiver.words == expected

    # What it promises about each set.
    first = 0
    number = 0
    for set_words, sets, blocks, tiles in layers:
        for _ in range(sets * blocks * tiles):
            arrived = receiver.arrived[first : first + set_words]
            assert arrived == list(range(arrived[0], arrived[0] + set_words)), "a gap"
            assert arrived[-1] <= receiver.announced[number] + dut.LOADED_LATENCY
            if number:
                assert arrived[0] >= receiver.freed[number - 1] + dut.FREED_LATENCY
            first += set_words
            number += 1
    assert len(receiver.announced) == number


def test_wide_words_come_from_several_memories():
    port_bits = 2 * BITS_PER_COPY + 8
    dut = ring(4, port_bits)
    words = [random.Random(7).getrandbits(port_bits) for _ in range(4)]
    receiver = Receiver(dut, lambda: 2)

    async def bench(ctx):
        await send(ctx, dut.write, words)
        await start(ctx, dut, set_words=2, sets=2, blocks=1, tiles=1)
        await receiver.take(ctx, 4)

    simulate(dut, bench)
    assert receiver.words == words


def test_sets_follow_each_other_within_a_cycle():
    """Where the arrays begin a set as soon as they may: a set of W words every W + 1 cycles.

    One more where a round begins anew.
    """
    dut = ring(16)
    receiver = Receiver(dut, lambda: 1 + WeightRing.LOADED_LATENCY - WeightRing.FREED_LATENCY)

    async def bench(ctx):
        await send(ctx, dut.write, range(15))
        await start(ctx, dut, set_words=5, sets=3, blocks=2, tiles=1)
        await receiver.take(ctx, 30)

    simulate(dut, bench)
    firsts = receiver.arrived[::5]
    paces = [after - before for before, after in pairwise(firsts)]
    assert paces == [6, 6, 7, 6, 6]


def test_a_set_waits_until_all_of_it_is_there():
    dut = ring(16)
    receiver = Receiver(dut, lambda: 2)

    async def bench(ctx):
        await start(ctx, dut, set_words=3, sets=1, blocks=1, tiles=1)
        await send(ctx, dut.write, [5, 6])
        for _ in range(20):
            await receiver.tick(ctx)
        assert receiver.words == receiver.announced == []
        await send(ctx, dut.write, [7])
        await receiver.take(ctx, 3)
        assert receiver.words == [5, 6, 7]

    simulate(dut, bench)


def test_a_full_ring_accepts_nothing_until_the_last_round():
    dut = ring(4, 8)
    receiver = Receiver(dut, lambda: 2)

    async def write(ctx):
        await send(ctx, dut.write, [0, 1, 2, 3, 8, 9])

    async def read(ctx):
        await ctx.tick().repeat(6)
        await start(ctx, dut, set_words=2, sets=2, blocks=2, tiles=1)
        await receiver.take(ctx, 4)
        assert not ctx.get(dut.write.ready)
        await receiver.take(ctx, 6)
        assert ctx.get(dut.write.ready)
        for _ in range(30):
            await receiver.tick(ctx)
        assert receiver.words == [0, 1, 2, 3, 0, 1, 2, 3]
        # The next layer finds what was written behind them.
        await start(ctx, dut, set_words=2, sets=1, blocks=1, tiles=1)
        await receiver.take(ctx, 10)
        assert receiver.words[8:] == [8, 9]

    simulate(dut, write, read)
