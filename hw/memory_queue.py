"""A queue between two clocks in block RAM, as fast as the SDRAM's clock wants it.

Like `amaranth.lib.fifo.AsyncFIFOBuffered`, but no path leads from one side's pointer through a
comparison into the other pointer's adder: `ready` is a register that leaves a few places unused.
"""

from amaranth.hdl import Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.cdc import FFSynchronizer
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out


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
        memory = Memory(
            shape=self.input.payload.shape(), depth=self._depth, init=[], attrs={"no_rw_check": 1}
        )
        m.submodules.memory = memory
        store = memory.write_port(domain=self._source)
        load = memory.read_port(domain=self._target)

        stored, loaded = Signal(range(2 * self._depth)), Signal(range(2 * self._depth))
        stored_seen = self._cross(m, stored, self._source, self._target, "stored")
        loaded_seen = self._cross(m, loaded, self._target, self._source, "loaded")

        m.d.comb += [
            store.en.eq(self.input.valid & self.input.ready),
            store.addr.eq(stored),
            store.data.eq(self.input.payload),
        ]
        m.d[self._source] += [
            self.level.eq(stored - loaded_seen),
            self.input.ready.eq(self.level < self._depth - self.SLACK),
        ]
        with m.If(store.en):
            m.d[self._source] += stored.eq(stored + 1)

        # The memory's slow output goes into a register.
        at_port, move = Signal(), Signal()
        m.d.comb += [
            move.eq(at_port & (~self.output.valid | self.output.ready)),
            load.en.eq((loaded != stored_seen) & (~at_port | move)),
            load.addr.eq(loaded),
        ]
        m.d[self._target] += [
            at_port.eq(load.en | (at_port & ~move)),
            self.waiting.eq(stored_seen - loaded),
        ]
        with m.If(load.en):
            m.d[self._target] += loaded.eq(loaded + 1)
        with m.If(move):
            m.d[self._target] += [self.output.valid.eq(1), self.output.payload.eq(load.data)]
        with m.Elif(self.output.ready):
            m.d[self._target] += self.output.valid.eq(0)
        return m

    def _cross(self, m, pointer, source, target, name):
        """`pointer`, which never changes by more than one, as the other domain sees it."""
        gray, gray_seen = Signal.like(pointer), Signal.like(pointer)
        seen = Signal.like(pointer, name=f"{name}_seen")
        m.d[source] += gray.eq(pointer ^ (pointer >> 1))
        m.submodules[f"{name}_crossing"] = FFSynchronizer(gray, gray_seen, o_domain=target)
        m.d[target] += [seen[bit].eq(gray_seen[bit:].xor()) for bit in range(len(pointer))]
        return seen
