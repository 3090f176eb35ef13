"""The image in the SPI flash: read as a stream of words, and copied to the SDRAM at start-up.

The flash is any of 16 MiB with addresses of 24 bits (IS25LP128, W25Q128), on one data line each way
in SPI mode 0, at half the core's clock. So a megabyte takes 0.28 s at 60 MHz.
"""

from amaranth.hdl import Cat, Const, Module, Signal
from amaranth.lib import enum, stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from hw.bus import MemoryWriteSignature
from isa.bits import WORD_BITS
from isa.flash import ADDRESS_BITS, FLASH_BYTES, IMAGE_OFFSET, image_words
from isa.image import HEADER, HEADER_WORDS, MAGIC
from isa.registers import IMAGE_ADDRESS_BITS

FAST_READ = (
    0x0B  # followed by the address and DUMMY_BITS; then come bytes, most significant bit first
)
DUMMY_BITS = 8
COMMAND_BITS = 8 + ADDRESS_BITS + DUMMY_BITS


class SpiSignature(wiring.Signature):
    """As the flash's master sees it; `cs` is 1 while the chip is selected.

    There is one register in each pad: the chip sees what was driven a cycle earlier, and `cipo` is
    what it drove a cycle earlier.
    """

    def __init__(self):
        super().__init__({"sck": Out(1), "cs": Out(1), "copi": Out(1), "cipo": In(1)})

    def __eq__(self, other):
        return type(other) is type(self)

    def __repr__(self):
        return "SpiSignature()"


class FlashReader(wiring.Component):
    """The words of the flash from byte `offset` on, little endian, one in 64 cycles at most.

    A bit is taken where the clock falls next: a whole period after the chip was told to drive it.

    Members
    -------
    enable : In(1)
        A level: reads from `offset` on. Without it the chip is deselected, and words that were not
        taken are dropped. To be 0 for 20 cycles before it is 1 again.
    words : Out(stream of 32 bits)
        Without an end: the flash wraps. While a word waits, the clock does.
    spi : Out(SpiSignature)
    """

    class State(enum.Enum, shape=2):
        IDLE = 0
        COMMAND = 1
        DATA = 2

    # From the clock's fall to the cycle in which what stood in the pad then has come from there.
    PAD_CYCLES = 3

    def __init__(self, *, offset):
        if not isinstance(offset, int) or not 0 <= offset < FLASH_BYTES:
            raise ValueError(f"Flash reader offset must be in 0..{FLASH_BYTES - 1}, not {offset!r}")
        self._offset = offset
        super().__init__(
            {
                "enable": In(1),
                "words": Out(stream.Signature(WORD_BITS)),
                "spi": Out(SpiSignature()),
            }
        )

    def elaborate(self, platform):
        m = Module()
        State = self.State
        spi, words = self.spi, self.words
        state = Signal(State)
        to_send = Signal(COMMAND_BITS)
        command = FAST_READ << ADDRESS_BITS | self._offset
        left = Signal(range(COMMAND_BITS))  # bits of the command behind this one
        clocked = Signal(range(WORD_BITS))  # bits of a word that the chip has been clocked for
        arriving = Signal(self.PAD_CYCLES)
        arrived = Signal(range(WORD_BITS))
        bits = Signal(WORD_BITS)
        complete = Signal()  # a word is
        cipo = Signal(reset_less=True)
        wait = Signal()
        m.d.comb += [
            spi.copi.eq(to_send[-1]),
            # The last bit of a word is not asked for while the word before it waits.
            wait.eq((clocked == WORD_BITS - 1) & words.valid),
        ]
        m.d.sync += [arriving.eq(arriving << 1), cipo.eq(spi.cipo), complete.eq(0)]

        with m.If(words.ready):
            m.d.sync += words.valid.eq(0)
        with m.If(arriving[-1]):
            m.d.sync += [
                bits.eq(Cat(cipo, bits)),
                arrived.eq(arrived + 1),
                complete.eq(arrived == WORD_BITS - 1),
            ]
        with m.If(complete):
            # Bytes come lowest first, but their bits highest first.
            lanes = [bits[start : start + 8] for start in reversed(range(0, WORD_BITS, 8))]
            m.d.sync += [words.payload.eq(Cat(lanes)), words.valid.eq(1)]

        with m.Switch(state):
            with m.Case(State.IDLE):
                m.d.sync += [spi.sck.eq(0), spi.cs.eq(0)]
                with m.If(self.enable):
                    m.d.sync += [
                        spi.cs.eq(1),
                        state.eq(State.COMMAND),
                        to_send.eq(Const(command, 8 + ADDRESS_BITS) << DUMMY_BITS),
                        left.eq(COMMAND_BITS - 1),
                        Cat(clocked, arrived).eq(0),
                    ]
            with m.Case(State.COMMAND):
                m.d.sync += spi.sck.eq(~spi.sck)
                with m.If(spi.sck):
                    m.d.sync += [to_send.eq(to_send << 1), left.eq(left - 1)]
                    with m.If(left == 0):
                        m.d.sync += state.eq(State.DATA)
            with m.Case(State.DATA):
                m.d.sync += spi.sck.eq(~spi.sck & ~wait)
                with m.If(spi.sck):
                    m.d.sync += [arriving[0].eq(1), clocked.eq(clocked + 1)]
        with m.If(~self.enable):
            m.d.sync += [
                state.eq(State.IDLE),
                words.valid.eq(0),
                arriving.eq(0),
                complete.eq(0),
            ]
        return m


class FlashCopier(wiring.Component):
    """Copies the image in the flash to the memory, once, after the reset, as `isa.flash` says.

    A word takes some cycles, so that hardly anything depends on two things at once.

    Members
    -------
    memory_ready, memory_fault : In(1)
        Levels: the memory has been tested; it is not to be used.
    claim : In(1)
        Strobe: the host takes over. Nothing is written from the next cycle on.
    host : In(MemoryWriteSignature)
        Not ready while the copy goes on.
    write : Out(MemoryWriteSignature)
        To the memory. What waits there is dropped by `claim`.
    copying : Out(1)
        From the reset to the end, with an image or without one.
    copied : Out(1)
        Strobe: the memory has accepted the last word.
    spi : Out(SpiSignature)
    """

    class State(enum.Enum, shape=3):
        WAIT = 0  # for the memory
        FETCH = 1  # a word is awaited
        JUDGE = 2
        OFFER = 3
        TAKEN = 4
        DONE = 5
        OFF = 6

    def __init__(self, *, geometry):
        if not geometry.sdram_bytes:
            raise ValueError(
                f"Flash copier geometry must have an SDRAM to copy to, not {geometry.name!r}"
            )
        self._most = image_words(geometry) - HEADER_WORDS
        writes = MemoryWriteSignature(address_bits=IMAGE_ADDRESS_BITS)
        super().__init__(
            {
                "memory_ready": In(1),
                "memory_fault": In(1),
                "claim": In(1),
                "host": In(writes),
                "write": Out(writes),
                "copying": Out(1, init=1),
                "copied": Out(1),
                "spi": Out(SpiSignature()),
            }
        )

    def elaborate(self, platform):
        m = Module()
        State = self.State
        m.submodules.reader = reader = FlashReader(offset=IMAGE_OFFSET)
        connect(m, reader.spi, flipped(self.spi))
        state = Signal(State)
        word = reader.words.payload
        address = Signal(IMAGE_ADDRESS_BITS)
        last = Signal(IMAGE_ADDRESS_BITS, init=HEADER_WORDS - 1)
        length_address = HEADER["frame_words"].offset // WORD_BITS
        # Of the word that waits, from the cycle after the one in which it came
        foreign, is_length, is_last = Signal(), Signal(), Signal()
        m.d.comb += [
            self.copied.eq(state == State.DONE),
            reader.words.ready.eq(state == State.TAKEN),
        ]
        m.d.sync += [
            foreign.eq((address == 0) & (word != MAGIC)),
            is_length.eq((address == length_address) & (word <= self._most)),
            is_last.eq(address == last),
        ]
        with m.If(self.copying):
            m.d.comb += [
                self.write.valid.eq(state == State.OFFER),
                self.write.address.eq(address),
                self.write.data.eq(word),
            ]
        with m.Else():
            connect(m, flipped(self.host), flipped(self.write))

        stop = [state.eq(State.OFF), self.copying.eq(0), reader.enable.eq(0)]
        with m.Switch(state):
            with m.Case(State.WAIT):
                with m.If(self.memory_ready):
                    m.d.sync += [state.eq(State.FETCH), reader.enable.eq(1)]
            with m.Case(State.FETCH):
                with m.If(reader.words.valid):
                    m.d.sync += state.eq(State.JUDGE)
            with m.Case(State.JUDGE):
                m.d.sync += state.eq(State.OFFER)
                with m.If(foreign):
                    m.d.sync += stop
            with m.Case(State.OFFER):
                with m.If(self.write.ready):
                    m.d.sync += state.eq(State.TAKEN)
            with m.Case(State.TAKEN):
                m.d.sync += [address.eq(address + 1), state.eq(State.FETCH)]
                with m.If(is_length):
                    m.d.sync += last.eq(word + HEADER_WORDS - 1)
                with m.If(is_last):
                    m.d.sync += state.eq(State.DONE)
            with m.Case(State.DONE):
                m.d.sync += stop
        # A fault may be known a cycle after the memory is ready.
        with m.If(self.claim | self.memory_fault):
            m.d.sync += stop
        return m
