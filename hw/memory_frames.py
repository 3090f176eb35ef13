"""Input frames: a queue as large as half the SDRAM between the host and the core.

Words go straight on as long as the core keeps up. When it does not, chunks of them go through a
ring in the SDRAM. Only whole chunks do: what is left waits in front of the ring until that is empty
and then goes straight on again. So nobody has to tell where a frame ends.
"""

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.cdc import FFSynchronizer
from amaranth.lib.wiring import In, Out

from hw.memory_bus import (
    CHUNK_BURSTS,
    CHUNK_LENGTH,
    CHUNK_WORDS,
    WriteSignature,
    half,
)
from hw.memory_queue import CrossingQueue
from hw.sdram import REQUEST
from hw.sdram_chip import BURST_ADDRESS_BITS
from hw.stage import Stage
from isa.bits import WORD_BITS

_ENTRY = data.StructLayout({"word": WORD_BITS, "marker": 1})


class FrameQueue(wiring.Component):
    """The queue's ends at the core, and its reads and writes at the memory.

    Members
    -------
    input, frames : the core's, in the domain `sync`
        What goes in comes out, in order. A full ring is back-pressure.
    abort : In(1), in `sync`
        While it is set, nothing goes in or comes out; what is inside then never comes out. What
        goes in afterwards comes out when the old words have been dropped.
    writer, read : in `memory`
        To `WriteMux` and `Arbiter`. At most one read is under way.
    word, valid, last : In, in `memory`
        What was read for the frames, as `ReturnPath` has it.

    The ring is the last `bursts` bursts of the chip, a power of two.
    """

    QUEUE_WORDS = 512

    def __init__(self, *, bursts):
        if bursts & bursts - 1 or not CHUNK_BURSTS <= bursts <= 1 << BURST_ADDRESS_BITS:
            raise ValueError(
                f"Frame queue bursts must be a power of two in {CHUNK_BURSTS}.."
                f"{1 << BURST_ADDRESS_BITS}, not {bursts!r}"
            )
        self._bursts = bursts
        super().__init__(
            {
                "input": In(stream.Signature(WORD_BITS)),
                "frames": Out(stream.Signature(WORD_BITS)),
                "abort": In(1),
                "writer": Out(WriteSignature()),
                "read": Out(stream.Signature(REQUEST)),
                "word": In(WORD_BITS),
                "valid": In(1),
                "last": In(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.arrived = arrived = CrossingQueue(
            _ENTRY, depth=self.QUEUE_WORDS, source="sync", target="memory"
        )
        m.submodules.leaving = leaving = CrossingQueue(
            _ENTRY, depth=self.QUEUE_WORDS, source="memory", target="sync"
        )
        m.submodules.front = front = Stage(_ENTRY)
        wiring.connect(m, leaving.output, front.input)
        # A handshake of levels: after `flush` has been seen, everything is dropped up to a marker.
        flush, flush_seen, flush_asked = Signal(), Signal(), Signal()
        m.submodules.flush_asked = FFSynchronizer(flush, flush_asked, o_domain="memory")
        m.submodules.flush_seen = FFSynchronizer(flush_asked, flush_seen, o_domain="sync")
        self._core_side(m, arrived, front, flush, flush_seen)
        self._memory_side(m, arrived, leaving, flush_asked)
        return m

    def _core_side(self, m, arrived, front, flush, flush_seen):
        accept, deliver, mark = Signal(), Signal(), Signal()
        again = Signal()  # an abort came while the last one was not finished
        pushed, popped = arrived.input.payload, front.output.payload
        m.d.comb += [
            self.input.ready.eq(accept & ~self.abort & arrived.input.ready),
            arrived.input.valid.eq((self.input.valid & self.input.ready) | mark),
            pushed.word.eq(self.input.payload),
            pushed.marker.eq(mark),
            self.frames.payload.eq(popped.word),
            self.frames.valid.eq(deliver & ~self.abort & front.output.valid),
            front.output.ready.eq((self.frames.valid & self.frames.ready) | ~deliver),
        ]
        with m.FSM():
            with m.State("PASS"):
                m.d.comb += [accept.eq(1), deliver.eq(1)]
                with m.If(self.abort):
                    m.d.sync += flush.eq(1)
                    m.next = "MARK"
            with m.State("MARK"):
                with m.If(flush_seen & ~self.abort & arrived.input.ready):
                    m.d.comb += mark.eq(1)
                    m.d.sync += again.eq(0)
                    m.next = "DROP"
            with m.State("DROP"):
                m.d.comb += accept.eq(~again)
                with m.If(front.output.valid & popped.marker):
                    m.d.sync += flush.eq(0)
                    m.next = "SETTLE"
            with m.State("SETTLE"):
                m.d.comb += [accept.eq(~again), deliver.eq(~again)]
                with m.If(~flush_seen):
                    m.d.sync += flush.eq(again | self.abort)
                    with m.If(again | self.abort):
                        m.next = "MARK"
                    with m.Else():
                        m.next = "PASS"
        with m.If(self.abort):
            m.d.sync += again.eq(1)

    def _memory_side(self, m, arrived, leaving, flush_asked):
        head, tail = arrived.output.payload, leaving.input.payload
        chunk_bits = (self._bursts // CHUNK_BURSTS).bit_length() - 1

        flushing, flush_before = Signal(), Signal()
        m.d.memory += flush_before.eq(flush_asked)
        with m.If(flush_asked & ~flush_before):
            m.d.memory += flushing.eq(1)

        # --- the ring -----------------------------------------------------------------------------
        written, fetched = Signal(chunk_bits), Signal(chunk_bits)
        stored = Signal(range((1 << chunk_bits) + 1))
        some = Signal()
        spilled, taken = Signal(), Signal()  # strobes: a chunk went into the ring, one came out
        m.d.memory += [some.eq(stored != 0), spilled.eq(0), taken.eq(0)]
        with m.If(spilled):
            m.d.memory += [written.eq(written + 1), stored.eq(stored + 1)]
        with m.If(taken):
            m.d.memory += [fetched.eq(fetched + 1), stored.eq(stored - 1)]

        def address(chunk):
            unused = Const(-1, BURST_ADDRESS_BITS - chunk_bits - (CHUNK_BURSTS - 1).bit_length())
            return Cat(Const(0, (CHUNK_BURSTS - 1).bit_length()), chunk, unused)

        m.d.comb += [
            self.writer.request.payload.write.eq(1),
            self.writer.request.payload.address.eq(address(written)),
            self.writer.request.payload.length.eq(CHUNK_LENGTH),
            self.read.payload.address.eq(address(fetched)),
            self.read.payload.length.eq(CHUNK_LENGTH),
        ]

        # --- room and need, a few cycles late, so they only count while nothing moves -------------
        direct, drop, mark = Signal(), Signal(), Signal()
        # Of a word that is spilled: it is waited for, it is offered, one half after the other, and
        # both have been taken
        wanted, offered, upper, spent = Signal(), Signal(), Signal(), Signal()
        # Any of them that takes a word out of the queue; a register as they are
        pop, spend, discard, finish, pass_on = (Signal() for _ in range(5))
        fetching = Signal()
        room, chunk_room, enough = Signal(), Signal(), Signal()
        popped = Signal(3)
        run = Signal()
        m.d.memory += [
            # The queue has room for as many again as its slack, for what is on its way.
            room.eq(leaving.level < self.QUEUE_WORDS - 2 * leaving.SLACK),
            chunk_room.eq(leaving.level < self.QUEUE_WORDS - 2 * CHUNK_WORDS),
            enough.eq(arrived.waiting >= CHUNK_WORDS),
            popped.eq(Cat(pop, popped)),
            direct.eq(pass_on),
            drop.eq(discard),
            mark.eq(finish),
            spent.eq(spend),
            pop.eq(pass_on | discard | finish | spend),
        ]

        m.d.comb += pass_on.eq(run & room & ~some & ~flushing)

        # --- words --------------------------------------------------------------------------------
        moved = Signal()
        word = Signal(WORD_BITS)
        m.d.comb += arrived.output.ready.eq(pop)
        m.d.memory += [
            moved.eq((direct & arrived.output.valid) | self.valid | mark),
            word.eq(Mux(fetching, self.word, head.word)),
        ]
        marked = Signal()
        m.d.memory += marked.eq(mark)
        m.d.comb += [leaving.input.valid.eq(moved), tail.word.eq(word), tail.marker.eq(marked)]

        # Spilled words: two beats each, and a cycle in which they go.
        m.d.comb += [
            self.writer.beats.payload.eq(half(head.word, upper)),
            self.writer.beats.valid.eq(offered),
        ]
        m.d.comb += spend.eq(offered & upper & self.writer.beats.ready)
        with m.If(spent):
            m.d.memory += wanted.eq(1)
        with m.If(wanted & arrived.output.valid):
            m.d.memory += [wanted.eq(0), offered.eq(1)]
        with m.If(offered & self.writer.beats.ready):
            m.d.memory += [upper.eq(~upper), offered.eq(~upper)]
        with m.FSM(domain="memory"):
            with m.State("RUN"):
                # What lets words go straight on lets none of the other things happen.
                m.d.comb += run.eq(1)
                with m.If(~direct):
                    with m.If(flushing):
                        m.next = "FLUSH"
                    with m.Elif(some & chunk_room):
                        m.next = "FETCH"
                    with m.Elif(enough & (some | ~room) & (popped == 0) & ~stored[-1]):
                        m.d.memory += wanted.eq(1)
                        m.next = "SPILL"
            with m.State("SPILL"):
                m.d.comb += self.writer.request.valid.eq(1)
                with m.If(self.writer.request.ready):
                    m.d.memory += [wanted.eq(0), offered.eq(0), spilled.eq(1)]
                    m.next = "WAIT"
            with m.State("FETCH"):
                m.d.comb += self.read.valid.eq(1)
                with m.If(self.read.ready):
                    m.d.memory += [taken.eq(1), fetching.eq(1)]
                    m.next = "RECEIVE"
            with m.State("RECEIVE"):
                with m.If(self.last):
                    settle = Signal(3, init=-1)
                    m.d.memory += fetching.eq(0)
                    m.next = "WAIT"
            with m.State("WAIT"):  # until `some` and the rooms know of it
                m.d.memory += settle.eq(settle - 1)
                with m.If(settle == 0):
                    m.next = "RUN"
            with m.State("FLUSH"):
                with m.If(~arrived.output.valid | drop):
                    pass  # there is no word, or it goes
                with m.Elif(~head.marker):
                    m.d.comb += discard.eq(1)
                with m.Elif(room):
                    m.d.comb += finish.eq(1)
                    m.next = "WAIT"
        with m.If(mark):
            m.d.memory += [flushing.eq(0), written.eq(0), fetched.eq(0), stored.eq(0)]
