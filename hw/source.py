"""Where the image comes from: a block RAM, the host link or an SDRAM, behind one signature.

`rewind` (one cycle) drops every word that was fetched and goes on at the word `address`; in the
cycle after it, `words` offers nothing old. Otherwise `words` is an ordinary stream of 32-bit words.
"""

from amaranth.hdl import Array, Cat, Const, Module, Mux, ResetInserter, Signal
from amaranth.lib import fifo, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out, connect, flipped

from hw.bus import MemoryWriteSignature
from hw.stage import Stage
from isa.bits import WORD_BITS
from isa.registers import IMAGE_ADDRESS_BITS, Source

#: A word that is read in the cycle in which it is written may be anything: synthesis need not spend
#: logic on it, as the CRC would notice.
UNCHECKED = {"no_rw_check": 1}


class SourceSignature(wiring.Signature):
    """As the source sees it."""

    def __init__(self):
        super().__init__(
            {
                "rewind": In(1),
                "address": In(IMAGE_ADDRESS_BITS),
                "words": Out(stream.Signature(WORD_BITS)),
            }
        )

    def __eq__(self, other):
        return type(other) is type(self)

    def __repr__(self):
        return "SourceSignature()"


class RamSource(wiring.Component):
    """A block RAM of `words` words that holds the whole image, written through `write`.

    Streams one word a cycle; the first comes LATENCY cycles after `rewind`. After the last word of
    the memory the stream just ends. A word that is written while it is being fetched may be read
    as anything. `init` pre-fills the memory, for simulation. It consists of banks of BANK_WORDS
    words, whose instances are named `image_ram_0`, `image_ram_1`, ...
    """

    LATENCY = 5  # from the rewind's cycle to the first word's: address, bank, two registers, queue
    QUEUE = 8  # covers the latency, so that the stream has no bubbles
    # Four blocks of 2048 x 9 need no multiplexer between their slow outputs and the first register.
    BANK_WORDS = 2048

    def __init__(self, *, words, init=()):
        if not isinstance(words, int) or not 1 <= words <= 1 << IMAGE_ADDRESS_BITS:
            raise ValueError(
                f"RAM source words must be in 1..{1 << IMAGE_ADDRESS_BITS}, not {words!r}"
            )
        if len(init) > words:
            raise ValueError(f"RAM source init must be at most {words} words, not {len(init)}")
        self.words = words
        self._init = list(init)
        super().__init__(
            {
                "write": In(MemoryWriteSignature(address_bits=IMAGE_ADDRESS_BITS)),
                "image": Out(SourceSignature()),
            }
        )

    def elaborate(self, platform):
        m = Module()
        rewind = self.image.rewind
        queue = fifo.SyncFIFO(width=WORD_BITS, depth=self.QUEUE)
        m.submodules.queue = ResetInserter(rewind)(queue)

        position = Signal(range(self.words + 1), init=self.words)
        room = Signal(range(self.QUEUE + 1), init=self.QUEUE)  # queue places nobody fetches for
        fetch = Signal()
        take = Signal()
        m.d.comb += [
            self.write.ready.eq(1),
            fetch.eq((room != 0) & (position != self.words)),
            take.eq(self.image.words.valid & self.image.words.ready),
        ]

        # Banks, each with a register behind it, and a multiplexer with another one
        bank_bits = (self.BANK_WORDS - 1).bit_length()
        read_data = []
        for start in range(0, self.words, self.BANK_WORDS):
            depth = min(self.BANK_WORDS, self.words - start)
            init = self._init[start : start + depth]
            bank = Memory(shape=WORD_BITS, depth=depth, init=init, attrs=UNCHECKED)
            number = start // self.BANK_WORDS
            m.submodules[f"image_ram_{number}"] = bank
            write, read = bank.write_port(), bank.read_port()
            here = (self.write.address[bank_bits:] == number) & (self.write.address < self.words)
            m.d.comb += [
                write.en.eq(self.write.valid & here),
                write.addr.eq(self.write.address),
                write.data.eq(self.write.data),
                read.addr.eq(position),
                read.en.eq(1),
            ]
            read_data.append(Signal(WORD_BITS, name=f"bank{number}_data"))
            m.d.sync += read_data[number].eq(read.data)
        selected = [Signal(range(len(read_data)), name=f"selected{i}") for i in range(2)]
        valid = [Signal(name=f"valid{i}") for i in range(3)]
        word = Signal(WORD_BITS)
        m.d.sync += [
            selected[0].eq(position >> bank_bits),
            selected[1].eq(selected[0]),
            word.eq(Array(read_data)[selected[1]]),
        ]

        m.d.comb += [
            queue.w_data.eq(word),
            queue.w_en.eq(valid[2]),
            self.image.words.payload.eq(queue.r_data),
            self.image.words.valid.eq(queue.r_rdy),
            queue.r_en.eq(self.image.words.ready),
        ]
        m.d.sync += [
            position.eq(position + fetch),
            room.eq(room - fetch + take),
            Cat(valid).eq(Cat(fetch, valid)),
        ]
        with m.If(rewind):
            m.d.sync += [
                position.eq(Mux(self.image.address < self.words, self.image.address, self.words)),
                room.eq(self.QUEUE),
                Cat(valid).eq(0),
            ]
        return m


class LinkSource(wiring.Component):
    """Passes on the words that the host pushes into the STREAM port, in order.

    It cannot go back: after `rewind`, whatever the address, the host has to send the words again.
    Words that came before the rewind are dropped, so those of an aborted frame do no harm.
    """

    QUEUE = 16

    def __init__(self):
        super().__init__(
            {
                "stream": In(stream.Signature(WORD_BITS)),
                "image": Out(SourceSignature()),
            }
        )

    def elaborate(self, platform):
        m = Module()
        queue = fifo.SyncFIFO(width=WORD_BITS, depth=self.QUEUE)
        m.submodules.queue = ResetInserter(self.image.rewind)(queue)
        m.d.comb += [
            queue.w_data.eq(self.stream.payload),
            queue.w_en.eq(self.stream.valid),
            self.stream.ready.eq(queue.w_rdy),
            self.image.words.payload.eq(queue.r_data),
            self.image.words.valid.eq(queue.r_rdy),
            queue.r_en.eq(self.image.words.ready),
        ]
        return m


class SourceMux(wiring.Component):
    """Connects the source that `select` names, and words for the memory behind it.

    `sources` are those that exist, each with a port `ram`, `link` or `sdram`; a memory among them
    has a port `write_ram` or `write_sdram` as well. Any other source is silent, and what is written
    there is dropped. `select` changes only while nothing streams and no word waits.

    A rewind gets to the source a cycle later, and words come from there a cycle later: so many
    registers are on the way.
    """

    def __init__(self, *, sources):
        self._sources = tuple(sources)
        writes = MemoryWriteSignature(address_bits=IMAGE_ADDRESS_BITS)
        ports = {source: source.name.lower() for source in self._sources}
        self._memories = {
            source: f"write_{name}" for source, name in ports.items() if source is not Source.LINK
        }
        super().__init__(
            {
                "select": In(Source),
                "write": In(writes),
                "image": Out(SourceSignature()),
                **{name: In(SourceSignature()) for name in ports.values()},
                **{name: Out(writes) for name in self._memories.values()},
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.d.comb += self.write.ready.eq(1)
        for source, name in self._memories.items():
            port = getattr(self, name)
            m.d.comb += [port.address.eq(self.write.address), port.data.eq(self.write.data)]
            with m.If(self.select == source):
                m.d.comb += [
                    port.valid.eq(self.write.valid),
                    self.write.ready.eq(port.ready),
                ]
        stage = Stage(WORD_BITS)
        m.submodules.stage = ResetInserter(self.image.rewind)(stage)
        connect(m, stage.output, flipped(self.image.words))
        address = Signal(IMAGE_ADDRESS_BITS, reset_less=True)
        rewinds = Signal()  # the source gives old words until the next cycle
        m.d.sync += [address.eq(self.image.address), rewinds.eq(self.image.rewind)]
        taking, payload, valid = Signal(), Const(0), Const(0)
        for source in self._sources:
            name = source.name.lower()
            port = getattr(self, name)
            selected = Signal(name=f"{name}_selected")
            m.d.sync += [
                selected.eq(self.select == source),
                port.rewind.eq(self.image.rewind & (self.select == source)),
            ]
            m.d.comb += [port.address.eq(address), port.words.ready.eq(selected & taking)]
            payload |= Mux(selected, port.words.payload, 0)
            valid |= selected & port.words.valid
        m.d.comb += [
            taking.eq(stage.input.ready & ~rewinds),
            stage.input.payload.eq(payload),
            stage.input.valid.eq(valid & ~rewinds),
        ]
        return m
