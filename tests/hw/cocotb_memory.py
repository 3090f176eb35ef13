"""cocotb benches of the memory system with its chip: the core's side is played in Python."""

import json
import os
import random

import cocotb
from cocotb.triggers import FallingEdge, ReadOnly, RisingEdge


def word(address):
    """The image's word at that address, as the preloaded file has it."""
    return (address * 0x9E37_79B1 + 0x1234_5678) & 0xFFFF_FFFF


def options():
    return json.loads(os.environ["MEMORY_OPTIONS"])


class Core:
    """Drives every port for one cycle of the core at a time, and remembers what was transferred.

    What is to be sent waits in lists: `writes` (address, word) and `uploads`. `image_stall`,
    `frame_stall` and `upload_stall` are the parts of the cycles in which that end rests. An offered
    word that is withdrawn or changed fails the test, unless a rewind or an abort came between.
    """

    def __init__(self, dut, luck):
        self.dut = dut
        self.luck = luck
        self.image, self.frames = [], []
        self.writes, self.uploads, self.sent = [], [], []
        self.image_stall = self.frame_stall = self.upload_stall = 0.0
        self.image_room = self.frame_room = float("inf")  # words to be taken
        self._held = [None, None]
        for name in ("image_write__valid", "image__rewind", "image__words__ready", "input__valid",
                     "frames__ready", "abort", "image_write__address", "image_write__data",
                     "image__address", "input__payload"):  # fmt: skip
            getattr(dut, name).value = 0

    async def start(self):
        await FallingEdge(self.dut.rst)
        await FallingEdge(self.dut.clk)

    async def ready(self):
        if not self.dut.ready.value:
            await RisingEdge(self.dut.ready)
        await FallingEdge(self.dut.clk)

    async def cycle(self, *, rewind=None, abort=False):
        dut, chance = self.dut, self.luck.random
        dut.image__rewind.value = rewind is not None
        dut.image__address.value = self.luck.getrandbits(22) if rewind is None else rewind
        dut.abort.value = abort
        take_image = len(self.image) < self.image_room and chance() >= self.image_stall
        take_frame = len(self.frames) < self.frame_room and chance() >= self.frame_stall
        dut.image__words__ready.value = take_image
        dut.frames__ready.value = take_frame
        dut.image_write__valid.value = bool(self.writes)
        if self.writes:
            dut.image_write__address.value, dut.image_write__data.value = self.writes[0]
        upload = self.uploads and (dut.input__valid.value or chance() >= self.upload_stall)
        dut.input__valid.value = bool(upload)
        dut.input__payload.value = self.uploads[0] if upload else self.luck.getrandbits(32)
        if abort:
            self._held = [None, None]
        await ReadOnly()  # what the next rising edge sees
        self._take(0, dut.image__words__valid, dut.image__words__payload, take_image, self.image)
        self._take(1, dut.frames__valid, dut.frames__payload, take_frame, self.frames)
        if rewind is not None or abort:
            self._held = [None, None if abort else self._held[1]]
        if self.writes and dut.image_write__ready.value:
            self.writes.pop(0)
        if upload and dut.input__ready.value:
            self.sent.append(self.uploads.pop(0))
        await FallingEdge(dut.clk)

    def _take(self, port, valid, payload, ready, into):
        offered = int(payload.value) if valid.value else None
        assert self._held[port] in (None, offered), "an offered word was withdrawn"
        self._held[port] = None if ready else offered
        if offered is not None and ready:
            into.append(offered)

    async def cycles(self, count):
        for _ in range(count):
            await self.cycle()

    async def until(self, condition, limit=20_000):
        for _ in range(limit):
            if condition():
                return
            await self.cycle()
        raise AssertionError(
            f"still waiting after {limit} cycles, with {len(self.image)} words of the image, "
            f"{len(self.frames)} of frames and {len(self.sent)} sent"
        )

    async def read(self, count):
        """The next words of the image."""
        del self.image[:]
        self.image_room = count
        await self.until(lambda: len(self.image) == count)
        self.image_room = 0
        return self.image[:]


async def core(dut):
    wanted = options()
    made = Core(dut, random.Random(wanted.get("seed", 0)))
    made.image_room = 0
    made.image_stall = wanted.get("image_stall", 0.0)
    made.frame_stall = wanted.get("frame_stall", 0.0)
    made.upload_stall = wanted.get("upload_stall", 0.0)
    await made.start()
    return wanted, made


def result(**values):
    with open(options()["result"], "w") as file:
        json.dump(values, file)


@cocotb.test()
async def stream(dut):
    """A long stream, in order; the memory's cycles that it took from word to word."""
    wanted, host = await core(dut)
    await host.ready()
    host.uploads = [word(n) for n in range(wanted.get("uploads", 0))]
    await host.cycle(rewind=wanted["start"])
    got = await host.read(wanted["skip"])
    before = int(dut.memory_cycles.value)
    got += await host.read(wanted["words"])
    cycles = int(dut.memory_cycles.value) - before
    assert got == [word(wanted["start"] + n) for n in range(wanted["skip"] + wanted["words"])]
    assert host.frames == [word(n) for n in range(len(host.frames))]
    result(cycles=cycles, frames=len(host.frames), writes=int(dut.writes.value))


@cocotb.test()
async def rewinds(dut):
    """Rewinds after any number of words and cycles, back to back as well."""
    wanted, host = await core(dut)
    luck = host.luck
    assert not dut.image__words__valid.value
    for number in range(wanted["rewinds"]):
        start = luck.randrange(wanted["preloaded"] - 1000)
        for _ in range(luck.choice((0, 0, 1, 2, 5))):
            await host.cycle(rewind=luck.randrange(wanted["preloaded"]))
            await host.cycles(luck.choice((0, 0, 1, 2, 10, 40)))
        await host.cycle(rewind=start)
        count = luck.choice((0, 1, 3, 64, 200, 700))
        assert await host.read(count) == [word(start + n) for n in range(count)], number
        await host.cycles(luck.choice((0, 0, 1, 7, 100, 900)))


@cocotb.test()
async def writes(dut):
    """Words written anywhere, the last one of them just before the rewind that reads it."""
    wanted, host = await core(dut)
    luck, image = host.luck, {}
    for _ in range(wanted["rounds"]):
        start = luck.randrange(wanted["preloaded"] - 200)
        await host.cycle(rewind=luck.randrange(wanted["preloaded"]))
        for _ in range(luck.choice((1, 2, 5, 30))):
            address = start + luck.randrange(60)
            image[address] = luck.getrandbits(32)
            host.writes.append((address, image[address]))
        await host.until(lambda: not host.writes)
        await host.cycle(rewind=start)
        expected = [image.get(start + n, word(start + n)) for n in range(100)]
        assert await host.read(100) == expected


@cocotb.test()
async def frames(dut):
    """Words in and out, in order and none lost, while the core is fast, slow, asleep, fast."""
    wanted, host = await core(dut)
    luck = host.luck
    words = [luck.getrandbits(32) for _ in range(wanted["words"])]
    host.uploads = words[:]
    await host.cycle(rewind=0)
    host.image_room = float("inf") if wanted.get("image") else 0
    full = 0
    while len(host.frames) < len(words):
        host.frame_stall = luck.choice((0.0, 0.0, 0.5, 0.9, 1.0))
        host.upload_stall = luck.choice((0.0, 0.0, 0.5, 0.95))
        count = luck.choice((10, 100, 700, 2000))
        await host.cycles(count)
        full = max(full, len(host.sent) - len(host.frames))
        if not host.uploads and host.frame_stall < 1:
            await host.until(lambda: len(host.frames) == len(words))
    assert host.frames == words
    assert host.image == [word(n) for n in range(len(host.image))]
    result(writes=int(dut.writes.value), full=full, image=len(host.image))


@cocotb.test()
async def full(dut):
    """The host sends and nobody takes, until it must wait; then all of it comes."""
    wanted, host = await core(dut)
    words = [host.luck.getrandbits(32) for _ in range(wanted["words"])]
    host.uploads = words[:]
    host.frame_room = 0
    sent = -1
    while len(host.sent) > sent:
        sent = len(host.sent)
        await host.cycles(1000)
    host.frame_room = float("inf")
    await host.until(lambda: len(host.frames) == len(words))
    assert host.frames == words
    result(full=sent)


@cocotb.test()
async def aborts(dut):
    """Aborts at any time: nothing from before one comes after it, and nothing else is lost."""
    wanted, host = await core(dut)
    luck = host.luck
    for number in range(wanted["aborts"]):
        del host.sent[:], host.frames[:]
        count = luck.choice((0, 3, 100, 700, 1500, 2500))
        host.uploads = [number << 16 | n for n in range(count)]
        host.frame_stall = luck.choice((0.0, 0.0, 0.7, 1.0))
        host.upload_stall = luck.choice((0.0, 0.0, 0.3))
        start = luck.randrange(wanted["preloaded"] - 200)
        await host.cycle(rewind=start)
        assert await host.read(20) == [word(start + n) for n in range(20)]
        await host.cycles(luck.choice((0, 1, 5, 30, 200, 1200, 3000)))
        if luck.random() < 0.4:  # some frames pass undisturbed
            host.frame_stall = 0.0
            await host.until(lambda total=count: len(host.frames) == total)
        assert host.frames == [number << 16 | n for n in range(len(host.frames))], number
        host.uploads = []
        host.image_room = len(host.image) + 5
        for _ in range(luck.randint(1, 4)):
            await host.cycle(abort=True)
        taken = len(host.image)
        await host.cycles(luck.choice((0, 0, 2, 20)))
        assert len(host.image) == taken, "words of the image after an abort"


@cocotb.test()
async def check(dut):
    """The memory test, and that the memory works after it whatever it has found."""
    _, host = await core(dut)
    await host.cycle(rewind=0)
    await host.cycles(5)
    assert not dut.ready.value
    await host.ready()
    found = {"fault": int(dut.fault.value), "address": int(dut.fault_address.value)}
    host.writes = [(n, word(n)) for n in range(40)]
    await host.until(lambda: not host.writes)
    await host.cycle(rewind=0)
    got = await host.read(40)
    wrong = sum(value != word(n) for n, value in enumerate(got))
    result(**found, wrong=wrong, cycles=int(dut.memory_cycles.value))
