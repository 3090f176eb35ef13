"""From a block's accumulators to the maps: the drain reads them, the writer stores the results."""

from amaranth import Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from hw.copies import kept
from hw.map_walk import GROUP_BITS, MapWalker
from isa.layer import ADDRESS_BITS, LAYER, LayerKind


def connect_destination(m: Module, layout, layer, groups: int) -> None:
    """The walk over the words that a convolution layer produces, before any max-pool."""
    m.d.comb += [
        layout.base.eq(layer.dst_base),
        layout.row.eq(layer.dst_row),
        layout.pixel.eq(layer.dst_pixel),
        layout.width.eq(layer.out_width),
        layout.height.eq(layer.out_height),
        layout.tiles.eq(layer.tiles),
        layout.groups.eq(groups),
        layout.last_groups.eq(layer.last_groups),
    ]


class Drain(wiring.Component):
    """Reads each block's results out of the array's output RAM, a word of L channels a cycle.

    ``written`` counts in output pixels, which arrive in order; ``params_ready`` tells that the
    tile's channel parameters are there. ``issue`` goes with ``address``, of the residual that the
    word's shortcut reads; ``pixel`` and ``group``, for the output RAM, come PLACE_LATENCY cycles
    later. ``freed`` tells the end of a block, ``tile_done`` the end of a tile, both in the cycle of
    the last ``issue``. Between tiles it rests for ``TILE_GAP`` cycles, so that ``params_ready`` may
    follow ``tile_done`` that late.
    """

    PLACE_LATENCY = 1
    TILE_GAP = 8

    def __init__(self, *, groups: int):
        self._groups = groups
        super().__init__(
            {
                "layer": In(LAYER),
                "start": In(1),
                "written": In(1),
                "params_ready": In(1),
                "issue": Out(1),
                "pixel": Out(4),
                "group": Out(GROUP_BITS),
                "address": Out(ADDRESS_BITS),
                "freed": Out(1),
                "tile_done": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        layer = self.layer
        m.submodules.walker = walker = MapWalker()
        connect_destination(m, walker.layout, layer, self._groups)

        pending = Signal(range(33))  # pixels written and not yet drained
        # `issue` is a register, decided a cycle ahead: much hangs on it.
        some, rests = Signal(), Signal()  # there will be any; between tiles
        blocks_left, pixels_left = Signal(14), Signal(4)
        last_pixel = Signal()  # of the block
        pixel_done, block_done, tile_done = Signal(), Signal(), Signal()
        rest, resting = Signal(range(self.TILE_GAP + 1)), Signal()
        full_end, last_end, first_end = Signal(4), Signal(4), Signal(4)
        m.d.sync += [
            full_end.eq(layer.block - 1),
            last_end.eq(layer.last_block - 1),
            first_end.eq(Mux(layer.blocks == 1, layer.last_block, layer.block) - 1),
        ]
        m.d.comb += [
            walker.start.eq(self.start),
            walker.advance.eq(self.issue),
            self.address.eq(walker.address),
            pixel_done.eq(self.issue & walker.last_group),
            block_done.eq(pixel_done & last_pixel),
            tile_done.eq(pixel_done & walker.last_pixel),
            self.freed.eq(block_done),
            self.tile_done.eq(tile_done),
        ]
        m.d.comb += [
            some.eq(self.written | (pending > 1) | ((pending == 1) & ~pixel_done)),
            rests.eq(tile_done | resting & (rest != 0)),
        ]
        m.d.sync += [
            pending.eq(pending + self.written - pixel_done),
            rest.eq(Mux(tile_done, self.TILE_GAP - 1, rest - 1)),
            resting.eq(rests),
            self.issue.eq(some & self.params_ready & ~rests),
        ]

        def begin_block(end):
            return [pixels_left.eq(end), last_pixel.eq(end == 0)]

        with m.If(pixel_done):
            m.d.sync += [
                pixels_left.eq(pixels_left - 1),
                last_pixel.eq(pixels_left == 1),
            ]
        with m.If(block_done):
            m.d.sync += [
                blocks_left.eq(blocks_left - 1),
                *begin_block(Mux(blocks_left == 1, last_end, full_end)),
            ]
        with m.If(tile_done | self.start):
            m.d.sync += [blocks_left.eq(layer.blocks - 1), *begin_block(first_end)]

        # A cycle later, since it takes long to know of a block's end.
        moved, began = Signal(), Signal()
        group = Signal.like(self.group, reset_less=True)
        m.d.comb += self.group.eq(group)
        m.d.sync += [
            moved.eq(pixel_done),
            began.eq(block_done | self.start),
            group.eq(walker.group),
        ]
        with m.If(began):
            m.d.sync += self.pixel.eq(0)
        with m.Elif(moved):
            m.d.sync += self.pixel.eq(self.pixel + 1)
        return m


class Writer(wiring.Component):
    """Stores what a layer produces, in the order in which it arrives.

    ``input`` brings words of L channels: results of a convolution behind the max-pool, or averages.
    Residuals go to the residual map LATENCY cycles later. Sign bits are collected into sub-words of
    M bits and written with a pixel's last word. ``done`` pulses with the write of the layer's last
    word; all writes have been made by the next cycle.
    """

    LATENCY = 1

    def __init__(self, *, post_lanes: int, lanes: int, sub_words: int, residual_shape):
        self._post_lanes = post_lanes
        self._lanes = lanes
        self._sub_words = sub_words
        super().__init__(
            {
                "layer": In(LAYER),
                "start": In(1),
                "input": In(
                    data.StructLayout({"valid": 1, "residual": residual_shape, "bits": post_lanes})
                ),
                "write_residual": Out(1),
                "residual_address": Out(ADDRESS_BITS),
                "residual": Out(residual_shape),
                "write_feature": Out(1),
                "word": Out(GROUP_BITS),
                "write_logits": Out(1),
                "write_bits": Out(1),
                "bit_address": Out(ADDRESS_BITS),
                "sub_word": Out(range(sub_words)),
                "bits": Out(lanes),
                "done": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        layer, lanes = self.layer, self._lanes
        groups = lanes // self._post_lanes
        m.submodules.walker = walker = MapWalker()
        layout = walker.layout
        kind = layer.kind
        mean, pool, classifier, maps, halved = (Signal() for _ in range(5))
        m.d.sync += [
            mean.eq(kind == LayerKind.MEAN),
            pool.eq(kind == LayerKind.POOL),
            classifier.eq(kind == LayerKind.CLASSIFIER),
            maps.eq((kind != LayerKind.MEAN) & (kind != LayerKind.CLASSIFIER)),
            halved.eq(layer.pooled & (kind == LayerKind.STEM)),
        ]
        connect_destination(m, layout, layer, groups)
        with m.If(halved):  # by the max-pool
            m.d.comb += [
                layout.width.eq(layer.out_width >> 1),
                layout.height.eq(layer.out_height >> 1),
            ]
        with m.If(mean | pool):  # one tile of `inner` words a pixel
            m.d.comb += [layout.tiles.eq(1), layout.last_groups.eq(layer.inner)]
        with m.If(mean):
            m.d.comb += [layout.width.eq(1), layout.height.eq(1)]

        came = Signal(self.input.shape(), reset_less=True)
        valid, advance = kept(1, "valid"), kept(1, "advance")  # the second for the walker
        m.d.sync += [came.eq(self.input), valid.eq(self.input.valid), advance.eq(self.input.valid)]
        end_of_pixel = Signal()
        m.d.comb += [
            walker.start.eq(self.start),
            walker.advance.eq(advance),
            end_of_pixel.eq(valid & walker.last_group),
            self.residual.eq(came.residual),
            self.residual_address.eq(walker.address),
            self.write_residual.eq(valid & maps),
            self.write_feature.eq(valid & mean),
            self.write_logits.eq(valid & classifier),
            self.done.eq(end_of_pixel & walker.last_pixel & walker.last_tile),
        ]
        word = Signal(GROUP_BITS)
        m.d.comb += self.word.eq(word)
        with m.If(valid):
            m.d.sync += word.eq(word + 1)
        with m.If(self.start):
            m.d.sync += word.eq(layer.dst_base)  # of features and logits

        # Sub-word t % sub_words of word t // sub_words belongs to tile t.
        bit_base, pixel_word = Signal(ADDRESS_BITS), Signal(ADDRESS_BITS)
        sub_word, collected = Signal(range(max(self._sub_words, 1))), Signal(lanes)
        now = Signal(lanes)
        m.d.comb += now.eq(Mux(walker.group == 0, 0, collected))
        with m.Switch(walker.group):
            for g in range(groups):
                with m.Case(g):
                    m.d.comb += now.word_select(g, self._post_lanes).eq(came.bits)
        m.d.comb += [
            self.write_bits.eq(end_of_pixel & layer.write_bits),
            self.bits.eq(now),
            self.bit_address.eq(pixel_word),
            self.sub_word.eq(sub_word),
        ]
        with m.If(valid):
            m.d.sync += collected.eq(now)
        with m.If(end_of_pixel):
            m.d.sync += pixel_word.eq(pixel_word + layer.bit_pixel)
            with m.If(walker.last_pixel):
                with m.If(sub_word == self._sub_words - 1):
                    m.d.sync += [
                        sub_word.eq(0),
                        bit_base.eq(bit_base + 1),
                        pixel_word.eq(bit_base + 1),
                    ]
                with m.Else():
                    m.d.sync += [sub_word.eq(sub_word + 1), pixel_word.eq(bit_base)]
        with m.If(self.start):
            m.d.sync += [
                sub_word.eq(0),
                bit_base.eq(layer.bit_base),
                pixel_word.eq(layer.bit_base),
            ]
        return m


class Reducer(wiring.Component):
    """Reads the residual map for the 2x2 average and for the global sum.

    ``read`` goes with ``address``; ``first`` and ``last`` mark the words of one sum. A 2x2 average
    takes four cycles a word; the global sum reads word after word of the map, all pixels of one
    before the next. From the cycle after ``start`` on it is ``working``, without a gap, and reads
    one cycle later.
    """

    layer: In(LAYER)
    start: In(1)
    working: Out(1)
    read: Out(1)
    first: Out(1)
    last: Out(1)
    address: Out(ADDRESS_BITS)

    def elaborate(self, platform):
        m = Module()
        layer = self.layer
        m.submodules.walker = walker = MapWalker()
        layout: data.View = walker.layout
        mean = Signal()
        m.d.sync += mean.eq(layer.kind == LayerKind.MEAN)
        m.d.comb += [
            layout.base.eq(layer.src_base),
            layout.width.eq(layer.out_width),
            layout.height.eq(layer.out_height),
            # pool: all words of a pixel; mean: one word a tile
            layout.row.eq(Mux(mean, layer.src_row, layer.src_row << 1)),
            layout.pixel.eq(Mux(mean, layer.src_pixel, layer.src_pixel << 1)),
            layout.tiles.eq(Mux(mean, layer.inner, 1)),
            layout.groups.eq(1),
            layout.last_groups.eq(Mux(mean, 1, layer.inner)),
        ]
        active, corner, fresh = Signal(), Signal(2), Signal()
        done_word = Signal()
        m.d.comb += [
            self.working.eq(active),
            done_word.eq(mean | (corner == 3)),
            walker.start.eq(self.start),
            walker.advance.eq(active & done_word),
        ]
        with m.If(active):
            m.d.sync += corner.eq(Mux(mean, 0, corner + 1))
            with m.If(done_word):
                m.d.sync += fresh.eq(walker.last_pixel)
                with m.If(walker.last_group & walker.last_pixel & walker.last_tile):
                    m.d.sync += active.eq(0)
        with m.If(self.start):
            m.d.sync += [active.eq(1), corner.eq(0), fresh.eq(1)]

        # Registered: the corner's offset is added on the way.
        offset = Signal(ADDRESS_BITS)
        m.d.comb += offset.eq(Mux(corner[0], layer.src_pixel, 0) + Mux(corner[1], layer.src_row, 0))
        m.d.sync += [
            self.read.eq(active),
            self.address.eq(walker.address + offset),
            self.first.eq(Mux(mean, fresh, corner == 0)),
            self.last.eq(Mux(mean, walker.last_pixel, corner == 3)),
        ]
        return m
