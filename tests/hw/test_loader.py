# amaranth: UnusedElaboratable=no
"""The loader: what it delivers, in which order, at what rate, and what it refuses."""

import dataclasses

import pytest
from amaranth.hdl import Module, ResetInserter
from amaranth.lib import wiring
from amaranth.lib.wiring import In

from hw.bus import MemoryWriteSignature
from hw.loader import Loader
from hw.source import RamSource
from isa import checked, image
from isa.geometry import TINY, ULX3S_25F
from isa.image import HEADER, HEADER_WORDS, LAYER_TYPES, PACKET, Packet, PacketType
from isa.registers import IMAGE_ADDRESS_BITS, ErrorCode
from sim.bench import receive, simulate
from tests.hw.frontend import Content, raw

OUTPUTS = ("descriptor", "params", "weights")


class LoaderBench(wiring.Component):
    """A loader that reads a pre-filled memory, which `write` can change; `reset` is the abort."""

    def __init__(self, words, *, geometry=TINY):
        self._words, self._geometry = words, geometry
        ports = Loader(geometry=geometry).signature.members
        members = {name: member for name, member in ports.items() if name != "source"}
        write = In(MemoryWriteSignature(address_bits=IMAGE_ADDRESS_BITS))
        super().__init__({**members, "write": write, "reset": In(1)})

    def elaborate(self, platform):
        m = Module()
        loader = Loader(geometry=self._geometry)
        m.submodules.loader = ResetInserter(self.reset)(loader)
        m.submodules.ram = ram = RamSource(words=max(len(self._words), 1), init=self._words)
        wiring.connect(m, ram.image, loader.source)
        wiring.connect(m, wiring.flipped(self.write), ram.write)
        for name, member in Loader(geometry=self._geometry).signature.members.items():
            if name == "source":
                continue
            if not member.is_port:
                wiring.connect(m, getattr(loader, name), wiring.flipped(getattr(self, name)))
            elif member.flow == In:
                m.d.comb += getattr(loader, name).eq(getattr(self, name))
            else:
                m.d.comb += getattr(self, name).eq(getattr(loader, name))
        return m


async def pulse(ctx, signal):
    ctx.set(signal, 1)
    await ctx.tick()
    ctx.set(signal, 0)


async def outcome(ctx, dut):
    """What a check or a frame ends with: None, or the error's code."""
    while True:
        _, _, busy, failed, code, good = await ctx.tick().sample(
            dut.busy, dut.error_valid, dut.error, dut.checked | dut.frame_ok
        )
        if failed:
            assert not busy
            assert not good
            return code
        if good:
            assert not busy
            return None


def check(images):
    """The outcomes of checking each of `images`; nothing may be delivered."""
    present = list(images[0]) + [0] * (max(map(len, images)) - len(images[0]))
    dut = LoaderBench(list(present))
    results = []

    async def bench(ctx):
        for name in OUTPUTS:
            ctx.set(getattr(dut, name).ready, 1)
        for words in images:
            ctx.set(dut.write.valid, 1)
            for index, word in enumerate(words):
                if present[index] != word:
                    ctx.set(dut.write.address, index)
                    ctx.set(dut.write.data, word)
                    await ctx.tick()
                    present[index] = word
            ctx.set(dut.write.valid, 0)
            await pulse(ctx, dut.reset)
            await pulse(ctx, dut.check)
            results.append(await outcome(ctx, dut))

    async def silence(ctx):
        while len(results) < len(images):
            samples = [getattr(dut, name).valid for name in OUTPUTS]
            _, _, *valid = await ctx.tick().sample(*samples)
            assert not any(valid)

    simulate(dut, bench, silence, deadline_cycles=1000 * len(images))
    return results


@pytest.mark.parametrize("geometry", [TINY, ULX3S_25F], ids=lambda g: g.name)
@pytest.mark.parametrize("stalls", ["none", "light", "heavy"])
def test_delivers_every_frame_whole_and_in_order(geometry, stalls):
    content = Content(geometry, layers=7)
    dut = LoaderBench(content.image.words, geometry=geometry)
    expected = content.delivered()

    async def run(ctx):
        await pulse(ctx, dut.check)
        assert await outcome(ctx, dut) is None
        assert ctx.get(dut.classes) == 10
        assert ctx.get(dut.frame_words) == len(content.image.frame)
        assert ctx.get(dut.frame_crc32) == content.image.crc32
        for _ in range(2):
            await pulse(ctx, dut.start)
            assert not ctx.get(dut.frame_ok)
            assert await outcome(ctx, dut) is None
            assert ctx.get(dut.frame_ok)

    def taker(name):
        async def take(ctx):
            items = await receive(
                ctx, getattr(dut, name), 2 * len(expected[name]), stalls, seed=len(name)
            )
            assert [raw(item) for item in items] == 2 * expected[name]

        take.__name__ = name
        return take

    simulate(dut, run, *map(taker, OUTPUTS), deadline_cycles=60_000)


@pytest.mark.parametrize("stem_done", [0, 1])
@pytest.mark.parametrize("more", [0, 1])
def test_skips_a_stem_that_is_done_and_one_that_nobody_wants(stem_done, more):
    """Whole layers with all their tiles, wherever they stand, and the next frame is complete."""
    types = (PacketType.STEM, PacketType.LAYER, PacketType.AHEAD, PacketType.LAYER)
    content = Content(layers=10, types=types)
    dut = LoaderBench(content.image.words)
    frames = [{"stem_done": stem_done, "more": more}, {"stem_done": 0, "more": 1}]
    parts = [content.delivered(**frame) for frame in frames]

    async def run(ctx):
        await pulse(ctx, dut.check)
        assert await outcome(ctx, dut) is None
        for frame in frames:
            ctx.set(dut.stem_done, frame["stem_done"])
            ctx.set(dut.more, frame["more"])
            await pulse(ctx, dut.start)
            assert await outcome(ctx, dut) is None
            assert ctx.get(dut.frame_ok)

    def taker(name):
        async def take(ctx):
            expected = parts[0][name] + parts[1][name]
            items = await receive(ctx, getattr(dut, name), len(expected), "light", seed=len(name))
            assert [raw(item) for item in items] == expected

        take.__name__ = name
        return take

    simulate(dut, run, *map(taker, OUTPUTS), deadline_cycles=60_000)


def test_takes_a_word_a_cycle():
    """A check and a frame each last as long as their words, and a few cycles of latency.

    A packet costs one cycle beside its words.
    """
    content = Content(ULX3S_25F, layers=6)
    words = content.image.words
    packets = len(content.image.packets) + 1
    dut = LoaderBench(words, geometry=ULX3S_25F)

    async def bench(ctx):
        for name in OUTPUTS:
            ctx.set(getattr(dut, name).ready, 1)
        for strobe, count in ((dut.check, len(words)), (dut.start, len(words) - HEADER_WORDS)):
            await pulse(ctx, strobe)
            cycles = taken = waited = 0
            while ctx.get(dut.busy):
                await ctx.tick()
                cycles += 1
                taken += ctx.get(dut.stream_busy)
                waited += ctx.get(dut.wait_stream)
            assert count < cycles <= count + packets + RamSource.LATENCY + 4
            assert count <= taken <= count + 1  # one more may stand behind the last
            assert 0 < waited <= RamSource.LATENCY + 1

    simulate(dut, bench)


def test_three_descriptors_wait_while_the_stream_goes_on():
    content = Content(layers=7)  # the second and fifth layer have no tiles
    dut = LoaderBench(content.image.words)

    async def bench(ctx):
        await pulse(ctx, dut.check)
        assert await outcome(ctx, dut) is None
        await pulse(ctx, dut.start)
        ctx.set(dut.params.ready, 1)
        got = 0
        ctx.set(dut.weights.ready, 1)
        for _ in range(2000):
            _, _, valid = await ctx.tick().sample(dut.params.valid)
            got += valid
        # Descriptors 0, 1 and 2 are held; layers 0 and 2 have two tiles each.
        assert got == 4 * TINY.lanes
        assert not ctx.get(dut.stream_busy | dut.wait_stream)
        expected = content.delivered()["descriptor"]
        assert [raw(d) for d in await receive(ctx, dut.descriptor, 7)] == expected

    simulate(dut, bench)


def flip(words, index, bit):
    return [word ^ (1 << bit if i == index else 0) for i, word in enumerate(words)]


def rebuilt(words, **fields):
    """The image with header fields changed and its CRC made right again."""
    header = checked.from_words(HEADER, words[:HEADER_WORDS]) | fields
    head = checked.to_words(HEADER, header)
    head[-1] = image.crc32(head[:-1])
    return head + words[HEADER_WORDS:]


CONTENT = Content(layers=3, types=(PacketType.STEM, PacketType.LAYER, PacketType.AHEAD))
WORDS = CONTENT.image.words


def test_accepts_what_the_parser_accepts():
    assert check([WORDS, WORDS]) == [None, None]
    assert image.parse(CONTENT.image.to_bytes(), TINY).frame == CONTENT.image.frame


def test_a_flipped_header_bit_is_found():
    places = [(index, bit) for index in range(HEADER_WORDS) for bit in (0, 31)]
    expected = [ErrorCode.HEADER_CRC if index else ErrorCode.MAGIC for index, _ in places]
    assert check([flip(WORDS, *place) for place in places]) == expected


def test_a_header_that_says_something_else_is_refused():
    cases = [
        ({"version": image.VERSION + 1}, ErrorCode.IMAGE_VERSION),
        ({"geometry": ULX3S_25F.digest}, ErrorCode.FOREIGN_GEOMETRY),
        ({"version": 0, "geometry": 0}, ErrorCode.IMAGE_VERSION),
        ({"frame_crc32": 5}, ErrorCode.FRAME_CRC),
        ({"frame_words": 5}, ErrorCode.PACKET),
        ({"layers": 4}, ErrorCode.PACKET),
    ]
    assert check([rebuilt(WORDS, **fields) for fields, _ in cases]) == [code for _, code in cases]


def packet_positions():
    position = HEADER_WORDS
    for packet in CONTENT.image.packets:
        yield packet.type, position
        position += 1 + len(packet.payload)
    yield PacketType.END, position


@pytest.mark.parametrize("kind", PacketType)
def test_a_flipped_packet_header_bit_is_found(kind):
    position = next(at for type, at in packet_positions() if type is kind)
    flipped = [flip(WORDS, position, bit) for bit in range(32)]
    assert check(flipped) == [ErrorCode.PACKET] * 32


def test_a_flipped_payload_bit_is_found():
    last = dict(packet_positions())
    flipped = [flip(WORDS, at + 1, bit) for at in last.values() for bit in (0, 13, 31)]
    assert check(flipped) == [ErrorCode.FRAME_CRC] * 3 * len(PacketType)


def assembled(packets):
    """An image of these packets; its header and every CRC are right."""
    layers = sum(packet.type in LAYER_TYPES for packet in packets)
    info = dataclasses.replace(CONTENT.image.info, layers=layers)
    return image.build(TINY, info, packets).words


LAYER_PACKET = CONTENT.image.packets[0]
PARAMS_PACKET = CONTENT.image.packets[1]
WEIGHTS_PACKET = CONTENT.image.packets[2]


def test_packets_in_the_wrong_order_or_size_are_refused():
    orders = [
        [],
        [PARAMS_PACKET],
        [WEIGHTS_PACKET],
        [LAYER_PACKET, WEIGHTS_PACKET],
        [LAYER_PACKET, PARAMS_PACKET],
        [LAYER_PACKET, PARAMS_PACKET, PARAMS_PACKET],
        [LAYER_PACKET, PARAMS_PACKET, LAYER_PACKET],
        [LAYER_PACKET, PARAMS_PACKET, WEIGHTS_PACKET, WEIGHTS_PACKET],
        [LAYER_PACKET, Packet(PacketType.PARAMS, PARAMS_PACKET.payload[:-1])],
        [Packet(PacketType.LAYER, [*LAYER_PACKET.payload, 0])],
        [LAYER_PACKET, Packet(PacketType.END, [1, 2])],
    ]
    assert check(list(map(assembled, orders))) == [ErrorCode.PACKET] * len(orders)


def test_weights_must_fill_words_of_the_port():
    content = Content(ULX3S_25F, layers=1)
    packets = list(content.image.packets)
    packets[2] = Packet(PacketType.WEIGHTS, [*packets[2].payload, 1])
    dut = LoaderBench(image.build(ULX3S_25F, content.image.info, packets).words, geometry=ULX3S_25F)

    async def bench(ctx):
        await pulse(ctx, dut.check)
        assert await outcome(ctx, dut) == ErrorCode.PACKET

    simulate(dut, bench)


@pytest.mark.parametrize("kind", [PacketType.PARAMS, PacketType.WEIGHTS])
def test_nothing_is_delivered_from_a_packet_with_a_bad_header(kind):
    position = next(at for type, at in packet_positions() if type is kind)
    dut = LoaderBench(flip(WORDS, position, 31))
    port = getattr(dut, kind.name.lower())
    taken = []

    async def bench(ctx):
        # Without a check: the frame section is streamed for real, bad packet and all.
        for name in OUTPUTS:
            ctx.set(getattr(dut, name).ready, 1)
        await pulse(ctx, dut.start)
        while True:
            _, _, failed, code, valid = await ctx.tick().sample(
                dut.error_valid, dut.error, port.valid
            )
            taken.append(valid)
            if failed:
                assert code == ErrorCode.PACKET
                break
        for _ in range(10):
            _, _, valid = await ctx.tick().sample(port.valid)
            taken.append(valid)

    simulate(dut, bench)
    assert not any(taken)


@pytest.mark.parametrize("length", [1, 5, HEADER_WORDS, HEADER_WORDS + 3, len(WORDS) - 1])
def test_a_truncated_image_just_stays_busy(length):
    """The watchdog's business."""
    dut = LoaderBench(WORDS[:length])

    async def bench(ctx):
        await pulse(ctx, dut.check)
        for _ in range(len(WORDS) + 20):
            _, _, busy, failed, good = await ctx.tick().sample(
                dut.busy, dut.error_valid, dut.checked
            )
            assert (busy, failed, good) == (1, 0, 0)

    simulate(dut, bench)


def test_packet_layout_is_what_the_crc_8_covers():
    """The loader hands type and length to the CRC-8 by name; crc8 itself stays out of it."""
    assert set(PACKET.members) == {"type", "length", "crc8"}
