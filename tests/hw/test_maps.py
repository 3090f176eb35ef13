"""The memories: latency, sub-words, and the input ring's banks and accounting."""

import random

import pytest

from hw.maps import READ_LATENCY, BitMaps, InputRing, WordMap
from sim.bench import send, simulate


@pytest.mark.parametrize("bank_words", [8, 16, 64])
def test_word_map_reads_back_after_its_latency(bank_words, monkeypatch):
    monkeypatch.setattr(WordMap, "BANK_WORDS", bank_words)
    dut = WordMap(shape=18, depth=40)
    words = [random.Random(5).randrange(1 << 18) for _ in range(40)]

    async def bench(ctx):
        for address, word in enumerate(words):
            ctx.set(dut.write, 1)
            ctx.set(dut.write_address, address)
            ctx.set(dut.write_data, word)
            await ctx.tick()
        ctx.set(dut.write, 0)
        ctx.set(dut.write_data, 0)
        await ctx.tick().repeat(WordMap.WRITE_LATENCY - 1)
        found = []
        for address in range(40 + READ_LATENCY):
            ctx.set(dut.read_address, address % 40)
            found.append(ctx.get(dut.read_data))
            await ctx.tick()
        assert found[READ_LATENCY:] == words

    simulate(dut, bench)


def test_word_map_shows_a_word_once_it_is_written():
    dut = WordMap(shape=18, depth=40)

    async def bench(ctx):
        ctx.set(dut.read_address, 7)
        ctx.set(dut.write_address, 7)
        for word in (5, 6):
            ctx.set(dut.write, 1)
            ctx.set(dut.write_data, word)
            await ctx.tick()
            ctx.set(dut.write, 0)
            await ctx.tick().repeat(WordMap.WRITE_LATENCY - 1 + READ_LATENCY)
            assert ctx.get(dut.read_data) == word

    simulate(dut, bench)


@pytest.mark.parametrize(("word_bits", "lanes"), [(8, 8), (8, 4), (32, 8)])
def test_bit_maps_clear_what_stands_beside_sub_word_0(word_bits, lanes):
    dut = BitMaps(word_bits=word_bits, lanes=lanes, depth=16)
    parts = word_bits // lanes
    full = (1 << lanes) - 1

    async def write(ctx, sub_word, value):
        ctx.set(dut.write, 1)
        ctx.set(dut.write_address, 9)
        ctx.set(dut.write_sub_word, sub_word)
        ctx.set(dut.write_data, value)
        await ctx.tick()
        ctx.set(dut.write, 0)

    async def bench(ctx):
        ctx.set(dut.read_address, 9)
        latency = WordMap.WRITE_LATENCY - 1 + READ_LATENCY
        for i in range(parts):
            await write(ctx, i, full)
        await ctx.tick().repeat(latency)
        assert ctx.get(dut.read_data) == (1 << word_bits) - 1
        await write(ctx, parts - 1, full ^ 1)
        await ctx.tick().repeat(latency)
        assert ctx.get(dut.read_data) == (1 << word_bits) - 1 ^ 1 << (word_bits - lanes)
        await write(ctx, 0, 5)
        await ctx.tick().repeat(latency)
        assert ctx.get(dut.read_data) == 5

    simulate(dut, bench)


@pytest.mark.parametrize("stalls", ["none", "heavy"])
@pytest.mark.parametrize("taps", [1, 2, 3, 4])
@pytest.mark.parametrize("frame_bytes", [40, 49, 64])
def test_input_ring_serves_frames_one_after_the_other(taps, frame_bytes, stalls):
    dut = InputRing(depth=64, stem_taps=taps)
    luck = random.Random(6)
    size = -(-frame_bytes // 4) * 4
    frames = [bytes(luck.randrange(256) for _ in range(size)) for _ in range(5)]
    words = [
        int.from_bytes(frame[i : i + 4], "little") for frame in frames for i in range(0, size, 4)
    ]

    async def write(ctx):
        await send(ctx, dut.write, words, stalls)

    async def read(ctx):
        ctx.set(dut.frame_bytes, frame_bytes)
        ctx.set(dut.row_bytes, frame_bytes)
        ctx.set(dut.rows, 1)
        for frame in frames:
            await begin(ctx, dut)
            await ctx.tick().until(dut.ready)
            for _ in range(30):
                address = luck.randrange(frame_bytes - taps + 1)
                ctx.set(dut.read_address, address)
                await ctx.tick().repeat(READ_LATENCY)
                found = bytes(ctx.get(dut.read_data[t]) for t in range(taps))
                assert found == frame[address : address + taps]
            await release(ctx, dut)
        await begin(ctx, dut)
        await ctx.tick().repeat(30)
        assert not ctx.get(dut.ready)

    simulate(dut, write, read, deadline_cycles=20000)


@pytest.mark.parametrize("stalls", ["none", "heavy"])
@pytest.mark.parametrize("taps", [1, 3, 4])
@pytest.mark.parametrize("parts", [False, True])
@pytest.mark.parametrize(("rows", "row_bytes", "ahead", "stride"), [(9, 21, 5, 2), (7, 18, 4, 1)])
def test_input_ring_serves_frames_longer_than_itself(
    taps, rows, row_bytes, ahead, stride, parts, stalls
):
    """Three rows above the map, as under a 7x7 kernel; every row is read while it is wanted. In
    parts: there may be another layer before any row."""
    depth, pad = 128, 3
    assert rows * row_bytes > depth - 4
    dut = InputRing(depth=depth, stem_taps=taps)
    luck = random.Random(7)
    size = -(-rows * row_bytes // 4) * 4
    frames = [bytes(luck.randrange(256) for _ in range(size)) for _ in range(3)]
    words = [
        int.from_bytes(frame[i : i + 4], "little") for frame in frames for i in range(0, size, 4)
    ]

    async def write(ctx):
        await send(ctx, dut.write, words, stalls)

    async def read(ctx):
        for name, value in (
            ("frame_bytes", rows * row_bytes), ("row_bytes", row_bytes), ("rows", rows),
            ("rows_ahead", ahead),
        ):  # fmt: skip
            ctx.set(getattr(dut, name), value)
        for frame in frames:
            await begin(ctx, dut, row=-pad)
            for row in range(-pad, rows + pad - ahead + 1, stride):
                ctx.set(dut.row, row)
                if parts and luck.random() < 0.5:
                    await another_layer(ctx, dut)
                await ctx.tick().repeat(dut.READY_LATENCY)
                await ctx.tick().until(dut.ready)
                first, last = max(row, 0) * row_bytes, min(row + ahead, rows) * row_bytes
                for address in {first, last - taps, luck.randrange(first, last - taps + 1)}:
                    ctx.set(dut.read_address, address)
                    await ctx.tick().repeat(READ_LATENCY)
                    found = bytes(ctx.get(dut.read_data[t]) for t in range(taps))
                    assert found == frame[address : address + taps]
            await release(ctx, dut)

    simulate(dut, write, read, deadline_cycles=20000)


def test_input_ring_keeps_a_row_until_it_is_left():
    """A frame that is longer than the ring stops at its end; no row is ready too early."""
    dut = InputRing(depth=32, stem_taps=1)

    async def bench(ctx):
        ctx.set(dut.write.valid, 1)
        for name, value in (
            ("frame_bytes", 60), ("row_bytes", 10), ("rows", 6), ("rows_ahead", 3),
        ):  # fmt: skip
            ctx.set(getattr(dut, name), value)
        await begin(ctx, dut)
        cycles = 0
        while not ctx.get(dut.ready):
            cycles += 1
            await ctx.tick()
        assert cycles >= 30  # bytes of three rows, one a cycle
        await ctx.tick().repeat(60)
        assert not ctx.get(dut.write.ready)
        ctx.set(dut.row, 1)
        await ctx.tick().repeat(dut.READY_LATENCY)
        assert not ctx.get(dut.ready)
        await ctx.tick().until(dut.ready)

    simulate(dut, bench)


async def begin(ctx, dut, row=0):
    ctx.set(dut.start, 1)
    await ctx.tick()
    ctx.set(dut.start, 0)
    ctx.set(dut.row, row)
    ctx.set(dut.active, 1)
    await ctx.tick()


async def another_layer(ctx, dut):
    """Its descriptor stands there for a while, and then the stem's again."""
    names = ("frame_bytes", "row_bytes", "rows", "rows_ahead", "row")
    fields = {name: ctx.get(getattr(dut, name)) for name in names}
    ctx.set(dut.active, 0)
    await ctx.tick()
    for name in names:
        ctx.set(getattr(dut, name), 5)
    await ctx.tick().repeat(20)
    for name, value in fields.items():
        ctx.set(getattr(dut, name), value)
    await ctx.tick().repeat(2)
    ctx.set(dut.active, 1)
    await ctx.tick()


async def release(ctx, dut):
    ctx.set(dut.active, 0)
    ctx.set(dut.release, 1)
    await ctx.tick()
    ctx.set(dut.release, 0)


def test_input_ring_refuses_a_depth_that_its_addresses_cannot_wrap():
    with pytest.raises(ValueError, match=r"^Input ring depth must be a multiple of 32, not 50$"):
        InputRing(depth=50, stem_taps=1)
