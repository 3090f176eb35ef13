"""Joins the words of the image's stream into wider items."""

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib import fifo, stream, wiring
from amaranth.lib.wiring import In, Out

from hw.copies import kept
from isa.bits import WORD_BITS


class WordAssembler(wiring.Component):
    """Joins 32-bit words into items of `shape`, least significant word first.

    Takes a word a cycle as long as items are taken; an item appears two cycles after its last word,
    or one where it has no other. `room` is what `words.ready` will be in the next cycle, at least.
    """

    QUEUE = 4
    PART_BITS = 128

    def __init__(self, shape):
        self._shape = shape
        super().__init__(
            {
                "words": In(stream.Signature(WORD_BITS)),
                "room": Out(1),
                "items": Out(stream.Signature(shape)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        words, items = self.words, self.items
        payload = Value.cast(items.payload)
        count = -(-len(payload) // WORD_BITS)
        if count == 1:
            m.submodules.queue = queue = fifo.SyncFIFO(width=WORD_BITS, depth=self.QUEUE)
            m.d.comb += [
                self.room.eq(queue.w_level <= self.QUEUE - 2),
                words.ready.eq(queue.w_rdy),
                queue.w_data.eq(words.payload),
                queue.w_en.eq(words.valid),
                payload.eq(queue.r_data),
                items.valid.eq(queue.r_rdy),
                queue.r_en.eq(items.ready),
            ]
            return m

        # Hundreds of clock enables hang on `gathers` and `vacant`, so both are registers, one for
        # each part of an item. So is `full`, which would stand in the way of the whole stream.
        parts = [
            slice(start, start + self.PART_BITS) for start in range(0, len(payload), self.PART_BITS)
        ]
        word = Signal(WORD_BITS, reset_less=True)
        gathers = [kept(1, f"gathers_{n}") for n in range(len(parts))]  # `word` joins `earlier`
        completes = Signal()  # `word` is an item's last, and waits until the item before has left
        full = Signal()
        earlier = Signal(WORD_BITS * (count - 1), reset_less=True)
        item = Signal(len(payload), reset_less=True)
        # No item waits; apart from `items.valid`, which decides more
        vacant = [kept(1, f"vacant_{n}", init=1) for n in range(len(parts))]
        index, is_last = Signal(range(count)), Signal()
        m.d.comb += [
            # The last word may not come, or have come, before the item before is on its way.
            self.room.eq(~items.valid | items.ready | ~(is_last | completes)),
            words.ready.eq(~full),
            payload.eq(item),
        ]
        m.d.sync += full.eq(~self.room)
        with m.If(~full):
            m.d.sync += [
                word.eq(words.payload),
                *(gather.eq(words.valid & ~is_last) for gather in gathers),
                completes.eq(words.valid & is_last),
            ]
            with m.If(words.valid):
                m.d.sync += [
                    index.eq(Mux(is_last, 0, index + 1)),
                    is_last.eq(index == count - 2),
                ]
        gathered = Cat(earlier, word)
        for part, joins, takes in zip(parts, gathers, vacant, strict=True):
            with m.If(joins):
                m.d.sync += earlier[part].eq(gathered[WORD_BITS:][part])
            with m.If(takes):
                m.d.sync += item[part].eq(gathered[part])
        with m.If(~items.valid):
            m.d.sync += [items.valid.eq(completes), *(flag.eq(~completes) for flag in vacant)]
        with m.Elif(items.ready):
            m.d.sync += [items.valid.eq(0), *(flag.eq(1) for flag in vacant)]
        return m
