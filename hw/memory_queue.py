"""A queue between two clocks in block RAM, as fast as the SDRAM's clock wants it.

Like `amaranth.lib.fifo.AsyncFIFOBuffered`, but no path leads from one side's pointer through a
comparison into the other pointer's adder: `ready` is a register that leaves a few places unused,
and so is the flag that there is a word to be fetched.
"""

from amaranth.hdl import Module, Mux, Shape, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.cdc import FFSynchronizer
from amaranth.lib.wiring import In, Out

from hw.block_memory import BlockMemory


class CrossingQueue(wiring.Component):
    """A first-in first-out queue of `depth` places, a power of two, from one domain to another.

    Members
    -------
    input : In(stream), in the domain `source`
        Not ready when fewer than SLACK places are left.
    level : Out, in `source`
        Words inside, those on their way out not counted. Late: it does not know of the last two
        words that went in, nor of the last few that went out.
    output : Out(stream), in the domain `target`
    waiting : Out, in `target`
        Words inside without the two that are next. Late by two cycles.

    Both domains must be reset together, while neither side transfers.
    """

    SLACK = 8
    SUMMED = 4  # bits of a Gray code by one look-up table

    def __init__(self, shape, *, depth, source, target):
        if depth & depth - 1 or depth < 2 * self.SLACK:
            raise ValueError(
                f"Crossing queue depth must be a power of two from {2 * self.SLACK}, not {depth!r}"
            )
        self._depth, self._source, self._target = depth, source, target
        super().__init__(
            {
                "input": In(stream.Signature(shape)),
                "level": Out(range(depth + 1)),
                "output": Out(stream.Signature(shape)),
                "waiting": Out(range(depth + 1)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        width = Shape.cast(self.input.payload.shape()).width
        m.submodules.memory = memory = BlockMemory(
            width, depth=self._depth, source=self._source, target=self._target
        )

        stored, loaded = Signal(range(2 * self._depth)), Signal(range(2 * self._depth))
        stored_seen = self._cross(m, stored, self._source, self._target, "stored")
        loaded_seen = self._cross(m, loaded, self._target, self._source, "loaded")

        # A word is in the memory by the time at which the Gray code tells of it.
        stores = Signal()
        address, data = Signal.like(stored, reset_less=True), Signal(width, reset_less=True)
        m.d.comb += [
            stores.eq(self.input.valid & self.input.ready),
            memory.write_address.eq(address),
            memory.write_data.eq(data),
        ]
        m.d[self._source] += [
            memory.write.eq(stores),
            address.eq(stored),
            data.eq(self.input.payload),
        ]
        m.d[self._source] += [
            self.level.eq(stored - loaded_seen),
            self.input.ready.eq(self.level < self._depth - self.SLACK),
        ]
        with m.If(stores):
            m.d[self._source] += stored.eq(stored + 1)

        # A word goes from the block into its output register, and stays there until it is taken.
        at_port, some = Signal(), Signal()
        following = Signal(range(2 * self._depth), init=1)
        m.d.comb += [
            memory.move.eq(at_port & (~self.output.valid | self.output.ready)),
            memory.read.eq(some & (~at_port | ~self.output.valid | self.output.ready)),
            memory.read_address.eq(loaded),
            self.output.payload.eq(memory.read_data),
        ]
        m.d[self._target] += [
            some.eq(Mux(memory.read, following != stored_seen, loaded != stored_seen)),
            at_port.eq(memory.read | (at_port & ~memory.move)),
            self.output.valid.eq(at_port | (self.output.valid & ~self.output.ready)),
            self.waiting.eq(stored_seen - loaded),
        ]
        with m.If(memory.read):
            m.d[self._target] += [loaded.eq(following), following.eq(following + 1)]
        return m

    def _cross(self, m, pointer, source, target, name):
        """`pointer`, which never changes by more than one, as the other domain sees it."""
        gray, gray_seen = Signal.like(pointer), Signal.like(pointer)
        # The sum of up to SUMMED bits from each one up, then of every SUMMED-th of those sums
        part = Signal.like(pointer, reset_less=True)
        seen = Signal.like(pointer, name=f"{name}_seen")
        m.d[source] += gray.eq(pointer ^ (pointer >> 1))
        m.submodules[f"{name}_crossing"] = FFSynchronizer(gray, gray_seen, o_domain=target)
        for bit in range(len(pointer)):
            m.d[target] += [
                part[bit].eq(gray_seen[bit : bit + self.SUMMED].xor()),
                seen[bit].eq(part[bit :: self.SUMMED].xor()),
            ]
        return seen
