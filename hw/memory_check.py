"""The memory test at start-up: is every bit of the SDRAM there, and at an address of its own?"""

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from hw.memory_bus import CHUNK_BEATS, CHUNK_BURSTS, CHUNK_LENGTH, WriteSignature
from hw.sdram import REQUEST
from hw.sdram_chip import BURST_ADDRESS_BITS, BURST_BEATS, DATA_BITS
from hw.sdram_queue import BEAT


class MemoryCheck(wiring.Component):
    """Writes and reads the first `bursts` bursts twice, all in the domain `memory`.

    The pattern runs through a shift register of PATTERN_BITS bits with linear feedback, whose
    period is longer than a pass over the whole chip: so hardly any two places hold the same. In the
    second pass it is inverted, so every bit of the chip holds both values.

    Members
    -------
    start, done
        Begins with the one, ends with the other; a check of no bursts does nothing.
    writer, read, read_data, read_valid
        To `WriteMux`, `Arbiter`, and beats from the controller. One read is under way at a time.
    fault, address : Out
        A beat was not what had been written; the first burst with such a beat.
    """

    PATTERN_BITS = 25
    SEED = 0x0ACE_E5D
    TAPS = (24, 21)  # x^25 + x^22 + 1 is primitive

    def __init__(self, *, bursts):
        if (
            not isinstance(bursts, int)
            or bursts % CHUNK_BURSTS
            or not 0 <= bursts <= 1 << BURST_ADDRESS_BITS
        ):
            raise ValueError(
                f"Memory test bursts must be a multiple of {CHUNK_BURSTS} in "
                f"0..{1 << BURST_ADDRESS_BITS}, not {bursts!r}"
            )
        self._bursts = bursts
        super().__init__(
            {
                "start": In(1),
                "done": Out(1),
                "writer": Out(WriteSignature()),
                "read": Out(stream.Signature(REQUEST)),
                "read_data": In(DATA_BITS),
                "read_valid": In(1),
                "fault": Out(1),
                "address": Out(BURST_ADDRESS_BITS),
            }
        )

    def elaborate(self, platform):
        m = Module()
        if not self._bursts:
            m.d.comb += self.done.eq(self.start)
            return m
        chunk_bits = BURST_ADDRESS_BITS - (CHUNK_BURSTS - 1).bit_length()
        inverted = Signal()
        chunk = Signal(chunk_bits)
        beat = Signal(range(CHUNK_BEATS))
        final = Signal()  # this chunk is the last one
        address = Cat(Const(0, (CHUNK_BURSTS - 1).bit_length()), chunk)
        m.d.memory += final.eq(chunk == self._bursts // CHUNK_BURSTS - 1)

        pattern = Signal(self.PATTERN_BITS, init=self.SEED)
        expected = Signal(DATA_BITS)
        step, rewind = Signal(), Signal()
        ending = Signal()  # the next beat is a chunk's last one
        writing, comparing = Signal(), Signal()
        came, came_data = Signal(), Signal(DATA_BITS)  # what was read, a cycle later
        m.d.memory += [came.eq(self.read_valid & comparing), came_data.eq(self.read_data)]
        feedback = pattern[self.TAPS[0]] ^ pattern[self.TAPS[1]]
        m.d.comb += [
            self.writer.request.valid.eq(writing),
            self.writer.beats.valid.eq(writing),
            step.eq((writing & self.writer.beats.ready) | came),
        ]
        over = Signal()  # a strobe: with this chunk
        m.d.memory += over.eq(self.writer.request.ready | (came & ending))
        with m.If(self.writer.request.ready):
            m.d.memory += writing.eq(0)
        m.d.comb += expected.eq(pattern[:DATA_BITS] ^ inverted.replicate(DATA_BITS))
        m.d.memory += rewind.eq(0)
        with m.If(rewind):  # the next beat is far away
            m.d.memory += pattern.eq(self.SEED)
        with m.Elif(step):
            m.d.memory += pattern.eq(Cat(feedback, pattern))
        with m.If(step):
            m.d.memory += [beat.eq(beat + 1), ending.eq(beat == CHUNK_BEATS - 2)]

        m.d.comb += [
            self.writer.request.payload.write.eq(1),
            self.writer.request.payload.address.eq(address),
            self.writer.request.payload.length.eq(CHUNK_LENGTH),
            self.writer.beats.payload.eq(data.View(BEAT, Cat(expected, Const(-1, DATA_BITS // 8)))),
            self.read.payload.address.eq(address),
            self.read.payload.length.eq(CHUNK_LENGTH),
        ]
        with m.FSM(domain="memory"):
            with m.State("START"):
                with m.If(self.start):
                    m.d.memory += writing.eq(1)
                    m.next = "WRITE"
            with m.State("WRITE"):
                with m.If(over):
                    m.d.memory += [chunk.eq(chunk + 1), writing.eq(1)]
                    with m.If(final):
                        m.d.memory += [rewind.eq(1), chunk.eq(0), writing.eq(0)]
                        m.next = "READ"
            with m.State("READ"):
                m.d.comb += self.read.valid.eq(1)
                with m.If(self.read.ready):
                    m.d.memory += comparing.eq(1)
                    m.next = "COMPARE"
            with m.State("COMPARE"):
                with m.If(over):
                    m.d.memory += [chunk.eq(chunk + 1), comparing.eq(0)]
                    m.next = "READ"
                    with m.If(final):
                        m.d.memory += rewind.eq(1)
                        m.d.memory += [chunk.eq(0), inverted.eq(1), writing.eq(~inverted)]
                        m.next = "WRITE"
                        with m.If(inverted):
                            m.next = "SETTLE"
            with m.State("SETTLE"):  # two cycles late, as the fault is
                m.next = "DONE"
            with m.State("DONE"):
                m.d.memory += self.done.eq(1)

        difference, wrong = Signal(DATA_BITS), Signal()
        compared, burst = Signal(BURST_ADDRESS_BITS), Signal(BURST_ADDRESS_BITS)
        m.d.memory += [
            difference.eq(Mux(came, came_data ^ expected, 0)),
            compared.eq(Cat(beat[(BURST_BEATS - 1).bit_length() :], chunk)),
            wrong.eq(difference.any()),
            burst.eq(compared),
        ]
        with m.If(wrong & ~self.fault):
            m.d.memory += [self.fault.eq(1), self.address.eq(burst)]
        return m
