"""Control, loader and sources wired as in the top, with everything behind them left to the test."""

import random

from amaranth.hdl import Module, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from hw.bus import BusSignature
from hw.control import CLASS_BITS, Control
from hw.loader import Loader
from hw.perf import PERF
from hw.resets import Parts
from hw.source import LinkSource, RamSource, SourceMux
from isa import checked, image
from isa.fixed import LOGIT_BITS
from isa.geometry import TINY
from isa.image import CHANNEL_WORDS, LAYER_WORDS, ImageInfo, Packet, PacketType
from isa.layer import CHANNEL, LAYER
from isa.registers import CONTROL, ErrorCode, Register, Source, State


class Frontend(wiring.Component):
    """Everything between the bus and the core."""

    def __init__(self, *, geometry=TINY, init=(), watchdog_cycles=1000):
        self.geometry = geometry
        self._init = init
        self._watchdog_cycles = watchdog_cycles
        super().__init__(
            {
                "bus": In(BusSignature()),
                "descriptor": Out(stream.Signature(LAYER)),
                "params": Out(stream.Signature(CHANNEL)),
                "weights": Out(stream.Signature(geometry.port_bits)),
                "input": Out(stream.Signature(32)),
                "frame_done": In(1),
                "progress": In(1),
                "perf": In(PERF),
                "logit_address": Out(range(geometry.classes)),
                "logit_data": In(signed(LOGIT_BITS)),
                "top_class": In(data.ArrayLayout(CLASS_BITS, geometry.top_k)),
                "top_logit": In(data.ArrayLayout(signed(LOGIT_BITS), geometry.top_k)),
                "interrupt": Out(1),
                "abort": Out(1),
                "frame_ok": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.control = control = Control(
            geometry=self.geometry, watchdog_cycles=self._watchdog_cycles
        )
        ram = RamSource(words=self.geometry.image_words, init=self._init)
        link = LinkSource()
        loader = Loader(geometry=self.geometry)
        m.submodules.mux = mux = SourceMux(sources=[Source.RAM, Source.LINK])
        parts = Parts(m, {"sync": control.abort}, cycles=Control.RESET_CYCLES)
        for name, part in (("ram", ram), ("link", link), ("loader", loader)):
            parts[name] = part
        wiring.connect(m, wiring.flipped(self.bus), control.bus)
        wiring.connect(m, control.image_write, mux.write)
        wiring.connect(m, mux.write_ram, ram.write)
        wiring.connect(m, control.stream, link.stream)
        wiring.connect(m, ram.image, mux.ram)
        wiring.connect(m, link.image, mux.link)
        wiring.connect(m, mux.image, loader.source)
        wiring.connect(m, control.input, wiring.flipped(self.input))
        for name in ("descriptor", "params", "weights"):
            wiring.connect(m, getattr(loader, name), wiring.flipped(getattr(self, name)))
        m.d.comb += [
            mux.select.eq(control.source),
            loader.check.eq(control.check),
            loader.start.eq(control.start),
            loader.stem_done.eq(control.stem_done),
            loader.more.eq(control.more),
            control.checked.eq(loader.checked),
            control.frame_ok.eq(loader.frame_ok),
            control.error.eq(loader.error),
            control.error_valid.eq(loader.error_valid),
            control.classes.eq(loader.classes),
            control.progress.eq(loader.progress | self.progress),
            control.frame_done.eq(self.frame_done),
            control.perf.eq(self.perf),
            control.logit_data.eq(self.logit_data),
            control.top_class.eq(self.top_class),
            control.top_logit.eq(self.top_logit),
            self.logit_address.eq(control.logit_address),
            self.interrupt.eq(control.interrupt),
            self.abort.eq(control.abort),
            self.frame_ok.eq(loader.frame_ok),
        ]
        return m


class Content:
    """A made-up image, and what the loader must deliver of it.

    `types`: those of its layers, again and again.
    """

    def __init__(self, geometry=TINY, *, layers=3, seed=7, types=(PacketType.LAYER,)):
        generator = random.Random(seed)

        def word(bits=32):
            return generator.getrandbits(bits)

        self._layers = []  # type, descriptor, params, weights
        packets = []
        for index in range(layers):
            raw = word(LAYER.size)
            kind = types[index % len(types)]
            params, weights = [], []
            self._layers.append((kind, [raw], params, weights))
            packets.append(Packet(kind, _words(raw, LAYER_WORDS)))
            for _ in range(0 if index % 3 == 1 else 2):  # every third has no tiles, as a pool layer
                channels = [word(CHANNEL.size) for _ in range(geometry.lanes)]
                params += channels
                payload = [w for raw in channels for w in _words(raw, CHANNEL_WORDS)]
                packets.append(Packet(PacketType.PARAMS, payload))
                sets = [word(geometry.port_bits) for _ in range(generator.randrange(1, 12))]
                weights += sets
                payload = [w for raw in sets for w in _words(raw, geometry.port_bits // 32)]
                packets.append(Packet(PacketType.WEIGHTS, payload))
        info = ImageInfo("made-up", (4, 4, 1), classes=10, layers=layers, logit_exponent=-3)
        self.image = image.build(geometry, info, packets)

    def delivered(self, *, stem_done=False, more=True):
        """Descriptors, params and weights of a frame."""
        skipped = {PacketType.STEM: stem_done, PacketType.AHEAD: not more}
        layers = [parts for kind, *parts in self._layers if not skipped.get(kind, False)]
        return {
            name: [item for parts in layers for item in parts[number]]
            for number, name in enumerate(("descriptor", "params", "weights"))
        }


def _words(raw, count):
    return [raw >> (32 * i) & 0xFFFF_FFFF for i in range(count)]


def raw(view):
    """A stream item as an integer, whatever its shape."""
    return view if isinstance(view, int) else view.as_bits()


async def write(ctx, bus, address, *words):
    """Writes words to consecutive addresses, or all of them to a port, and waits until it acts."""
    port = address in (Register.INPUT, Register.STREAM)
    for index, word in enumerate(words):
        ctx.set(bus.valid, 1)
        ctx.set(bus.write, 1)
        ctx.set(bus.address, int(address) + (0 if port else index))
        ctx.set(bus.write_data, word)
        await ctx.tick().until(bus.ack)
    ctx.set(bus.valid, 0)
    ctx.set(bus.write, 0)
    await ctx.tick()


async def read(ctx, bus, address):
    ctx.set(bus.valid, 1)
    ctx.set(bus.write, 0)
    ctx.set(bus.address, int(address))
    (value,) = await ctx.tick().sample(bus.read_data).until(bus.ack)
    ctx.set(bus.valid, 0)
    return value


async def command(ctx, bus, name):
    bits = dict.fromkeys(CONTROL.members, 0) | {name: 1}
    await write(ctx, bus, Register.CONTROL, checked.encode(CONTROL, bits))


async def state(ctx, bus):
    return State(await read(ctx, bus, Register.STATUS))


async def error(ctx, bus):
    return ErrorCode(await read(ctx, bus, Register.ERROR))


async def settle(ctx, bus):
    """The state once nothing runs any more."""
    while (now := await state(ctx, bus)) in (State.CHECKING, State.RUNNING):
        pass
    return now
