"""Takes the image stream apart, checks it, and hands descriptors, parameters and weights on.

One stream word a cycle enters a register, `word`, and leaves it when it is delivered or dropped. A
cycle later it stands in `past`, where it is counted by the CRCs and judged. A packet costs a cycle
beside its words: its payload goes on once its header has proved right, and by then registers say
where to, so that hardly anything decides whether a word is taken.
"""

from amaranth.hdl import Cat, Module, Mux, ResetInserter, Signal, Value
from amaranth.lib import crc, data, enum, fifo, stream, wiring
from amaranth.lib.crc import catalog
from amaranth.lib.wiring import In, Out

from hw.assembler import WordAssembler
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
        The source gave a word; one would have gone on, and it gave none. A cycle late.
    """

    DESCRIPTOR_WORDS = 16  # with those in the assembler, room for three descriptors

    class State(enum.Enum, shape=3):
        IDLE = 0
        PACKET = 1  # a packet's header is awaited
        JUDGE = 2
        WORDS = 3  # the image's header, or a packet's payload
        COMPARE = 4  # the last of them was a CRC-32
        VERDICT = 5

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
        queue_room = Signal()  # for the next word, whatever goes there in two cycles meanwhile
        m.d.sync += queue_room.eq(queue.w_level <= self.DESCRIPTOR_WORDS - 3)

        # Input register
        state = Signal(State)
        word = Signal(WORD_BITS, reset_less=True)
        word_valid = Signal()
        # The word behind it, so that `take` need not reach the source in the same cycle.
        spare = Signal(WORD_BITS, reset_less=True)
        spare_valid = Signal()
        # The one that was taken in the cycle before.
        past = Signal(WORD_BITS, reset_less=True)
        past_valid = Signal()
        arrives = Signal()
        goes = Signal()  # a word would be used up
        take = Signal()  # `word` is
        m.d.comb += [
            source.rewind.eq(self.check | self.start),
            source.address.eq(Mux(self.start, HEADER_WORDS, 0)),
            source.words.ready.eq(self.busy & ~spare_valid),
            arrives.eq(source.words.valid & source.words.ready),
        ]
        with m.If(~spare_valid):
            m.d.sync += spare.eq(source.words.payload)
        with m.If(~word_valid | take):
            m.d.sync += [
                word.eq(Mux(spare_valid, spare, source.words.payload)),
                word_valid.eq(spare_valid | arrives),
                spare_valid.eq(0),
            ]
        with m.Elif(arrives):
            m.d.sync += spare_valid.eq(1)
        with m.If(~self.busy):
            m.d.sync += [word_valid.eq(0), spare_valid.eq(0)]
        m.d.sync += [
            past.eq(word),
            past_valid.eq(take),
            self.stream_busy.eq(arrives),
            self.wait_stream.eq(source.words.ready & ~arrives & goes),
        ]
        m.d.comb += self.progress.eq(past_valid)

        # Where words go; what goes nowhere is dropped. `goes` is worked out a cycle ahead: nothing
        # but two registers decides whether a word is taken.
        streams = (
            (LAYER_TYPES, queue.w_data, queue.w_en, queue_room),
            ((PacketType.PARAMS,), params.words.payload, params.words.valid, params.room),
            ((PacketType.WEIGHTS,), weights.words.payload, weights.words.valid, weights.room),
        )
        chosen, rooms = Signal(len(streams)), Signal(len(streams))
        dropped = Signal()
        for number, (_, payload, valid, room) in enumerate(streams):
            m.d.comb += [
                payload.eq(word),
                valid.eq(take & chosen[number]),
                rooms[number].eq(room),
            ]
        m.d.comb += take.eq(word_valid & goes)
        m.d.sync += goes.eq(dropped | (chosen & rooms).any())

        # CRC-32, and what it is compared with
        begins = Signal()  # the image's header or a frame section does, with the next word
        crc32 = crc.Processor(catalog.CRC32_ISO_HDLC(WORD_BITS))
        m.submodules.crc32 = ResetInserter(begins)(crc32)
        crc32_right, crc32_named, counts_right = Signal(), Signal(), Signal()
        frame_left = Signal.like(self.frame_words)  # words of the frame section, from `past` on
        layers = Signal(HEADER["layers"].shape)
        layers_left = Signal.like(layers)
        m.d.comb += [
            crc32.data.eq(past),
            crc32.valid.eq(past_valid),
        ]
        m.d.sync += [
            crc32_right.eq(crc32.crc == past),
            crc32_named.eq(self.frame_crc32 == past),
            counts_right.eq((frame_left == 1) & (layers_left == 0)),
        ]
        with m.If(past_valid):
            m.d.sync += frame_left.eq(frame_left - 1)
        with m.If(begins):
            m.d.sync += [frame_left.eq(self.frame_words), layers_left.eq(layers)]

        # Header: fields are kept as they pass, and judged when the CRC is known to be right
        in_header = Signal()
        index = Signal(range(HEADER_WORDS))
        foreign_magic, foreign_version, foreign_geometry = Signal(), Signal(), Signal()

        def header_field(name):
            field = HEADER[name]
            position, shift = divmod(field.offset, WORD_BITS)
            return index == position, past[shift : shift + field.width]

        with m.If(in_header & past_valid):
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
        # Another cycle later: that is early enough for VERDICT, even with the word before the CRC.
        for name, expected, flag in (
            ("magic", MAGIC, foreign_magic),
            ("version", VERSION, foreign_version),
            ("geometry", self._geometry.digest, foreign_geometry),
        ):
            here, value = header_field(name)
            was_here, differs = Signal(name=f"was_{name}"), Signal(name=f"other_{name}")
            m.d.sync += [
                was_here.eq(in_header & past_valid & here),
                differs.eq(value != expected),
            ]
            with m.If(was_here):
                m.d.sync += flag.eq(differs)

        # Packets: what a header says is known a cycle after it was taken, in JUDGE
        header, past_header = data.View(PACKET, word), data.View(PACKET, past)
        previous = Signal(PacketType, init=PacketType.END)
        begins_layer = Signal()
        skipped = Signal()  # this layer is not computed
        covered = Cat(header.length[8:], header.length[:8], Value.cast(header.type))
        plausible = self._plausible(m, header, previous)
        header_good = Signal()  # type, order, length and CRC-8 are right
        header_begins, header_skips, header_goes = Signal(), Signal(), Signal.like(chosen)
        m.d.comb += begins_layer.eq(self._begins_layer(header.type))
        m.d.sync += [
            header_good.eq(plausible & (_crc8(covered) == header.crc8)),
            header_begins.eq(begins_layer),
            header_skips.eq(skipped),
        ]
        with m.If(begins_layer):
            m.d.sync += header_skips.eq(
                (header.type == PacketType.STEM) & self.stem_done
                | (header.type == PacketType.AHEAD) & ~self.more
            )
        for number, (types, *_) in enumerate(streams):
            m.d.sync += header_goes[number].eq(Cat(header.type == known for known in types).any())

        muted = Signal()  # checking: nothing is delivered
        remaining = Signal(PACKET["length"].shape)  # words after `word`
        last = Signal()  # there are none, or `word` is a packet's header
        closes = Signal()  # the last one is a CRC-32
        m.d.sync += [self.checked.eq(0), self.error_valid.eq(0), begins.eq(0)]
        with m.If(take):
            m.d.sync += [remaining.eq(remaining - 1), last.eq(last | (remaining == 1))]

        stop = [state.eq(State.IDLE), self.busy.eq(0)]

        def fail(code):
            return [self.error.eq(code), self.error_valid.eq(1), *stop]

        with m.Switch(state):
            with m.Case(State.IDLE):
                m.d.sync += [
                    self.busy.eq(self.check | self.start),
                    previous.eq(PacketType.END),
                    index.eq(0),
                    remaining.eq(HEADER_WORDS - 1),
                    last.eq(~self.check),
                    in_header.eq(self.check),
                    closes.eq(self.check),
                    muted.eq(self.check),
                    dropped.eq(self.check | self.start),
                    goes.eq(self.check | self.start),
                    begins.eq(self.check | self.start),
                ]
                with m.If(self.check | self.start):
                    m.d.sync += [
                        state.eq(Mux(self.start, State.PACKET, State.WORDS)),
                        self.frame_ok.eq(0),
                    ]

            with m.Case(State.JUDGE):
                is_end = past_header.type == PacketType.END
                drops = header_good & (muted | header_skips | is_end)
                chooses = Mux(~header_good | muted | header_skips, 0, header_goes)
                m.d.sync += [
                    state.eq(State.WORDS),
                    previous.eq(past_header.type),
                    remaining.eq(past_header.length - 1),
                    last.eq(past_header.length == 1),
                    closes.eq(is_end),
                    skipped.eq(header_skips),
                    dropped.eq(drops),
                    chosen.eq(chooses),
                    goes.eq(drops | (chooses & rooms).any()),
                ]
                with m.If(header_begins):
                    m.d.sync += layers_left.eq(layers_left - 1)
                with m.If(~header_good):
                    m.d.sync += fail(ErrorCode.PACKET)

            with m.Case(State.COMPARE):
                m.d.sync += state.eq(State.VERDICT)

            with m.Case(State.VERDICT):
                m.d.sync += in_header.eq(0)
                with m.If(in_header):
                    with m.If(foreign_magic):
                        m.d.sync += fail(ErrorCode.MAGIC)
                    with m.Elif(~crc32_right):
                        m.d.sync += fail(ErrorCode.HEADER_CRC)
                    with m.Elif(foreign_version):
                        m.d.sync += fail(ErrorCode.IMAGE_VERSION)
                    with m.Elif(foreign_geometry):
                        m.d.sync += fail(ErrorCode.FOREIGN_GEOMETRY)
                    with m.Else():
                        m.d.sync += [
                            state.eq(State.PACKET),
                            dropped.eq(1),
                            goes.eq(1),
                            begins.eq(1),
                        ]
                # A wrong length can only come from a wrong compiler; the CRC cannot know, and a
                # start would wait for words that the header did not count.
                with m.Elif(~crc32_right | ~crc32_named):
                    m.d.sync += fail(ErrorCode.FRAME_CRC)
                with m.Elif(~counts_right):
                    m.d.sync += fail(ErrorCode.PACKET)
                with m.Else():
                    m.d.sync += [
                        *stop,
                        self.checked.eq(muted),
                        self.frame_ok.eq(~muted),
                    ]

        # The end of PACKET and WORDS.
        with m.If(take & last):
            m.d.sync += [dropped.eq(0), chosen.eq(0), goes.eq(0)]
            with m.If(state == State.PACKET):
                m.d.sync += state.eq(State.JUDGE)
            with m.Elif(closes):
                m.d.sync += state.eq(State.COMPARE)
            with m.Else():
                m.d.sync += [state.eq(State.PACKET), dropped.eq(1), goes.eq(1)]
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
