"""The weight ring: holds a tile's weights, replays them for every block, frees them in the last."""

from amaranth import Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from hw.maps import UNCHECKED


class WeightRing(wiring.Component):
    """A circular buffer of P-bit words between the loader and the arrays' weight registers.

    ``start`` begins a layer of ``tiles`` tiles; each tile is ``words`` words long and is sent
    ``blocks`` times in a row. In the last round every word is freed as it is read, so that the
    loader can already fill in what follows. A word that has not arrived yet is waited for.

    One word a cycle; the first follows ``start`` by two cycles if it is there. ``words``,
    ``blocks`` and ``tiles`` are stable from the cycle before ``start`` to the layer's end.
    """

    def __init__(self, *, port_bits: int, depth: int):
        self._depth = depth
        self._port_bits = port_bits
        super().__init__(
            {
                "write": In(stream.Signature(port_bits)),
                "read": Out(stream.Signature(port_bits)),
                "start": In(1),
                "words": In(range(depth + 1)),
                "blocks": In(14),
                "tiles": In(9),
            }
        )

    def elaborate(self, platform):
        m = Module()
        depth = self._depth
        m.submodules.memory = memory = Memory(
            shape=self._port_bits, depth=depth, init=[], attrs=UNCHECKED
        )
        write_port, read_port = memory.write_port(), memory.read_port()

        def next_address(address):
            return Mux(address == depth - 1, 0, address + 1)

        # Written words from `tail` on, the first word of the current tile or of what is left of it.
        head, count = Signal(range(depth)), Signal(range(depth + 1))
        push, free = Signal(), Signal()
        m.d.comb += [
            self.write.ready.eq(count != depth),
            push.eq(self.write.valid & self.write.ready),
            write_port.en.eq(push),
            write_port.addr.eq(head),
            write_port.data.eq(self.write.payload),
        ]
        with m.If(push):
            m.d.sync += head.eq(next_address(head))
        m.d.sync += count.eq(count + push - free)

        active = Signal()
        tail, address = Signal(range(depth)), Signal(range(depth))
        ahead = Signal(range(depth + 1))  # written words from `address` on
        left = Signal(range(depth + 1))  # words of this round behind the next one
        blocks_left, tiles_left = Signal(14), Signal(9)  # both less one
        # Registers in place of comparisons, which would all stand in the way of `fetch`.
        last_word, last_round, last_tile = Signal(), Signal(), Signal()
        one_word, one_block, one_tile = Signal(), Signal(), Signal()
        valid = Signal()
        fetch = Signal()
        m.d.sync += [
            one_word.eq(self.words == 1),
            one_block.eq(self.blocks == 1),
            one_tile.eq(self.tiles == 1),
        ]
        m.d.comb += [
            fetch.eq(active & (ahead != 0) & (~valid | self.read.ready)),
            free.eq(fetch & last_round),
            read_port.addr.eq(address),
            read_port.en.eq(~valid | self.read.ready),
            self.read.valid.eq(valid),
            self.read.payload.eq(read_port.data),
        ]
        with m.If(~valid | self.read.ready):
            m.d.sync += valid.eq(fetch)
        m.d.sync += ahead.eq(ahead + push - fetch)
        with m.If(fetch):
            m.d.sync += [
                address.eq(next_address(address)),
                left.eq(left - 1),
                last_word.eq(left == 1),
            ]
            with m.If(last_round):
                m.d.sync += tail.eq(next_address(tail))
            with m.If(last_word):
                m.d.sync += [left.eq(self.words - 1), last_word.eq(one_word)]
                with m.If(last_round):
                    m.d.sync += [
                        blocks_left.eq(self.blocks - 1),
                        last_round.eq(one_block),
                        tiles_left.eq(tiles_left - 1),
                        last_tile.eq(tiles_left == 1),
                    ]
                    with m.If(last_tile):
                        m.d.sync += active.eq(0)
                with m.Else():
                    m.d.sync += [
                        blocks_left.eq(blocks_left - 1),
                        last_round.eq(blocks_left == 1),
                        address.eq(tail),
                        ahead.eq(count + push),
                    ]
        with m.If(self.start):
            m.d.sync += [
                active.eq(1),
                left.eq(self.words - 1),
                last_word.eq(one_word),
                blocks_left.eq(self.blocks - 1),
                last_round.eq(one_block),
                tiles_left.eq(self.tiles - 1),
                last_tile.eq(one_tile),
                address.eq(tail),
                ahead.eq(count + push),
            ]
        return m
