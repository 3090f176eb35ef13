# amaranth: UnusedElaboratable=no
"""Sources: order, rate, rewinding in mid-stream, back-pressure, exact error texts."""

import pytest

from hw.source import LinkSource, RamSource, SourceMux
from isa.registers import IMAGE_ADDRESS_BITS, Source
from sim.bench import receive, send, simulate

WORDS = [(7 * i + 3) * 0x1234567 & 0xFFFF_FFFF for i in range(100)]


async def rewind(ctx, image, address):
    ctx.set(image.address, address)
    ctx.set(image.rewind, 1)
    await ctx.tick()
    ctx.set(image.rewind, 0)


@pytest.mark.parametrize("stalls", ["none", "light", "heavy"])
def test_ram_streams_from_wherever_it_is_rewound_to(stalls):
    dut = RamSource(words=100, init=WORDS)

    async def bench(ctx):
        for seed, (address, count) in enumerate([(0, 30), (17, 5), (17, 0), (60, 40), (99, 1)]):
            await rewind(ctx, dut.image, address)
            got = await receive(ctx, dut.image.words, count, stalls, seed=seed)
            assert got == WORDS[address : address + count]
            for _ in range(seed):  # rewinds find the pipeline filled to different degrees
                await ctx.tick()

    simulate(dut, bench)


def test_ram_streams_across_its_banks():
    """One word of a last, shallow bank included."""
    words = 2 * RamSource.BANK_WORDS + 3
    content = [i * 0x9E37_79B9 & 0xFFFF_FFFF for i in range(words)]
    dut = RamSource(words=words, init=content[:-2])

    async def bench(ctx):
        ctx.set(dut.write.valid, 1)
        for index in (5, RamSource.BANK_WORDS, words - 2, words - 1, words, words + 3):
            ctx.set(dut.write.address, index)
            ctx.set(dut.write.data, content[index] if index < words else 0)
            await ctx.tick()
        ctx.set(dut.write.valid, 0)
        for address in range(0, words, RamSource.BANK_WORDS):
            start = max(address - 4, 0)
            await rewind(ctx, dut.image, start)
            count = min(12, words - start)
            got = await receive(ctx, dut.image.words, count, "light", seed=address)
            assert got == content[start : start + count]

    simulate(dut, bench)


def test_ram_gives_a_word_a_cycle_after_its_latency():
    dut = RamSource(words=100, init=WORDS)

    async def bench(ctx):
        ctx.set(dut.image.words.ready, 1)
        await rewind(ctx, dut.image, 3)
        for cycle in range(1, 60):
            _, _, valid, word = await ctx.tick().sample(
                dut.image.words.valid, dut.image.words.payload
            )
            assert valid == (cycle >= dut.LATENCY)
            if valid:
                assert word == WORDS[3 + cycle - dut.LATENCY]

    simulate(dut, bench)


def test_ram_ends_with_its_last_word():
    dut = RamSource(words=20, init=WORDS[:20])

    async def bench(ctx):
        for address in (15, 20, 21):
            await rewind(ctx, dut.image, address)
            assert await receive(ctx, dut.image.words, max(20 - address, 0)) == WORDS[address:20]
            ctx.set(dut.image.words.ready, 1)
            for _ in range(12):
                _, _, valid = await ctx.tick().sample(dut.image.words.valid)
                assert not valid

    simulate(dut, bench)


def test_ram_is_silent_before_the_first_rewind_and_keeps_what_is_written():
    dut = RamSource(words=50)

    async def bench(ctx):
        ctx.set(dut.write.valid, 1)
        for index, word in enumerate(WORDS[:70]):  # those beyond the memory go nowhere
            ctx.set(dut.write.address, index)
            ctx.set(dut.write.data, word)
            _, _, valid = await ctx.tick().sample(dut.image.words.valid)
            assert not valid
        ctx.set(dut.write.valid, 0)
        await rewind(ctx, dut.image, 0)
        assert await receive(ctx, dut.image.words, 50, "light") == WORDS[:50]

    simulate(dut, bench)


@pytest.mark.parametrize("stalls", ["none", "light", "heavy"])
def test_link_passes_words_on_in_order(stalls):
    dut = LinkSource()

    async def push(ctx):
        await send(ctx, dut.stream, WORDS, stalls, seed=5)

    async def pull(ctx):
        assert await receive(ctx, dut.image.words, 100, stalls, seed=6) == WORDS

    simulate(dut, push, pull)


def test_link_drops_what_came_before_a_rewind():
    dut = LinkSource()

    async def bench(ctx):
        await send(ctx, dut.stream, WORDS[:10])
        await rewind(ctx, dut.image, 17)
        await send(ctx, dut.stream, WORDS[10:20])
        assert await receive(ctx, dut.image.words, 10) == WORDS[10:20]

    simulate(dut, bench)


@pytest.mark.parametrize("select", Source)
def test_mux_connects_one_source(select):
    dut = SourceMux(sources=Source)
    here, *others = sorted(Source, key=lambda source: source is not select)
    here, *others = (getattr(dut, source.name.lower()) for source in (here, *others))

    async def bench(ctx):
        ctx.set(dut.select, select)
        await ctx.tick()
        ctx.set(here.words.valid, 1)
        ctx.set(here.words.payload, 0xAAAA)
        for there in others:
            ctx.set(there.words.payload, 0x5555)
            ctx.set(there.words.valid, 1)
        await ctx.tick().repeat(3)  # a word before the rewind, and one behind it
        assert (ctx.get(dut.image.words.valid), ctx.get(dut.image.words.payload)) == (1, 0xAAAA)
        await rewind(ctx, dut.image, 17)
        assert (ctx.get(here.rewind), ctx.get(here.address)) == (1, 17)
        for there in others:
            assert (ctx.get(there.rewind), ctx.get(there.words.ready)) == (0, 0)
        # The word that waits in this cycle is an old one.
        assert (ctx.get(here.words.ready), ctx.get(dut.image.words.valid)) == (0, 0)
        await ctx.tick()
        ctx.set(here.words.payload, 0xBBBB)
        assert (ctx.get(here.words.ready), ctx.get(dut.image.words.valid)) == (1, 0)
        await ctx.tick()
        ctx.set(here.words.valid, 0)
        assert (ctx.get(dut.image.words.valid), ctx.get(dut.image.words.payload)) == (1, 0xBBBB)
        ctx.set(dut.image.words.ready, 1)
        for _ in range(3):
            await ctx.tick()
            assert ctx.get(dut.image.words.valid) == 0

    simulate(dut, bench)


@pytest.mark.parametrize("select", Source)
def test_mux_writes_into_the_memory_of_one_source(select):
    dut = SourceMux(sources=Source)
    memories = {Source.RAM: dut.write_ram, Source.SDRAM: dut.write_sdram}

    async def bench(ctx):
        ctx.set(dut.select, select)
        for member, value in {"valid": 1, "address": 17, "data": 0xAAAA}.items():
            ctx.set(getattr(dut.write, member), value)
        for ready in (0, 1):
            for source, port in memories.items():
                ctx.set(port.ready, ready if source is select else not ready)
            await ctx.delay(0)
            # What goes nowhere does not wait.
            assert ctx.get(dut.write.ready) == (ready if select in memories else 1)
            for source, port in memories.items():
                assert ctx.get(port.valid) == (source is select)
                assert (ctx.get(port.address), ctx.get(port.data)) == (17, 0xAAAA)

    simulate(dut, bench)


def test_mux_without_the_source_that_is_selected_is_silent():
    dut = SourceMux(sources=[Source.LINK])
    assert set(dut.signature.members) == {"select", "write", "image", "link"}

    async def bench(ctx):
        ctx.set(dut.select, Source.SDRAM)
        ctx.set(dut.link.words.valid, 1)
        ctx.set(dut.write.valid, 1)
        await ctx.tick().repeat(3)
        assert ctx.get(dut.image.words.valid) == 0
        assert ctx.get(dut.write.ready) == 1

    simulate(dut, bench)


@pytest.mark.parametrize("words", [0, (1 << IMAGE_ADDRESS_BITS) + 1, "many"])
def test_ram_size_is_checked(words):
    with pytest.raises(ValueError) as caught:
        RamSource(words=words)
    assert str(caught.value) == (
        f"RAM source words must be in 1..{1 << IMAGE_ADDRESS_BITS}, not {words!r}"
    )


def test_ram_init_must_fit():
    with pytest.raises(ValueError) as caught:
        RamSource(words=3, init=[1, 2, 3, 4])
    assert str(caught.value) == "RAM source init must be at most 3 words, not 4"
