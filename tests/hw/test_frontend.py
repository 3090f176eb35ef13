# amaranth: UnusedElaboratable=no
"""Control, loader and sources together: frames over the bus, every error, and the way back."""

import pytest

from isa import registers
from isa.image import HEADER_WORDS
from isa.registers import ErrorCode, Register, Source, State
from sim.bench import receive, simulate
from tests.hw.frontend import Content, Frontend, command, error, raw, read, settle, state, write
from tests.hw.test_loader import rebuilt

CONTENT = Content(layers=4)
WORDS = CONTENT.image.words
ITEMS = {
    **CONTENT.delivered(),
}


def takers(dut, frames, stalls):
    """Test benches that take `frames` whole frames and compare every item."""

    def taker(name):
        async def take(ctx):
            expected = ITEMS[name] * frames
            port = getattr(dut, name)
            items = await receive(ctx, port, len(expected), stalls, seed=len(name), name=name)
            assert [raw(item) for item in items] == expected

        take.__name__ = name
        return take

    return [taker(name) for name in ITEMS]


def drains(dut, done):
    """A background-like bench that takes whatever comes until `done` is not empty."""

    async def drain(ctx):
        for name in ITEMS:
            ctx.set(getattr(dut, name).ready, 1)
        while not done:
            await ctx.tick()

    return drain


async def frame_finished(ctx, dut):
    """Plays the core: finishes the frame once its stream is through."""
    while not ctx.get(dut.frame_ok):
        await ctx.tick()
    ctx.set(dut.frame_done, 1)
    await ctx.tick()
    ctx.set(dut.frame_done, 0)


@pytest.mark.parametrize("stalls", ["none", "light", "heavy"])
def test_frames_from_the_ram(stalls):
    dut = Frontend()

    async def bench(ctx):
        await write(ctx, dut.bus, Register.IMAGE, *WORDS)
        await command(ctx, dut.bus, "check")
        assert await settle(ctx, dut.bus) == State.READY
        assert await read(ctx, dut.bus, Register.CLASSES) == 10
        for count in (1, 2, 3):
            await command(ctx, dut.bus, "start")
            await frame_finished(ctx, dut)
            assert await settle(ctx, dut.bus) == State.DONE
            assert await read(ctx, dut.bus, Register.FRAMES) == count

    simulate(dut, bench, *takers(dut, 3, stalls), deadline_cycles=20_000)


@pytest.mark.parametrize("stalls", ["none", "heavy"])
def test_frames_from_the_link(stalls):
    dut = Frontend()

    async def bench(ctx):
        await write(ctx, dut.bus, Register.SOURCE, Source.LINK.value)
        await write(ctx, dut.bus, Register.STREAM, 1, 2, 3)  # stale: dropped by the check
        await command(ctx, dut.bus, "check")
        await write(ctx, dut.bus, Register.STREAM, *WORDS)
        assert await settle(ctx, dut.bus) == State.READY
        for _ in range(2):
            await command(ctx, dut.bus, "start")
            await write(ctx, dut.bus, Register.STREAM, *WORDS[HEADER_WORDS:])
            await frame_finished(ctx, dut)
            assert await settle(ctx, dut.bus) == State.DONE

    simulate(dut, bench, *takers(dut, 2, stalls), deadline_cycles=20_000)


def test_a_pre_filled_image_needs_no_loading():
    dut = Frontend(init=WORDS)

    async def bench(ctx):
        await command(ctx, dut.bus, "check")
        assert await settle(ctx, dut.bus) == State.READY

    simulate(dut, bench)


def corrupt(index, bit):
    return [word ^ (1 << bit if i == index else 0) for i, word in enumerate(WORDS)]


BAD_IMAGES = {
    ErrorCode.MAGIC: corrupt(0, 5),
    ErrorCode.IMAGE_VERSION: rebuilt(WORDS, version=9),
    ErrorCode.FOREIGN_GEOMETRY: rebuilt(WORDS, geometry=1),
    ErrorCode.HEADER_CRC: corrupt(8, 0),
    ErrorCode.PACKET: corrupt(HEADER_WORDS, 9),
    ErrorCode.FRAME_CRC: corrupt(len(WORDS) - 4, 31),
    ErrorCode.WATCHDOG: WORDS[:-1],  # from the link: the last word never comes
}


@pytest.mark.parametrize(
    ("source", "code"),
    [
        (source, code)
        for source in (Source.RAM, Source.LINK)
        for code in BAD_IMAGES
        # a memory always answers
        if (source, code) != (Source.RAM, ErrorCode.WATCHDOG)
    ],
)
def test_a_bad_image_is_refused_and_the_next_one_works(source, code):
    dut = Frontend(watchdog_cycles=100)
    done = []

    async def load(ctx, words):
        if source is Source.RAM:
            await write(ctx, dut.bus, Register.IMAGE, *words)
            await command(ctx, dut.bus, "check")
        else:
            await write(ctx, dut.bus, Register.SOURCE, Source.LINK.value)
            await command(ctx, dut.bus, "check")
            await write(ctx, dut.bus, Register.STREAM, *words)
        return await settle(ctx, dut.bus)

    async def bench(ctx):
        assert await load(ctx, BAD_IMAGES[code]) == State.ERROR
        assert await error(ctx, dut.bus) == code
        await command(ctx, dut.bus, "start")
        assert await error(ctx, dut.bus) == ErrorCode.NOT_READY
        assert await load(ctx, WORDS) == State.READY
        await command(ctx, dut.bus, "start")
        if source is Source.LINK:
            await write(ctx, dut.bus, Register.STREAM, *WORDS[HEADER_WORDS:])
        await frame_finished(ctx, dut)
        assert await settle(ctx, dut.bus) == State.DONE
        done.append(True)

    simulate(dut, bench, drains(dut, done), deadline_cycles=20_000)


@pytest.mark.parametrize(
    ("index", "code"),
    [(HEADER_WORDS, ErrorCode.PACKET), (len(WORDS) - 1, ErrorCode.FRAME_CRC)],
)
def test_an_image_that_goes_bad_after_the_check_stops_the_frame(index, code):
    """Sent over the link, as a write to the memory would already ask for a new check."""
    dut = Frontend()
    done = []

    async def bench(ctx):
        await write(ctx, dut.bus, Register.SOURCE, Source.LINK.value)
        await command(ctx, dut.bus, "check")
        await write(ctx, dut.bus, Register.STREAM, *WORDS)
        assert await settle(ctx, dut.bus) == State.READY
        await command(ctx, dut.bus, "start")
        await write(ctx, dut.bus, Register.STREAM, *corrupt(index, 3)[HEADER_WORDS:])
        assert await settle(ctx, dut.bus) == State.ERROR
        assert await error(ctx, dut.bus) == code
        assert not ctx.get(dut.frame_ok)
        assert await read(ctx, dut.bus, Register.FRAMES) == 0
        done.append(True)

    simulate(dut, bench, drains(dut, done), deadline_cycles=20_000)


def test_an_abort_in_mid_frame_leaves_nothing_behind():
    """A frame stuck at every depth of its stream; the next one is whole."""
    dut = Frontend(init=WORDS)

    async def bench(ctx):
        ctx.set(dut.weights.ready, 1)
        for taken in (0, 1, 5, 9):
            await command(ctx, dut.bus, "check")
            assert await settle(ctx, dut.bus) == State.READY
            await command(ctx, dut.bus, "start")
            await receive(ctx, dut.params, taken)
            await command(ctx, dut.bus, "abort")
            await ctx.tick()
            while ctx.get(dut.abort):
                await ctx.tick()
            for _ in range(10):
                _, _, *valid = await ctx.tick().sample(
                    dut.descriptor.valid, dut.params.valid, dut.weights.valid
                )
                assert not any(valid)
            assert await state(ctx, dut.bus) == State.IDLE
        await command(ctx, dut.bus, "check")
        assert await settle(ctx, dut.bus) == State.READY
        await command(ctx, dut.bus, "start")
        got = {name: [] for name in ITEMS}
        for name in ITEMS:
            ctx.set(getattr(dut, name).ready, 1)
        while any(len(got[name]) < len(ITEMS[name]) for name in ITEMS):
            ports = [getattr(dut, name) for name in ITEMS]
            samples = [member for port in ports for member in (port.valid, port.payload)]
            _, _, *values = await ctx.tick().sample(*samples)
            for name, valid, payload in zip(ITEMS, values[::2], values[1::2], strict=True):
                if valid:
                    got[name].append(raw(payload))
        assert got == ITEMS

    simulate(dut, bench, deadline_cycles=20_000)


def test_a_core_that_does_not_take_its_weights_is_found_by_the_watchdog():
    dut = Frontend(init=WORDS, watchdog_cycles=100)

    async def bench(ctx):
        await command(ctx, dut.bus, "check")
        assert await settle(ctx, dut.bus) == State.READY
        await command(ctx, dut.bus, "start")
        assert await settle(ctx, dut.bus) == State.ERROR
        assert await error(ctx, dut.bus) == ErrorCode.WATCHDOG

    simulate(dut, bench)


def test_every_error_code_is_covered():
    elsewhere = {ErrorCode.NONE, ErrorCode.NOT_READY, ErrorCode.NO_MEMORY}
    assert {*BAD_IMAGES, *elsewhere} == set(registers.ErrorCode)
