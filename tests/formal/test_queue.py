"""The queue between two clocks: what goes in comes out, in order, whenever the clocks tick.

Each clock is an enable of one common clock, so all ways in which the ticks of two clocks can follow
each other, or coincide, are among the runs. (What a register does whose input changes at its very
edge is not: that is what the Gray code and the synchroniser are for.) One word is followed, of an
arbitrary number; its content stands for that of any other.
"""

import pytest
from amaranth.hdl import Assert, Assume, DomainRenamer, Elaboratable, EnableInserter, Module, Signal

from hw.memory_queue import CrossingQueue
from sim.formal import ProofError, prove

pytestmark = pytest.mark.full

DEPTH = 8
CYCLES = 20  # the queue full in between, and once around its memory


class ShortQueue(CrossingQueue):
    """The shortest that works: a queue of the real length takes too long to fill."""

    SLACK = 4


class OrderIsKept(Elaboratable):
    """`lag`: claims that a word comes out so many places late."""

    def __init__(self, lag=0):
        self._queue = ShortQueue(1, depth=DEPTH, source="here", target="there")
        self._lag = lag
        self.tick_here, self.tick_there = Signal(), Signal()
        self.valid, self.word, self.ready = Signal(), Signal(), Signal()
        self.number = Signal(4)
        self.inputs = [
            self.tick_here, self.tick_there, self.valid, self.word, self.ready, self.number
        ]  # fmt: skip

    def elaborate(self, platform):
        m = Module()
        queue = self._queue
        clocked = EnableInserter({"here": self.tick_here, "there": self.tick_there})(queue)
        m.submodules.queue = DomainRenamer({"here": "sync", "there": "sync"})(clocked)
        m.d.comb += [
            queue.input.valid.eq(self.valid),
            queue.input.payload.eq(self.word),
            queue.output.ready.eq(self.ready),
        ]
        number, started = Signal.like(self.number), Signal()
        m.d.sync += [started.eq(1), number.eq(self.number)]
        with m.If(started):
            m.d.comb += Assume(number == self.number)

        pushed, popped = Signal(5), Signal(5)
        kept = Signal()
        with m.If(self.tick_here & queue.input.valid & queue.input.ready):
            m.d.sync += pushed.eq(pushed + 1)
            with m.If(pushed == self.number):
                m.d.sync += kept.eq(self.word)
        with m.If(self.tick_there & queue.output.valid & queue.output.ready):
            m.d.sync += popped.eq(popped + 1)
            with m.If(popped == self.number + self._lag):
                m.d.comb += Assert(queue.output.payload == kept)
        m.d.comb += [
            # A word that has come out is never one that has not gone in.
            Assert(popped + queue.output.valid <= pushed),
            Assert(pushed - popped <= DEPTH),
        ]
        return m


def test_order_is_kept():
    claim = OrderIsKept()
    prove(claim, claim.inputs, cycles=CYCLES, forever=False)


def test_a_wrong_order_is_refuted():
    claim = OrderIsKept(lag=1)
    with pytest.raises(ProofError, match=r"^Claim OrderIsKept can fail within 20 cycles:\n"):
        prove(claim, claim.inputs, cycles=CYCLES, forever=False)
