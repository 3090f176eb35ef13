"""The image in SDRAM: written word by word, read as one long stream.

What the core asks for crosses to the memory's clock in one queue, in order: so a rewind reads what
was written before it. Data come back through another queue. For each rewind the memory's side puts
a marker into it, behind the last old word, and the core's side drops everything until it comes.
"""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from hw.bus import MemoryWriteSignature
from hw.memory_bus import (
    BURST_WORDS,
    CHUNK_BURSTS,
    CHUNK_LENGTH,
    CHUNK_WORDS,
    WriteSignature,
    half,
)
from hw.memory_queue import CrossingQueue
from hw.sdram import REQUEST
from hw.sdram_chip import BURST_BEATS, DATA_BITS
from hw.source import SourceSignature
from hw.stage import Stage
from isa.bits import WORD_BITS
from isa.registers import IMAGE_ADDRESS_BITS

_COMMAND = data.StructLayout({"rewind": 1, "address": IMAGE_ADDRESS_BITS, "word": WORD_BITS})
_ENTRY = data.StructLayout({"word": WORD_BITS, "marker": 1})

_WORD_IN_BURST_BITS = (BURST_WORDS - 1).bit_length()
_BURST_BITS = IMAGE_ADDRESS_BITS - _WORD_IN_BURST_BITS


class ImageStream(wiring.Component):
    """The image's ports at the core, and its reads and writes at the memory.

    Members
    -------
    write, image : the core's, in the domain `sync`
        As those of `hw.source.RamSource`. A rewind that comes while an older one is not answered
        waits for that; a third one takes its place.
    abort : In(1), in `sync`
        While it is set and until the next rewind, `image` offers nothing.
    writer, read : in `memory`
        To `WriteMux` and `Arbiter`. At most CHUNKS reads are under way.
    word, valid, last : In, in `memory`
        What was read for the image, as `ReturnPath` has it.
    """

    CHUNKS = 2
    QUEUE_WORDS = 512
    COMMANDS = 16

    def __init__(self):
        super().__init__(
            {
                "write": In(MemoryWriteSignature(address_bits=IMAGE_ADDRESS_BITS)),
                "image": Out(SourceSignature()),
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
        m.submodules.commands = commands = CrossingQueue(
            _COMMAND, depth=self.COMMANDS, source="sync", target="memory"
        )
        m.submodules.words = words = CrossingQueue(
            _ENTRY, depth=self.QUEUE_WORDS, source="memory", target="sync"
        )
        m.submodules.front = front = Stage(_ENTRY)
        wiring.connect(m, words.output, front.input)
        self._core_side(m, commands, front)
        self._memory_side(m, commands, words)
        return m

    def _core_side(self, m, commands, front):
        image = self.image
        asked = Signal()  # a rewind has not been sent yet
        sent = Signal()  # one has, and its marker has not come
        silent = Signal(init=1)
        address = Signal(IMAGE_ADDRESS_BITS)
        send = Signal()
        # A register in front of the queue: the words come from far away
        offered, command = Signal(), Signal(_COMMAND)
        load = Signal()
        m.d.comb += [
            load.eq(~offered | commands.input.ready),
            send.eq(asked & ~sent & load),
            self.write.ready.eq(load & ~(asked & ~sent)),
            commands.input.valid.eq(offered),
            commands.input.payload.eq(command),
        ]
        with m.If(load):
            m.d.sync += [
                offered.eq((asked & ~sent) | self.write.valid),
                command.rewind.eq(asked & ~sent),
                command.address.eq(Mux(asked & ~sent, address, self.write.address)),
                command.word.eq(self.write.data),
            ]
        entry = front.output.payload
        m.d.comb += [
            image.words.payload.eq(entry.word),
            image.words.valid.eq(front.output.valid & ~(asked | sent | silent)),
            front.output.ready.eq(sent | (image.words.valid & image.words.ready)),
        ]
        with m.If(sent & front.output.valid & entry.marker):
            m.d.sync += sent.eq(0)
        with m.If(send):
            m.d.sync += [asked.eq(0), sent.eq(1)]
        with m.If(self.abort):
            m.d.sync += [asked.eq(0), silent.eq(1)]
        with m.Elif(image.rewind):
            m.d.sync += [asked.eq(1), silent.eq(0), address.eq(image.address)]

    def _memory_side(self, m, commands, words):
        command = commands.output.payload
        in_burst = command.address[:_WORD_IN_BURST_BITS]
        burst = command.address[_WORD_IN_BURST_BITS:]

        # --- requests: a chunk whenever there is room for it and for all that is under way --------
        running = Signal()
        position = Signal(_BURST_BITS)
        under_way = Signal(range(self.CHUNKS + 1))
        taken = Signal()
        settled = Signal(3)  # `room` takes three cycles to know of a request
        room, filled, full = Signal(), Signal(range(self.QUEUE_WORDS + 1)), Signal()
        level = words.level[CHUNK_WORDS.bit_length() - 1 :]
        limit = (
            self.QUEUE_WORDS // CHUNK_WORDS - 3
        )  # a part of a chunk may be there, and one is asked for
        stop = Signal()
        m.d.comb += [
            taken.eq(self.read.valid & self.read.ready),
            self.read.payload.address.eq(position),
            self.read.payload.length.eq(CHUNK_LENGTH),
        ]
        m.d.memory += [
            filled.eq(level + under_way),
            full.eq(under_way == self.CHUNKS),
            room.eq((filled <= limit) & ~full),
            settled.eq(Cat(~taken, settled)),
            under_way.eq(under_way + taken - self.last),
        ]
        advance = Signal()
        m.d.memory += advance.eq(taken)
        with m.If(advance):
            m.d.memory += position.eq(position + CHUNK_BURSTS)
        with m.If(taken):
            m.d.memory += self.read.valid.eq(0)
        with m.Elif(running & room & settled.all() & ~stop):
            m.d.memory += self.read.valid.eq(1)

        # --- what comes back; the first words of a burst may be before the place asked for --------
        skip = Signal(_WORD_IN_BURST_BITS)
        marker = Signal()
        entering, entry = Signal(), Signal(_ENTRY)
        m.d.comb += [words.input.valid.eq(entering), words.input.payload.eq(entry)]
        m.d.memory += [
            entering.eq((self.valid & (skip == 0)) | marker),
            entry.word.eq(self.word),
            entry.marker.eq(marker),
        ]
        with m.If(self.valid & (skip != 0)):
            m.d.memory += skip.eq(skip - 1)

        # --- commands, one at a time --------------------------------------------------------------
        beat = Signal(range(BURST_BEATS))
        writing = Signal()
        begin = Signal()
        with m.If(begin):
            m.d.memory += [running.eq(1), position.eq(burst), skip.eq(in_burst)]
        quiet = Signal()  # no read is asked for or under way; none will be
        done = Signal()
        m.d.memory += [
            quiet.eq(stop & ~self.read.valid & settled.all() & (under_way == 0)),
            done.eq(0),
            begin.eq(marker),
        ]
        with m.If(self.writer.beats.ready):
            m.d.memory += beat.eq(beat + 1)
        m.d.comb += [
            self.writer.request.valid.eq(writing),
            self.writer.beats.valid.eq(writing),
            commands.output.ready.eq(done),
        ]
        m.d.comb += [
            self.writer.request.payload.write.eq(1),
            self.writer.request.payload.address.eq(burst),
            self.writer.beats.payload.data.eq(half(command.word, beat[0]).data),
            self.writer.beats.payload.enable.eq((beat[1:] == in_burst).replicate(DATA_BITS // 8)),
        ]
        with m.FSM(domain="memory"):
            with m.State("IDLE"):
                with m.If(commands.output.valid):
                    with m.If(command.rewind):
                        m.next = "STOP"
                    with m.Else():
                        m.d.memory += writing.eq(1)
                        m.next = "WRITE"
            with m.State("WRITE"):
                with m.If(self.writer.request.ready):
                    m.d.memory += writing.eq(0)
                    m.d.memory += done.eq(1)
                    m.next = "NEXT"
            with m.State("STOP"):
                m.d.comb += stop.eq(1)
                with m.If(quiet & words.input.ready):
                    m.d.comb += marker.eq(1)
                    m.d.memory += done.eq(1)
                    m.next = "NEXT"
            with m.State("NEXT"):
                m.next = "IDLE"
