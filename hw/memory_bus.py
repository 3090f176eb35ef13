"""Between the SDRAM's controller and those who read and write: who is next, and whose data it is.

All of it is in the domain `memory`. Reads move a chunk of CHUNK_BURSTS bursts each; writes a chunk,
or one burst of which a word is enabled.
"""

from amaranth.hdl import Array, Cat, Const, DomainRenamer, Module, Mux, Signal, signed
from amaranth.lib import data, enum, fifo, stream, wiring
from amaranth.lib.wiring import In, Out

from hw.sdram import REQUEST
from hw.sdram_chip import BURST_BEATS, BURST_BITS, DATA_BITS
from hw.sdram_queue import BEAT
from isa.bits import WORD_BITS

CHUNK_BURSTS = 16
CHUNK_BEATS = CHUNK_BURSTS * BURST_BEATS
BURST_WORDS = BURST_BITS // WORD_BITS
CHUNK_WORDS = CHUNK_BURSTS * BURST_WORDS

CHUNK_LENGTH = CHUNK_BURSTS - 1
"""The `length` of a request of a chunk."""


class Client(enum.Enum, shape=2):
    """Whom the memory works for; the order of their ports, and the priority of their writes."""

    IMAGE = 0
    FRAMES = 1
    CHECK = 2


CLIENTS = len(Client)


class WriteSignature(wiring.Signature):
    """As the writer sees it: a request and its beats, in two streams.

    The beats are taken first, then the request, when it is this one's turn at the controller.
    """

    def __init__(self):
        super().__init__(
            {"request": Out(stream.Signature(REQUEST)), "beats": Out(stream.Signature(BEAT))}
        )

    def __eq__(self, other):
        return type(other) is type(self)

    def __repr__(self):
        return "WriteSignature()"


class WriteMux(wiring.Component):
    """One write after the other: the beats into the controller's queue, then the request.

    So a write never holds up the reads behind it, waiting for its beats. `urgent` goes with a
    request of the image's. While `checking`, only the memory test is served.
    """

    def __init__(self):
        super().__init__(
            {
                "checking": In(1),
                "writers": In(WriteSignature()).array(CLIENTS),
                "request": Out(stream.Signature(REQUEST)),
                "urgent": Out(1),
                "beats": Out(stream.Signature(BEAT)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        selected = Signal(Client)
        filling = Signal(CLIENTS)  # a bit for each client: its beats are taken
        offered = Signal(CLIENTS)  # and: its request is
        # Beats that are still to come, less two; its sign is set before the last one
        left = Signal(signed(1 + (CHUNK_BEATS - 2).bit_length()))
        waiting = Signal(CLIENTS)
        request = Signal(REQUEST, reset_less=True)
        m.d.comb += self.request.payload.eq(request)
        m.d.memory += [
            waiting.eq(Cat(writer.request.valid for writer in self.writers)),
            # It stays as it is while its beats are taken.
            request.eq(
                Array(writer.request.payload.as_value() for writer in self.writers)[
                    selected.as_value()
                ]
            ),
        ]
        m.d.comb += [
            self.urgent.eq(offered[Client.IMAGE.value]),
            self.request.valid.eq(offered.any()),
        ]
        source = Signal(CLIENTS)  # `selected` as bits
        m.d.memory += source.eq(1 << selected.as_value())
        beat = 0
        for client, writer in enumerate(self.writers):
            beat |= Mux(source[client], writer.beats.payload.as_value(), 0)
            m.d.comb += [
                writer.beats.ready.eq(self.beats.ready & filling[client]),
                writer.request.ready.eq(self.request.ready & offered[client]),
            ]
        m.d.comb += [
            self.beats.valid.eq(
                (filling & Cat(writer.beats.valid for writer in self.writers)).any()
            ),
            self.beats.payload.eq(beat),
        ]
        with m.If(self.beats.valid & self.beats.ready):
            m.d.memory += left.eq(left - 1)
            with m.If(left[-1]):
                m.d.memory += [filling.eq(0), offered.eq(filling)]
        with m.If(self.request.ready):
            m.d.memory += offered.eq(0)
        with m.FSM(domain="memory"):
            with m.State("CHOOSE"):
                m.d.memory += left.eq(CHUNK_BEATS - 2)
                with m.If(self.checking):
                    m.d.memory += selected.eq(Client.CHECK)
                    with m.If(waiting[Client.CHECK.value]):
                        m.next = "BEGIN"
                with m.Elif(waiting[Client.IMAGE.value]):
                    m.d.memory += [selected.eq(Client.IMAGE), left.eq(BURST_BEATS - 2)]
                    m.next = "BEGIN"
                with m.Elif(waiting[Client.FRAMES.value]):
                    m.d.memory += selected.eq(Client.FRAMES)
                    m.next = "BEGIN"
            with m.State("BEGIN"):
                m.next = "SELECT"
            with m.State("SELECT"):
                m.d.memory += filling.eq(source)
                m.next = "FILL"
            with m.State("FILL"):
                with m.If(self.request.ready):
                    m.next = "SETTLE"
            with m.State("SETTLE"):  # until `waiting` knows of it
                m.next = "CHOOSE"
        return m


class _Choice(enum.Enum, shape=2):
    """Whose request is next; the readers as in `Client`."""

    IMAGE = 0
    FRAMES = 1
    CHECK = 2
    WRITE = 3


class Arbiter(wiring.Component):
    """Orders the requests: the image's writes first, then its reads and everything else in turns.

    Reads are of one chunk. `write` and `readers` are taken one after the other; the next one waits
    in a register while the controller works, so the bus does not idle between them. While
    `checking`, only the memory test reads, and nothing is `urgent`.
    """

    def __init__(self):
        super().__init__(
            {
                "checking": In(1),
                "write": In(stream.Signature(REQUEST)),
                "urgent": In(1),
                "readers": In(stream.Signature(REQUEST)).array(CLIENTS),
                "requests": Out(stream.Signature(REQUEST)),
                "reading": Out(stream.Signature(Client, always_ready=True)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        # Who waits, a cycle late
        urgent, write, image, frames, check = (
            Signal(name=name) for name in ("urgent", "write", "image", "frames", "check")
        )
        give_way = Signal()  # the image does, to somebody else
        others_next = Signal()
        readers = self.readers
        m.d.memory += [
            urgent.eq(self.write.valid & self.urgent),
            write.eq(self.write.valid),
            image.eq(readers[Client.IMAGE.value].valid & ~self.checking),
            frames.eq(readers[Client.FRAMES.value].valid & ~self.checking),
            check.eq(readers[Client.CHECK.value].valid),
            give_way.eq(
                others_next
                & (self.write.valid | (readers[Client.FRAMES.value].valid & ~self.checking))
            ),
        ]
        chosen = Signal(_Choice)
        # A bit for each: its request is taken. Low again after a cycle, so it needs no reset.
        taken = Signal(len(_Choice), reset_less=True)
        m.d.memory += taken.eq(0)
        with m.FSM(domain="memory"):
            with m.State("CHOOSE"):
                # Taken twice it would be if it were chosen before its `valid` was seen to fall.
                with m.If(urgent):
                    self._take(m, chosen, taken, _Choice.WRITE)
                with m.Elif(image & ~give_way):
                    self._take(m, chosen, taken, _Choice.IMAGE)
                    m.d.memory += others_next.eq(1)
                with m.Elif(frames):
                    self._take(m, chosen, taken, _Choice.FRAMES)
                    m.d.memory += others_next.eq(0)
                with m.Elif(write):
                    self._take(m, chosen, taken, _Choice.WRITE)
                    m.d.memory += others_next.eq(0)
                with m.Elif(check):
                    self._take(m, chosen, taken, _Choice.CHECK)
            with m.State("LOAD"):
                m.d.memory += self.requests.valid.eq(1)
                m.next = "WAIT"
            with m.State("WAIT"):
                with m.If(self.requests.ready):
                    m.d.memory += self.requests.valid.eq(0)
                    m.next = "SETTLE"
            with m.State("SETTLE"):  # until the request that was taken is seen to be gone
                m.next = "CHOOSE"
        ports = [*readers, self.write]
        for choice in _Choice:
            m.d.comb += ports[choice.value].ready.eq(taken[choice.value])
        request = Signal(REQUEST, reset_less=True)
        m.d.comb += self.requests.payload.eq(request)
        with m.If(~self.requests.valid):
            m.d.memory += request.eq(
                Array(port.payload.as_value() for port in ports)[chosen.as_value()]
            )
        for client in Client:
            with m.If(taken[client.value]):
                m.d.comb += [self.reading.valid.eq(1), self.reading.payload.eq(client)]
        return m

    def _take(self, m, chosen, taken, choice):
        m.d.memory += [chosen.eq(choice), taken.eq(1 << choice.value)]
        m.next = "LOAD"


class ReturnPath(wiring.Component):
    """Puts the beats that were read together to words, the first one in the lower half.

    `word` is for `client` in the cycles in which `valid` is set; `last` goes with the last one of a
    chunk. At most CHUNKS chunks may be under way.
    """

    CHUNKS = 4

    def __init__(self):
        super().__init__(
            {
                "reading": In(stream.Signature(Client, always_ready=True)),
                "read_data": In(DATA_BITS),
                "read_valid": In(1),
                "client": Out(Client),
                "word": Out(WORD_BITS),
                "valid": Out(1),
                "last": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        queue = fifo.SyncFIFO(width=len(self.client.as_value()), depth=self.CHUNKS)
        m.submodules.queue = DomainRenamer("memory")(queue)
        beat = Signal(range(CHUNK_BEATS))
        final = Signal()  # the next beat is a chunk's last one
        low = Signal(DATA_BITS, reset_less=True)
        reading = Signal.like(self.reading.payload)
        m.d.comb += queue.w_data.eq(reading)
        m.d.memory += [
            queue.w_en.eq(self.reading.valid),
            reading.eq(self.reading.payload),
            self.valid.eq(self.read_valid & beat[0]),
            self.last.eq(self.read_valid & final),
            self.client.eq(queue.r_data),
        ]
        with m.If(self.read_valid):
            m.d.memory += [beat.eq(beat + 1), final.eq(beat == CHUNK_BEATS - 2)]
            with m.If(beat[0]):
                m.d.memory += self.word.eq(Cat(low, self.read_data))
            with m.Else():
                m.d.memory += low.eq(self.read_data)
        # The word behind the last one comes two cycles after it, or later.
        m.d.comb += queue.r_en.eq(self.last)
        return m


def half(word, upper):
    """The beat, all bytes enabled, with one half of a word."""
    value = Mux(upper, word[DATA_BITS:], word[:DATA_BITS])
    return data.View(BEAT, Cat(value, Const(-1, DATA_BITS // 8)))
