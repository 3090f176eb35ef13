"""Drain, writer and reducer against the loops that they unroll."""

import random

import pytest
from amaranth import signed
from amaranth.lib import data

from hw.drain import Drain, Reducer, Writer
from isa import checked
from isa.layer import LAYER, LayerKind
from sim.bench import simulate

BLANK = {name: 0 for name, _ in LAYER}
LANES, POST_LANES = 8, 2
GROUPS = LANES // POST_LANES


def layer(kind, **fields):
    return LAYER.from_bits(checked.encode(LAYER, BLANK | {"kind": kind.value} | fields))


def convolution(kind=LayerKind.BINARY, **fields):
    return layer(
        kind,
        **{
            "tiles": 3, "blocks": 2, "block": 4, "last_block": 2, "out_width": 3, "out_height": 2,
            "last_groups": 3, "dst_base": 11, "dst_row": 60, "dst_pixel": 14,
            "bit_base": 70, "bit_pixel": 2, "write_bits": 1,
        } | fields,
    )  # fmt: skip


def words(tiles, height, width, last_groups):
    """(tile, i, j, group) of a convolution's results in their order."""
    for t in range(tiles):
        for i in range(height):
            for j in range(width):
                for g in range(last_groups if t == tiles - 1 else GROUPS):
                    yield t, i, j, g


async def start(ctx, dut):
    await ctx.tick().repeat(2)
    ctx.set(dut.start, 1)
    await ctx.tick()
    ctx.set(dut.start, 0)


@pytest.mark.parametrize("seed", range(4))
def test_drain_reads_what_has_been_written(seed):
    dut = Drain(groups=GROUPS)
    luck = random.Random(seed)
    expected = [
        ((i * 3 + j) % 4, g, 11 + 60 * i + 14 * j + GROUPS * t + g)
        for t, i, j, g in words(3, 2, 3, 3)
    ]
    blocks = [4, 2] * 3
    found, places, freed, tiles = [], [], 0, 0

    async def bench(ctx):
        nonlocal freed, tiles
        issued = 0
        ctx.set(dut.layer, convolution())
        await start(ctx, dut)
        begun = written = 0
        left = list(blocks)
        while len(places) < len(expected):
            if not written and left and begun == freed:  # the output RAM is free
                written, begun = left.pop(0), begun + 1
            write = written > 0 and luck.random() < 0.7
            written -= write
            ctx.set(dut.written, write)
            ctx.set(dut.params_ready, luck.random() < 0.8)
            _, _, issue, pixel, group, address, free, done = await ctx.tick().sample(
                dut.issue, dut.pixel, dut.group, dut.address, dut.freed, dut.tile_done
            )
            if issued:  # PLACE_LATENCY is 1
                places.append((pixel, group))
            if issued := issue:
                found.append(address)
            assert issue or not (free or done)
            freed += free
            tiles += done

    simulate(dut, bench, deadline_cycles=3000)
    assert [(*place, address) for place, address in zip(places, found, strict=True)] == expected
    assert (freed, tiles) == (len(blocks), 3)


def test_drain_rests_between_tiles():
    dut = Drain(groups=GROUPS)

    async def bench(ctx):
        ctx.set(dut.layer, convolution(tiles=2, blocks=1, last_block=1, out_width=1, out_height=1))
        await start(ctx, dut)
        ctx.set(dut.params_ready, 1)
        ctx.set(dut.written, 1)
        await ctx.tick().repeat(2)
        ctx.set(dut.written, 0)
        await ctx.tick().until(dut.tile_done)
        for _ in range(Drain.TILE_GAP):
            _, _, issue = await ctx.tick().sample(dut.issue)
            assert not issue
        _, _, issue = await ctx.tick().sample(dut.issue)
        assert issue

    simulate(dut, bench)


RESIDUAL = data.ArrayLayout(signed(9), POST_LANES)


async def drive_writer(ctx, dut, configuration, count, luck):
    """Sends ``count`` words; returns the writes: residuals, bits, features and logits."""
    ctx.set(dut.layer, configuration)
    await start(ctx, dut)
    sent, writes = [], {"residual": [], "bits": [], "feature": [], "logits": []}
    done = False
    while not done:
        valid = len(sent) < count and luck.random() < 0.6
        word = ([luck.randrange(-256, 256) for _ in range(POST_LANES)], luck.randrange(4))
        ctx.set(dut.input, {"valid": valid, "residual": word[0], "bits": word[1]})
        if valid:
            sent.append(word)
        await ctx.tick()
        assert Writer.LATENCY == 1
        if ctx.get(dut.write_residual):
            values = [ctx.get(dut.residual[lane]) for lane in range(POST_LANES)]
            writes["residual"].append((ctx.get(dut.residual_address), values))
        if ctx.get(dut.write_bits):
            place = ctx.get(dut.bit_address), ctx.get(dut.sub_word)
            writes["bits"].append((place, ctx.get(dut.bits)))
        for name in ("feature", "logits"):
            if ctx.get(getattr(dut, f"write_{name}")):
                writes[name].append(ctx.get(dut.word))
        done = ctx.get(dut.done)
    ctx.set(dut.input.valid, 0)
    await ctx.tick()
    assert len(sent) == count
    return sent, writes


def writer():
    return Writer(post_lanes=POST_LANES, lanes=LANES, sub_words=2, residual_shape=RESIDUAL)


@pytest.mark.parametrize("pooled", [0, 1])
def test_writer_stores_residuals_and_bits(pooled):
    dut = writer()
    luck = random.Random(7)
    size = (1 + pooled) * 3, (1 + pooled) * 2

    async def bench(ctx):
        for _ in range(2):
            configuration = convolution(
                LayerKind.STEM, pooled=pooled, out_width=size[0], out_height=size[1]
            )
            places = list(words(3, 2, 3, 3))
            sent, writes = await drive_writer(ctx, dut, configuration, len(places), luck)
            assert writes["residual"] == [
                (11 + 60 * i + 14 * j + GROUPS * t + g, residual)
                for (t, i, j, g), (residual, _) in zip(places, sent, strict=True)
            ]
            expected = {}
            for (t, i, j, g), (_, bits) in zip(places, sent, strict=True):
                place = 70 + 2 * (3 * i + j) + t // 2, t % 2
                expected[place] = expected.get(place, 0) | bits << (POST_LANES * g)
            assert dict(writes["bits"]) == expected
            assert len(writes["bits"]) == len(expected)
            assert not writes["feature"]
            assert not writes["logits"]

    simulate(dut, bench, deadline_cycles=2000)


def test_writer_can_leave_the_bits_out():
    dut = writer()

    async def bench(ctx):
        configuration = convolution(tiles=1, write_bits=0)
        _, writes = await drive_writer(ctx, dut, configuration, 18, random.Random(8))
        assert len(writes["residual"]) == 18
        assert not writes["bits"]

    simulate(dut, bench)


@pytest.mark.parametrize(
    ("kind", "name", "count"),
    [
        (LayerKind.POOL, "residual", 2 * 3 * 5),
        (LayerKind.MEAN, "feature", 5),
        (LayerKind.CLASSIFIER, "logits", 4 + 4 + 3),
    ],
)
def test_writer_routes_by_kind(kind, name, count):
    dut = writer()
    size = {"out_width": 1, "out_height": 1} if kind is LayerKind.CLASSIFIER else {}

    async def bench(ctx):
        for _ in range(2):
            configuration = convolution(kind, inner=5, write_bits=0, **size)
            _, writes = await drive_writer(ctx, dut, configuration, count, random.Random(9))
            assert [key for key, value in writes.items() if value] == [name]
            if name == "residual":
                assert [address for address, _ in writes[name]] == [
                    11 + 60 * i + 14 * j + g for i in range(2) for j in range(3) for g in range(5)
                ]
            else:
                assert writes[name] == list(range(11, 11 + count))

    simulate(dut, bench, deadline_cycles=2000)


@pytest.mark.parametrize("kind", [LayerKind.POOL, LayerKind.MEAN])
def test_reducer_reads_sum_after_sum(kind):
    dut = Reducer()
    height, width, inner, base, row, pixel = 2, 3, 5, 4, 100, 9
    if kind is LayerKind.POOL:
        sums = [
            [
                base + (2 * i + di) * row + (2 * j + dj) * pixel + g
                for di in range(2)
                for dj in range(2)
            ]
            for i in range(height)
            for j in range(width)
            for g in range(inner)
        ]
    else:
        sums = [
            [base + i * row + j * pixel + g for i in range(height) for j in range(width)]
            for g in range(inner)
        ]
    expected = [
        (address, k == 0, k == len(group) - 1) for group in sums for k, address in enumerate(group)
    ]
    configuration = layer(
        kind, src_base=base, src_row=row, src_pixel=pixel, inner=inner,
        out_width=width, out_height=height,
    )  # fmt: skip

    async def bench(ctx):
        ctx.set(dut.layer, configuration)
        for _ in range(2):
            await start(ctx, dut)
            found = []
            for cycle in range(len(expected) + 5):
                assert ctx.get(dut.working) == (cycle < len(expected))
                if ctx.get(dut.read):
                    place = ctx.get(dut.address), bool(ctx.get(dut.first)), bool(ctx.get(dut.last))
                    found.append(place)
                await ctx.tick()
            assert found == expected

    simulate(dut, bench)
