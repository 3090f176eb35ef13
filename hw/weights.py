"""The weight ring: holds a tile's weights, replays them for every block, frees them in the last."""

from amaranth import Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from hw.copies import copy
from hw.maps import UNCHECKED

#: Bits of a word that share one copy of the addresses: those of eight blocks of RAM.
BITS_PER_COPY = 144


class WeightRing(wiring.Component):
    """A circular buffer of P-bit words between the loader and the arrays' weight registers.

    ``start`` begins a layer of ``tiles`` tiles; each tile is ``sets`` weight sets, of ``set_words``
    words each, and is sent ``blocks`` times in a row. In the last round every set is given up when
    it has been sent, so that the loader can already fill in what follows.

    A set goes out without a gap, as soon as all of it is there and the registers that it goes to
    are free. They are at first; later the arrays' ``freed`` answers each set. ``sets``,
    ``set_words``, ``blocks`` and ``tiles`` are stable from the cycle before ``start`` to the
    layer's end.

    Members
    -------
    write : In(stream of port_bits)
    freed : In(1)
        The next set's first payload comes FREED_LATENCY cycles later, at the earliest.
    receiver : In
        Which of the ``valid`` a layer's sets go with. Constant as ``sets``.
    valid, payload : Out
        The payload comes one cycle after its ``valid``; each receiver has one.
    loaded : Out(1)
        Announces a set: its last payload comes LOADED_LATENCY cycles later, at the latest.
    """

    FREED_LATENCY = 5
    LOADED_LATENCY = 7
    _PAYLOAD_LATENCY = 3  # from the address counter to the payload

    def __init__(self, *, port_bits: int, depth: int, max_set_words: int, receivers: int = 1):
        self._depth = depth
        self._port_bits = port_bits
        self._receivers = receivers
        super().__init__(
            {
                "write": In(stream.Signature(port_bits)),
                "start": In(1),
                "sets": In(range(depth + 1)),
                "set_words": In(range(max_set_words + 1)),
                "blocks": In(14),
                "tiles": In(9),
                "freed": In(1),
                "receiver": In(range(receivers)),
                "valid": Out(receivers),
                "payload": Out(port_bits),
                "loaded": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        depth, set_words = self._depth, self.set_words

        def next_address(address):
            return Mux(address == depth - 1, 0, address + 1)

        # Written words from `tail` on, the first word of the current tile or of what is left of it.
        head, tail = Signal(range(depth)), Signal(range(depth))
        count, room = Signal(range(depth + 1)), Signal(init=1)
        push = Signal()
        gives_up, given_up = Signal(), Signal.like(set_words)
        m.d.comb += [self.write.ready.eq(room), push.eq(self.write.valid & room)]
        m.d.sync += count.eq(count + push - given_up)
        with m.If(push):
            m.d.sync += [head.eq(next_address(head)), room.eq(count != depth - 1)]
        with m.If(gives_up):
            m.d.sync += room.eq(1)

        # All that `begin` depends on is a register, and so is the comparison behind each of these.
        active, free, enough, sending = Signal(), Signal(init=1), Signal(), Signal()
        address = Signal(range(depth))
        ahead = Signal(range(depth + 1))  # written words from the next set on
        left, last_word = Signal.like(set_words), Signal()  # words of the set behind this one
        sets_left, blocks_left, tiles_left = Signal(range(depth)), Signal(14), Signal(9)  # as well
        last_set, last_round, last_tile = Signal(), Signal(), Signal()
        ends_round = Signal()  # the last word of the last set
        one_set, one_word, one_block, one_tile = Signal(), Signal(), Signal(), Signal()
        lead = self.LOADED_LATENCY - self._PAYLOAD_LATENCY
        short = Signal()
        begin = Signal()
        m.d.comb += begin.eq(active & free & enough & ~sending)
        m.d.sync += [
            one_set.eq(self.sets == 1),
            one_word.eq(set_words == 1),
            one_block.eq(self.blocks == 1),
            one_tile.eq(self.tiles == 1),
            short.eq(set_words <= lead + 1),
            enough.eq(ahead >= set_words),
            ahead.eq(ahead + push - Mux(begin, set_words, 0)),
            self.loaded.eq(begin & short | sending & ~short & (left == lead + 1)),
            gives_up.eq(0),
            given_up.eq(0),
        ]
        with m.If(begin):
            m.d.sync += [
                sending.eq(1),
                free.eq(0),
                left.eq(set_words - 1),
                last_word.eq(one_word),
                ends_round.eq(one_word & last_set),
            ]
        with m.If(self.freed):
            m.d.sync += free.eq(1)

        with m.If(sending):
            m.d.sync += [
                address.eq(next_address(address)),
                left.eq(left - 1),
                last_word.eq(left == 1),
                ends_round.eq((left == 1) & last_set),
            ]
        with m.If(last_word):
            m.d.sync += [sending.eq(0), sets_left.eq(sets_left - 1), last_set.eq(sets_left == 1)]
            with m.If(last_round):
                m.d.sync += [
                    tail.eq(next_address(address)),
                    gives_up.eq(1),
                    given_up.eq(set_words),
                ]
        with m.If(ends_round):
            m.d.sync += [
                sets_left.eq(self.sets - 1),
                last_set.eq(one_set),
                blocks_left.eq(blocks_left - 1),
                last_round.eq(blocks_left == 1),
            ]
            with m.If(~last_round):
                m.d.sync += [address.eq(tail), ahead.eq(count + push)]
            with m.Else():
                m.d.sync += [
                    blocks_left.eq(self.blocks - 1),
                    last_round.eq(one_block),
                    tiles_left.eq(tiles_left - 1),
                    last_tile.eq(tiles_left == 1),
                ]
                with m.If(last_tile):
                    m.d.sync += active.eq(0)
        with m.If(self.start):
            m.d.sync += [
                active.eq(1),
                sets_left.eq(self.sets - 1),
                last_set.eq(one_set),
                blocks_left.eq(self.blocks - 1),
                last_round.eq(one_block),
                tiles_left.eq(self.tiles - 1),
                last_tile.eq(one_tile),
            ]

        # The blocks of RAM lie all over the chip: registers before and behind them.
        goes = Signal()
        m.d.sync += goes.eq(sending)
        for receiver in range(self._receivers):
            m.d.sync += self.valid[receiver].eq(goes & (self.receiver == receiver))
        written = Signal(self._port_bits, reset_less=True)
        payload = Signal(self._port_bits, reset_less=True)
        m.d.sync += written.eq(self.write.payload)
        m.d.comb += self.payload.eq(payload)
        for number, start in enumerate(range(0, self._port_bits, BITS_PER_COPY)):
            part = slice(start, min(start + BITS_PER_COPY, self._port_bits))
            memory = Memory(shape=part.stop - start, depth=depth, init=[], attrs=UNCHECKED)
            m.submodules[f"memory_{number}"] = memory
            write, read = memory.write_port(), memory.read_port()
            m.d.comb += [
                write.en.eq(copy(m, push, f"push_{number}")),
                write.addr.eq(copy(m, head, f"head_{number}")),
                write.data.eq(written[part]),
                read.addr.eq(copy(m, address, f"address_{number}")),
            ]
            m.d.sync += payload[part].eq(read.data)
        return m
