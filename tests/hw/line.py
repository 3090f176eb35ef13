"""A serial line between the host's transport and a simulated link: the host's reads run the clock.

Seconds are counted in slow motion (CLOCK_HZ), so that the protocol's time-outs last some hundred
cycles. `mangle(raw)` and `mangle_back(raw)` may damage what passes, one write or answer at a time.
"""

import random

from amaranth.sim import Simulator

from hw.link import Link
from isa import registers

CLOCK_HZ = 20_000


class Slave:
    """A bus slave: a memory, and ports that take words while `room` lasts.

    Answers after a seeded random number of cycles; never, while `dead` is set.
    """

    def __init__(self, *, longest=4, seed=1):
        self.memory = {}
        self.pushed = []
        self.accesses = []  # (address, is write) in order
        self.room = 1 << 30
        self.dead = False
        self._longest = longest
        self._random = random.Random(seed)

    def bench(self, bus):
        async def run(ctx):
            while True:
                while not ctx.get(bus.valid):
                    await ctx.tick()
                for _ in range(self._random.randint(1, self._longest)):
                    await ctx.tick()
                address, write = ctx.get(bus.address), ctx.get(bus.write)
                port = address in registers.PORTS
                while ctx.get(bus.valid) and (self.dead or (port and write and not self.room)):
                    await ctx.tick()
                if not ctx.get(bus.valid):
                    continue
                self.accesses.append((address, write))
                if write and port:
                    self.pushed.append(ctx.get(bus.write_data))
                    self.room -= 1
                elif write:
                    self.memory[address] = ctx.get(bus.write_data)
                ctx.set(bus.read_data, 0 if write else self.memory.get(address, 0))
                ctx.set(bus.ack, 1)
                await ctx.tick()
                ctx.set(bus.ack, 0)
                ctx.set(bus.read_data, 0xDEAD_DEAD)  # only good while acknowledged

        return run


class SimulatedLine:
    """A BytePort of `host.link` that ends in the byte streams `rx` and `tx` of a simulation."""

    def __init__(self, component, rx, tx, *benches):
        self._simulator = Simulator(component)
        self._simulator.add_clock(1 / CLOCK_HZ)
        self._outgoing, self._incoming = [], []
        self.now = 0.0
        self.mangle = lambda raw: raw
        self.mangle_back = lambda raw: raw

        async def run(ctx):
            """Both ends of the line, and the time."""
            ctx.set(tx.ready, 1)
            offered = False
            samples = (tx.valid, tx.payload, rx.ready)
            async for _, _, valid, byte, ready in ctx.tick().sample(*samples):
                self.now += 1 / CLOCK_HZ
                if valid:
                    self._incoming.append(byte)
                if offered and ready:
                    offered = False
                    ctx.set(rx.valid, 0)
                if not offered and self._outgoing:
                    offered = True
                    ctx.set(rx.payload, self._outgoing.pop(0))
                    ctx.set(rx.valid, 1)

        for bench in (run, *benches):
            self._simulator.add_testbench(bench, background=True)

    def clock(self):
        return self.now

    def write(self, raw):
        self._outgoing += self.mangle(raw)

    def read(self, count, timeout):
        end = self.now + timeout
        while not self._incoming and self.now < end:
            self._simulator.advance()
        # An answer's bytes follow each other: take them together, so that they can be damaged.
        quiet = self.now + 30 / CLOCK_HZ
        while self._incoming and self.now < quiet:
            before = len(self._incoming)
            self._simulator.advance()
            if len(self._incoming) != before:
                quiet = self.now + 30 / CLOCK_HZ
        taken, self._incoming = self._incoming, []
        return bytes(self.mangle_back(bytes(taken))) if taken else b""

    def close(self):
        pass


def simulated_link(slave):
    """A link without its UART, and the line to it."""
    dut = Link(clock_hz=CLOCK_HZ)
    return SimulatedLine(dut, dut.rx, dut.tx, slave.bench(dut.bus))
