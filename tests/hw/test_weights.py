"""The weight ring: order of the replays, freeing, back-pressure."""

import pytest

from hw.weights import WeightRing
from sim.bench import receive, send, simulate


async def start(ctx, dut, *, words, blocks, tiles):
    ctx.set(dut.words, words)
    ctx.set(dut.blocks, blocks)
    ctx.set(dut.tiles, tiles)
    await ctx.tick()
    ctx.set(dut.start, 1)
    await ctx.tick()
    ctx.set(dut.start, 0)


@pytest.mark.parametrize("stalls", ["none", "light", "heavy"])
@pytest.mark.parametrize("depth", [12, 16])
def test_replays_every_tile_for_every_block(depth, stalls):
    layers = [(3, 4, 2), (12, 1, 3), (1, 1, 1), (5, 3, 2), (12, 2, 1)]  # words, blocks, tiles
    dut = WeightRing(port_bits=16, depth=depth)
    written, expected = [], []
    for number, (words, blocks, tiles) in enumerate(layers):
        for tile in range(tiles):
            content = [1000 * number + 100 * tile + i for i in range(words)]
            written += content
            expected.append(content * blocks)

    async def write(ctx):
        await send(ctx, dut.write, written, stalls, seed=3)

    async def read(ctx):
        left = list(expected)
        for words, blocks, tiles in layers:
            await start(ctx, dut, words=words, blocks=blocks, tiles=tiles)
            for _ in range(tiles):
                right = left.pop(0)
                assert await receive(ctx, dut.read, len(right), stalls, seed=4) == right
        ctx.set(dut.read.ready, 1)
        for _ in range(20):
            _, _, valid = await ctx.tick().sample(dut.read.valid)
            assert not valid

    simulate(dut, write, read, deadline_cycles=20000)


def test_reads_a_word_a_cycle():
    dut = WeightRing(port_bits=8, depth=16)

    async def bench(ctx):
        await send(ctx, dut.write, range(8))
        await start(ctx, dut, words=8, blocks=3, tiles=1)
        ctx.set(dut.read.ready, 1)
        await ctx.tick()
        for i in range(24):
            _, _, valid, payload = await ctx.tick().sample(dut.read.valid, dut.read.payload)
            assert (valid, payload) == (1, i % 8)

    simulate(dut, bench)


def test_a_full_ring_accepts_nothing_until_the_last_round():
    dut = WeightRing(port_bits=8, depth=4)

    async def bench(ctx):
        await send(ctx, dut.write, range(4))
        await start(ctx, dut, words=4, blocks=2, tiles=1)
        assert await receive(ctx, dut.read, 3) == [0, 1, 2]
        assert not ctx.get(dut.write.ready)
        assert await receive(ctx, dut.read, 3) == [3, 0, 1]
        assert ctx.get(dut.write.ready)

    simulate(dut, bench)
