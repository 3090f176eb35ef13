"""Between the SDRAM's controller and those who read and write: who is next, and whose data it is.

All of it is in the domain `memory`. Reads move a chunk of CHUNK_BURSTS bursts each; writes a chunk,
or one burst of which a word is enabled.
"""

from amaranth.hdl import Array, Cat, Const, DomainRenamer, Module, Mux, Signal
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
        left = Signal(range(CHUNK_BEATS))  # beats behind the next one
        waiting = [writer.request.valid for writer in self.writers]
        m.d.comb += [
            self.urgent.eq(selected == Client.IMAGE),
            self.request.payload.eq(
                Array(writer.request.payload.as_value() for writer in self.writers)[
                    selected.as_value()
                ]
            ),
        ]
        with m.FSM(domain="memory"):
            with m.State("CHOOSE"):
                m.d.memory += left.eq(CHUNK_BEATS - 1)
                with m.If(self.checking):
                    m.d.memory += selected.eq(Client.CHECK)
                    with m.If(waiting[Client.CHECK.value]):
                        m.next = "FILL"
                with m.Elif(waiting[Client.IMAGE.value]):
                    m.d.memory += [selected.eq(Client.IMAGE), left.eq(BURST_BEATS - 1)]
                    m.next = "FILL"
                with m.Elif(waiting[Client.FRAMES.value]):
                    m.d.memory += selected.eq(Client.FRAMES)
                    m.next = "FILL"
            with m.State("FILL"):
                with m.Switch(selected):
                    for client in Client:
                        beats = self.writers[client.value].beats
                        with m.Case(client):
                            m.d.comb += [
                                self.beats.valid.eq(beats.valid),
                                self.beats.payload.eq(beats.payload),
                                beats.ready.eq(self.beats.ready),
                            ]
                with m.If(self.beats.valid & self.beats.ready):
                    m.d.memory += left.eq(left - 1)
                    with m.If(left == 0):
                        m.next = "OFFER"
            with m.State("OFFER"):
                m.d.comb += self.request.valid.eq(1)
                with m.Switch(selected):
                    for client in Client:
                        with m.Case(client):
                            m.d.comb += self.writers[client.value].request.ready.eq(
                                self.request.ready
                            )
                with m.If(self.request.ready):
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
        image, frames, check = self.readers
        image_waits = image.valid & ~self.checking
        frames_wait = frames.valid & ~self.checking
        others_next = Signal()
        chosen = Signal(_Choice)
        with m.FSM(domain="memory"):
            with m.State("CHOOSE"):
                with m.If(self.write.valid & self.urgent):
                    m.d.memory += chosen.eq(_Choice.WRITE)
                    m.next = "LOAD"
                with m.Elif(image_waits & ~(others_next & (self.write.valid | frames_wait))):
                    m.d.memory += [chosen.eq(_Choice.IMAGE), others_next.eq(1)]
                    m.next = "LOAD"
                with m.Elif(frames_wait):
                    m.d.memory += [chosen.eq(_Choice.FRAMES), others_next.eq(0)]
                    m.next = "LOAD"
                with m.Elif(self.write.valid):
                    m.d.memory += [chosen.eq(_Choice.WRITE), others_next.eq(0)]
                    m.next = "LOAD"
                with m.Elif(check.valid):
                    m.d.memory += chosen.eq(_Choice.CHECK)
                    m.next = "LOAD"
            with m.State("LOAD"):  # a cycle of its own: the choice and the way are both long
                m.d.memory += self.requests.valid.eq(1)
                with m.Switch(chosen):
                    for choice in _Choice:
                        port = self._port(choice)
                        with m.Case(choice):
                            m.d.comb += port.ready.eq(1)
                            m.d.memory += self.requests.payload.eq(port.payload)
                m.d.comb += [
                    self.reading.valid.eq(chosen != _Choice.WRITE),
                    self.reading.payload.eq(chosen.as_value()),
                ]
                m.next = "WAIT"
            with m.State("WAIT"):
                with m.If(self.requests.ready):
                    m.d.memory += self.requests.valid.eq(0)
                    m.next = "CHOOSE"
        return m

    def _port(self, choice):
        return self.write if choice is _Choice.WRITE else self.readers[choice.value]


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
        low = Signal(DATA_BITS)
        m.d.comb += [
            queue.w_en.eq(self.reading.valid),
            queue.w_data.eq(self.reading.payload),
        ]
        m.d.memory += [
            self.valid.eq(self.read_valid & beat[0]),
            self.last.eq(self.read_valid & (beat == CHUNK_BEATS - 1)),
            self.client.eq(queue.r_data),
        ]
        with m.If(self.read_valid):
            m.d.memory += beat.eq(beat + 1)
            with m.If(beat[0]):
                m.d.memory += self.word.eq(Cat(low, self.read_data))
            with m.Else():
                m.d.memory += low.eq(self.read_data)
        m.d.comb += queue.r_en.eq(self.read_valid & (beat == CHUNK_BEATS - 1))
        return m


def half(word, upper):
    """The beat, all bytes enabled, with one half of a word."""
    value = Mux(upper, word[DATA_BITS:], word[:DATA_BITS])
    return data.View(BEAT, Cat(value, Const(-1, DATA_BITS // 8)))
