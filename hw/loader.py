"""Takes the image stream apart, checks it, and hands descriptors, parameters and weights on.

One stream word a cycle enters a register, `word`, and leaves it in the same cycle in which it is
checked, counted by the CRCs and delivered. A packet's payload is delivered only once its header
has proved right: the header's verdict is known when its first payload word stands in the register.
"""

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib import crc, data, enum, fifo, stream, wiring
from amaranth.lib.crc import catalog
from amaranth.lib.wiring import In, Out

from hw.source import SourceSignature
from isa.bits import WORD_BITS
from isa.image import (
    CHANNEL_WORDS,
    HEADER,
    HEADER_WORDS,
    LAYER_TYPES,
    LAYER_WORDS,
    MAGIC,
    PACKET,
    VERSION,
    PacketType,
)
from isa.layer import CHANNEL, LAYER
from isa.registers import ErrorCode


def _crc8(covered):
    """CRC-8 of a packet header's 24 bits, as an expression: without initial value, it is linear."""
    algorithm = catalog.CRC8_SMBUS(len(covered))
    of_bit = [algorithm.compute([1 << i]) for i in range(len(covered))]
    return Cat(
        Cat(bit for bit, value in zip(covered, of_bit, strict=True) if value >> i & 1).xor()
        for i in range(PACKET["crc8"].width)
    )


def _ports(words):
    return words.payload, words.valid, words.ready


class WordAssembler(wiring.Component):
    """Joins 32-bit words into items of `shape`, least significant word first.

    Takes a word a cycle as long as items are taken; an item appears the cycle after its last word.
    """

    def __init__(self, shape):
        self._shape = shape
        super().__init__(
            {"words": In(stream.Signature(WORD_BITS)), "items": Out(stream.Signature(shape))}
        )

    def elaborate(self, platform):
        m = Module()
        payload = Value.cast(self.items.payload)
        count = -(-len(payload) // WORD_BITS)
        earlier = Signal(WORD_BITS * (count - 1), reset_less=True)
        item = Signal(len(payload), reset_less=True)
        m.d.comb += payload.eq(item)
        index = Signal(range(count))
        complete = Signal()
        m.d.comb += complete.eq(index == count - 1)
        if count > 1:
            # An item leaves while the next is gathered, so `items.ready` need not come this far.
            m.d.comb += self.words.ready.eq(~complete | ~self.items.valid)
        else:
            m.d.comb += self.words.ready.eq(~self.items.valid | self.items.ready)
        with m.If(self.items.ready):
            m.d.sync += self.items.valid.eq(0)
        with m.If(self.words.valid & self.words.ready):
            m.d.sync += index.eq(Mux(complete, 0, index + 1))
            with m.If(complete):
                m.d.sync += [
                    item.eq(Cat(earlier, self.words.payload)),
                    self.items.valid.eq(1),
                ]
            with m.Else():
                m.d.sync += earlier.eq(Cat(earlier, self.words.payload)[WORD_BITS:])
        return m


class Loader(wiring.Component):
    """Streams the image from `source`: once muted for `check`, its frame section for each `start`.

    Members
    -------
    check, start : In(1)
        Strobes; only while `busy` is low. `start` needs the header of an earlier `check`.
    descriptor, params, weights : Out(stream)
        Layers, channels (M for a tile), and words of P bits. Delivered in the stream's order: one
        that is not taken holds up the others. Three descriptors wait in front of the sequencer.
    checked : Out(1)
        One-cycle pulse: the whole image passed.
    stem_done, more : In(1)
        Whether the frame's stem has been computed ahead, so that STEM packets are skipped, and
        whether that of the next frame is to be, or else AHEAD packets are. Constant while `busy`.
    frame_ok : Out(1)
        The END packet of this frame has come, and its CRC was right. Cleared by `check`, `start`.
    error, error_valid : Out
        One-cycle pulse with its code. Nothing more is delivered; the loader wants a reset.
    classes, frame_words, frame_crc32 : Out(16), Out(32), Out(32)
        From the header of the last `check`.
    busy : Out(1)
        Streaming.
    progress : Out(1)
        A word was taken.
    stream_busy, wait_stream : Out(1)
        The source gave a word; there was room for one, and it gave none. A cycle late.
    """

    DESCRIPTOR_WORDS = 16  # with those in the assembler, room for three descriptors

    class State(enum.Enum, shape=2):
        IDLE = 0
        HEADER = 1
        PACKET = 2
        PAYLOAD = 3

    def __init__(self, *, geometry):
        self._geometry = geometry
        super().__init__(
            {
                "check": In(1),
                "start": In(1),
                "stem_done": In(1),
                "more": In(1),
                "source": In(SourceSignature()),
                "descriptor": Out(stream.Signature(LAYER)),
                "params": Out(stream.Signature(CHANNEL)),
                "weights": Out(stream.Signature(geometry.port_bits)),
                "checked": Out(1),
                "frame_ok": Out(1),
                "error": Out(ErrorCode),
                "error_valid": Out(1),
                "classes": Out(HEADER["classes"].shape),
                "frame_words": Out(HEADER["frame_words"].shape),
                "frame_crc32": Out(HEADER["frame_crc32"].shape),
                "busy": Out(1),
                "progress": Out(1),
                "stream_busy": Out(1),
                "wait_stream": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        State = self.State
        source = self.source

        # Outputs
        m.submodules.descriptor_queue = queue = fifo.SyncFIFO(
            width=WORD_BITS, depth=self.DESCRIPTOR_WORDS
        )
        m.submodules.descriptors = descriptors = WordAssembler(LAYER)
        m.submodules.params = params = WordAssembler(CHANNEL)
        m.submodules.weights = weights = WordAssembler(self._geometry.port_bits)
        wiring.connect(m, descriptors.items, wiring.flipped(self.descriptor))
        wiring.connect(m, params.items, wiring.flipped(self.params))
        wiring.connect(m, weights.items, wiring.flipped(self.weights))
        m.d.comb += [
            descriptors.words.payload.eq(queue.r_data),
            descriptors.words.valid.eq(queue.r_rdy),
            queue.r_en.eq(descriptors.words.ready),
        ]

        # Input register
        state = Signal(State)
        muted = Signal()  # checking: nothing is delivered
        word = Signal(WORD_BITS, reset_less=True)
        word_valid = Signal()
        # The word behind it, so that `take` need not reach the source in the same cycle.
        spare = Signal(WORD_BITS, reset_less=True)
        spare_valid = Signal()
        arrives = Signal()
        take = Signal()  # `word` is used up
        command = self.check | self.start
        m.d.comb += [
            source.rewind.eq(command),
            source.address.eq(Mux(self.start, HEADER_WORDS, 0)),
            source.words.ready.eq((state != State.IDLE) & ~spare_valid),
            arrives.eq(source.words.valid & source.words.ready),
            self.busy.eq(state != State.IDLE),
        ]
        with m.If(~word_valid | take):
            m.d.sync += [
                word.eq(Mux(spare_valid, spare, source.words.payload)),
                word_valid.eq(spare_valid | arrives),
                spare_valid.eq(0),
            ]
        with m.Elif(arrives):
            m.d.sync += [spare.eq(source.words.payload), spare_valid.eq(1)]
        m.d.sync += [
            self.progress.eq(take),
            self.stream_busy.eq(arrives),
            self.wait_stream.eq(source.words.ready & ~arrives & (~word_valid | take)),
        ]

        # CRCs
        m.submodules.crc32 = crc32 = crc.Processor(catalog.CRC32_ISO_HDLC(WORD_BITS))
        restart = Signal()  # the next word is the first that the CRC-32 counts
        crc32_match = Signal()
        m.d.comb += [
            crc32.data.eq(word),
            crc32.valid.eq(take),
            crc32.start.eq(restart),
            crc32_match.eq(crc32.crc == word),
        ]
        with m.If(take):
            m.d.sync += restart.eq(0)

        # Results: pulses and the frame's verdict
        m.d.sync += [self.checked.eq(0), self.error_valid.eq(0)]

        def fail(code):
            return [self.error.eq(code), self.error_valid.eq(1), state.eq(State.IDLE)]

        # Header: fields are kept as they pass, and judged when the CRC is known to be right
        index = Signal(range(HEADER_WORDS))
        layers = Signal(HEADER["layers"].shape)
        foreign_version = Signal()
        foreign_geometry = Signal()

        def header_field(name):
            field = HEADER[name]
            position, shift = divmod(field.offset, WORD_BITS)
            return index == position, word[shift : shift + field.width]

        # Packets
        header = data.View(PACKET, word)
        kind = Signal(PacketType, init=PacketType.END)
        previous = Signal(PacketType, init=PacketType.END)
        remaining = Signal(PACKET["length"].shape)  # payload words after this one
        begins_layer = Signal()
        skipped = Signal()  # this layer is not computed
        header_good = Signal()  # type, order, length and CRC-8 of the packet are right
        frame_left = Signal.like(self.frame_words)  # words of the frame section yet to be taken
        layers_left = Signal.like(layers)
        # Where the payload goes: registers that the header sets. What goes nowhere is dropped.
        streams = (
            (LAYER_TYPES, queue.w_data, queue.w_en, queue.w_rdy),
            ((PacketType.PARAMS,), *_ports(params.words)),
            ((PacketType.WEIGHTS,), *_ports(weights.words)),
        )
        chosen = Signal(len(streams))
        dropped = Signal()
        is_end = Signal()
        skip_now = Signal()
        m.d.comb += [
            begins_layer.eq(self._begins_layer(header.type)),
            skip_now.eq(skipped),
        ]
        with m.If(begins_layer):
            m.d.comb += skip_now.eq(
                (header.type == PacketType.STEM) & self.stem_done
                | (header.type == PacketType.AHEAD) & ~self.more
            )
        covered = Cat(header.length[8:], header.length[:8], Value.cast(header.type))

        with m.Switch(state):
            with m.Case(State.HEADER):
                m.d.comb += take.eq(word_valid)
                with m.If(take):
                    m.d.sync += index.eq(index + 1)
                    for name, target in (
                        ("classes", self.classes),
                        ("frame_words", self.frame_words),
                        ("frame_crc32", self.frame_crc32),
                        ("layers", layers),
                    ):
                        here, value = header_field(name)
                        with m.If(here):
                            m.d.sync += target.eq(value)
                    for name, expected, flag in (
                        ("version", VERSION, foreign_version),
                        ("geometry", self._geometry.digest, foreign_geometry),
                    ):
                        here, value = header_field(name)
                        with m.If(here):
                            m.d.sync += flag.eq(value != expected)
                    here, value = header_field("magic")
                    with m.If(here & (value != MAGIC)):
                        m.d.sync += fail(ErrorCode.MAGIC)
                    here, value = header_field("crc32")
                    with m.If(here):
                        m.d.sync += [
                            restart.eq(1),
                            frame_left.eq(self.frame_words),
                            layers_left.eq(layers),
                        ]
                        with m.If(~crc32_match):
                            m.d.sync += fail(ErrorCode.HEADER_CRC)
                        with m.Elif(foreign_version):
                            m.d.sync += fail(ErrorCode.IMAGE_VERSION)
                        with m.Elif(foreign_geometry):
                            m.d.sync += fail(ErrorCode.FOREIGN_GEOMETRY)
                        with m.Else():
                            m.d.sync += state.eq(State.PACKET)

            with m.Case(State.PACKET):
                m.d.comb += take.eq(word_valid)
                with m.If(take):
                    m.d.sync += [
                        state.eq(State.PAYLOAD),
                        kind.eq(header.type),
                        remaining.eq(header.length - 1),
                        header_good.eq(
                            self._plausible(m, header, previous) & (_crc8(covered) == header.crc8)
                        ),
                        frame_left.eq(frame_left - 1),
                        skipped.eq(skip_now),
                        is_end.eq(header.type == PacketType.END),
                        dropped.eq(muted | skip_now | (header.type == PacketType.END)),
                    ]
                    for number, (types, *_) in enumerate(streams):
                        here = Cat(header.type == known for known in types).any()
                        m.d.sync += chosen[number].eq(here & ~muted & ~skip_now)
                    with m.If(begins_layer):
                        m.d.sync += layers_left.eq(layers_left - 1)

            with m.Case(State.PAYLOAD):
                with m.If(~header_good):
                    m.d.sync += fail(ErrorCode.PACKET)
                with m.Else():
                    takes = dropped
                    for number, (_, payload, valid, ready) in enumerate(streams):
                        takes |= chosen[number] & ready
                        m.d.comb += [payload.eq(word), valid.eq(word_valid & chosen[number])]
                    m.d.comb += take.eq(word_valid & takes)
                with m.If(take):
                    m.d.sync += [remaining.eq(remaining - 1), frame_left.eq(frame_left - 1)]
                    with m.If(remaining == 0):
                        m.d.sync += [state.eq(State.PACKET), previous.eq(kind)]
                        with m.If(is_end):
                            m.d.sync += [
                                state.eq(State.IDLE),
                                self.checked.eq(muted),
                                self.frame_ok.eq(~muted),
                            ]
                            # A wrong length can only come from a wrong compiler; the CRC cannot
                            # know, and a start would wait for words that the header did not count.
                            with m.If(~crc32_match | (self.frame_crc32 != word)):
                                m.d.sync += fail(ErrorCode.FRAME_CRC)
                                m.d.sync += [self.checked.eq(0), self.frame_ok.eq(0)]
                            with m.Elif((frame_left != 1) | (layers_left != 0)):
                                m.d.sync += fail(ErrorCode.PACKET)
                                m.d.sync += [self.checked.eq(0), self.frame_ok.eq(0)]

        with m.If(command):
            m.d.sync += [
                state.eq(Mux(self.start, State.PACKET, State.HEADER)),
                muted.eq(self.check),
                word_valid.eq(0),
                spare_valid.eq(0),
                restart.eq(1),
                index.eq(0),
                previous.eq(PacketType.END),
                frame_left.eq(self.frame_words),
                layers_left.eq(layers),
                self.frame_ok.eq(0),
            ]
        return m

    @staticmethod
    def _begins_layer(type):
        return Cat(type == known for known in LAYER_TYPES).any()

    def _plausible(self, m, header, previous):
        """A known type, that may follow `previous` (END: the frame begins), of the right length."""
        geometry = self._geometry
        after_layer = self._begins_layer(previous) | (previous == PacketType.WEIGHTS)
        port_words = geometry.port_bits // WORD_BITS  # a power of two, as it divides M * K
        result = Signal()
        with m.Switch(header.type):
            with m.Case(*LAYER_TYPES):
                m.d.comb += result.eq(
                    (after_layer | (previous == PacketType.END)) & (header.length == LAYER_WORDS)
                )
            with m.Case(PacketType.PARAMS):
                m.d.comb += result.eq(
                    after_layer & (header.length == geometry.lanes * CHANNEL_WORDS)
                )
            with m.Case(PacketType.WEIGHTS):
                m.d.comb += result.eq(
                    (previous == PacketType.PARAMS)
                    & (header.length != 0)
                    & (header.length & (port_words - 1) == 0)
                )
            with m.Case(PacketType.END):
                m.d.comb += result.eq(after_layer & (header.length == 1))
        return result
