"""Address walkers: the loops of a layer, unrolled one iteration a cycle."""

from amaranth import Cat, Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from isa.layer import ADDRESS_BITS, LAYER, PIXEL_BITS, SIZE_BITS, STRIDE_BITS, LayerKind

GROUP_BITS = SIZE_BITS + 1

MAP = data.StructLayout(
    {
        "base": ADDRESS_BITS,
        "row": STRIDE_BITS + 1,
        "pixel": PIXEL_BITS + 1,
        "width": SIZE_BITS,
        "height": SIZE_BITS,
        "tiles": GROUP_BITS,
        "groups": GROUP_BITS,  # words of a pixel in every tile
        "last_groups": GROUP_BITS,  # ... but the last one
    }
)
"""How a map is walked: tile by tile, row by row, pixel by pixel, word by word."""


class MapWalker(wiring.Component):
    """Addresses of a map's words: base + row*i + pixel*j + groups*tile + group.

    ``start`` loads the first address, ``advance`` steps to the next; both act on the next cycle.
    All outputs are registered or compare registers, and describe the current word. ``layout`` must
    be stable from the cycle before ``start`` to the last ``advance``.
    """

    layout: In(MAP)
    start: In(1)
    advance: In(1)
    address: Out(ADDRESS_BITS)
    group: Out(GROUP_BITS)
    tile: Out(GROUP_BITS)
    last_group: Out(1)
    last_pixel: Out(1)
    last_tile: Out(1)

    def elaborate(self, platform):
        m = Module()
        layout = self.layout
        # Addresses of the first word of the current tile's first pixel, of its current row's first
        # pixel and of its current pixel.
        tile_base, row_base, pixel_base = (Signal(ADDRESS_BITS) for _ in range(3))
        column, row = Signal(SIZE_BITS), Signal(SIZE_BITS)
        groups_left = Signal(GROUP_BITS)
        tiles_left = Signal(GROUP_BITS)
        # Each loop's end is a register too, worked out in the step before: comparisons would all
        # stand in the way of what `advance` decides. `one_...`: the loop ends where it begins.
        last_group, last_column, last_row, last_tile = (Signal() for _ in range(4))
        one_group, one_last_group, one_column, one_row, one_tile = (Signal() for _ in range(5))
        column_before, row_before = Signal(SIZE_BITS), Signal(SIZE_BITS)
        groups_end, last_groups_end = Signal(GROUP_BITS), Signal(GROUP_BITS)
        tiles_end = Signal(GROUP_BITS)
        pixel_step, row_step = Signal.like(layout.pixel), Signal.like(layout.row)
        m.d.sync += [
            column_before.eq(layout.width - 2),
            one_column.eq(layout.width == 1),
            row_before.eq(layout.height - 2),
            one_row.eq(layout.height == 1),
            groups_end.eq(layout.groups - 1),
            one_group.eq(layout.groups == 1),
            last_groups_end.eq(layout.last_groups - 1),
            one_last_group.eq(layout.last_groups == 1),
            tiles_end.eq(layout.tiles - 1),
            one_tile.eq(layout.tiles == 1),
            pixel_step.eq(layout.pixel),
            row_step.eq(layout.row),
        ]
        m.d.comb += [
            self.last_group.eq(last_group),
            self.last_pixel.eq(last_column & last_row),
            self.last_tile.eq(last_tile),
        ]

        def begin_pixel(in_last_tile):
            return [
                self.group.eq(0),
                groups_left.eq(Mux(in_last_tile, last_groups_end, groups_end)),
                last_group.eq(Mux(in_last_tile, one_last_group, one_group)),
            ]

        next_is_last = Signal()
        m.d.comb += next_is_last.eq(tiles_left == 1)
        next_pixel, next_row, next_tile = (Signal(ADDRESS_BITS) for _ in range(3))
        m.d.comb += [
            next_pixel.eq(pixel_base + pixel_step),
            next_row.eq(row_base + row_step),
            next_tile.eq(tile_base + groups_end + 1),
        ]
        with m.If(self.advance):
            with m.If(~last_group):
                m.d.sync += [
                    self.address.eq(self.address + 1),
                    self.group.eq(self.group + 1),
                    groups_left.eq(groups_left - 1),
                    last_group.eq(groups_left == 1),
                ]
            with m.Else():
                m.d.sync += begin_pixel(last_tile)
                with m.If(~last_column):
                    m.d.sync += [
                        column.eq(column + 1),
                        last_column.eq(column == column_before),
                        pixel_base.eq(next_pixel),
                        self.address.eq(next_pixel),
                    ]
                with m.Else():
                    m.d.sync += [column.eq(0), last_column.eq(one_column)]
                    with m.If(~last_row):
                        m.d.sync += [
                            row.eq(row + 1),
                            last_row.eq(row == row_before),
                            row_base.eq(next_row),
                            pixel_base.eq(next_row),
                            self.address.eq(next_row),
                        ]
                    with m.Else():
                        m.d.sync += [
                            row.eq(0),
                            last_row.eq(one_row),
                            tiles_left.eq(tiles_left - 1),
                            last_tile.eq(next_is_last),
                            self.tile.eq(self.tile + 1),
                            tile_base.eq(next_tile),
                            row_base.eq(next_tile),
                            pixel_base.eq(next_tile),
                            self.address.eq(next_tile),
                            *begin_pixel(next_is_last),
                        ]
        with m.If(self.start):
            m.d.sync += [
                Cat(column, row, self.tile).eq(0),
                last_column.eq(one_column),
                last_row.eq(one_row),
                *begin_pixel(one_tile),
                tiles_left.eq(tiles_end),
                last_tile.eq(one_tile),
                tile_base.eq(layout.base),
                row_base.eq(layout.base),
                pixel_base.eq(layout.base),
                self.address.eq(layout.base),
            ]
        return m


def step_layout(stem_taps: int) -> data.StructLayout:
    """One operand read, and what the array does with it."""
    return data.StructLayout(
        {
            "swap": 1,
            "first": 1,
            "last": 1,
            "pixel": 4,
            "address": ADDRESS_BITS,
            "select": SIZE_BITS,  # group of T channels within the word of L that is read
            "inside": stem_taps,  # which of the taps lie inside the map
            "border": data.ArrayLayout(
                2, stem_taps
            ),  # stem: channel whose border value a tap takes
            "count": SIZE_BITS + 1,
        }
    )


class StepWalker(wiring.Component):
    """The loops of ``isa.layer`` for a convolution layer: one operand read a cycle.

    ``loaded`` counts in weight sets, ``freed`` output RAMs: a set's first step waits for its
    weights, the last step of a block for the output RAM, and a stem's block for the input:
    ``input_ready`` follows by ``ready_latency`` cycles ``row``, the input row that the current
    block begins with. The steps follow without flow control, ``LATENCY`` cycles after they are
    decided on. From the cycle after ``start`` on the walker is ``preparing``, then ``working``: in
    each cycle of that it either decides on a step or waits, for one of the three.
    """

    LATENCY = 2

    def __init__(self, *, taps: int, stem_taps: int, post_lanes: int, ready_latency: int):
        self._stem_taps = stem_taps
        self._ready_latency = ready_latency
        self._words_per_group = post_lanes // taps
        super().__init__(
            {
                "layer": In(LAYER),
                "start": In(1),
                "loaded": In(1),
                "freed": In(1),
                "input_ready": In(1),
                "row": Out(signed(SIZE_BITS + 1)),
                "step_valid": Out(1),
                "step": Out(step_layout(stem_taps)),
                "preparing": Out(1),
                "working": Out(1),
                "wait_weights": Out(1),
                "wait_output": Out(1),
                "wait_input": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        layer, taps = self.layer, self._stem_taps
        is_stem = Signal()
        by_group = Signal()
        m.d.sync += [
            is_stem.eq(layer.kind == LayerKind.STEM),
            by_group.eq((layer.kind == LayerKind.POINTWISE) | (layer.kind == LayerKind.CLASSIFIER)),
        ]

        # --- when to issue -----------------------------------------------------------------------
        preparing, active, issue = Signal(), Signal(), Signal()
        pixel, block_end = Signal(4), Signal(4)
        ky, n = Signal(3), Signal(GROUP_BITS)
        tiles_left, blocks_left = Signal(9), Signal(14)
        # The ends and beginnings of the loops are registers too, so that no comparison stands in
        # the way of `issue`. `one_...`: the loop ends where it begins.
        pixels_left = Signal(4)
        last_pixel, last_n, last_ky, last_step = (Signal() for _ in range(4))
        first_pixel, first_step = Signal(), Signal()
        last_block, last_is_next = Signal(), Signal()
        sets_ready = Signal(
            2
        )  # loaded and not yet begun: at most the shadow set and one on its way
        output_free = Signal(init=1)
        needs_set, needs_output, needs_input = Signal(), Signal(), Signal()
        settling = Signal(self._ready_latency)  # `input_ready` is still that of another row
        begin_block = Signal()
        # The layer's loop ends, so that no subtraction stands in the way of the counters.
        n_before, ky_before = Signal(GROUP_BITS), Signal(3)
        one_n, one_ky = Signal(), Signal()
        column_end, words_end = Signal(SIZE_BITS), Signal(5)
        full_end, last_end, first_end = Signal(4), Signal(4), Signal(4)
        m.d.sync += [
            n_before.eq(layer.inner - 2),
            one_n.eq(layer.inner == 1),
            ky_before.eq(layer.kernel_rows - 2),
            one_ky.eq(layer.kernel_rows == 1),
            column_end.eq(layer.out_width - 1),
            words_end.eq(layer.channel_words - 1),
            full_end.eq(layer.block - 1),
            last_end.eq(layer.last_block - 1),
            first_end.eq(Mux(layer.blocks == 1, layer.last_block, layer.block) - 1),
        ]
        m.d.comb += [
            last_step.eq(last_n & last_ky),
            begin_block.eq(first_step & first_pixel),
            needs_set.eq(first_pixel & (sets_ready == 0)),
            needs_output.eq(first_pixel & last_step & ~output_free),
            needs_input.eq(begin_block & is_stem & (~self.input_ready | settling[0])),
            issue.eq(active & ~needs_set & ~needs_output & ~needs_input),
            self.preparing.eq(preparing),
            self.working.eq(active),
            self.wait_input.eq(active & needs_input),
            self.wait_output.eq(active & needs_output & ~needs_input),
            self.wait_weights.eq(active & needs_set & ~needs_output & ~needs_input),
        ]
        begin_set = issue & first_pixel
        m.d.sync += sets_ready.eq(sets_ready + self.loaded - begin_set)
        with m.If(begin_set & last_step):
            m.d.sync += output_free.eq(0)
        with m.Elif(self.freed):
            m.d.sync += output_free.eq(1)

        # --- where the current pixel, and the block's first one, read ----------------------------
        position = data.StructLayout(
            {
                "column": SIZE_BITS,
                "row": signed(SIZE_BITS + 1),  # input row of ky = 0
                "x": signed(STRIDE_BITS + 1),  # offset within that row of n = 0
                "address": ADDRESS_BITS,  # of x = 0 in that row
            }
        )
        origin, begin, here, after = (Signal(position) for _ in range(4))
        step_x, step_row = Signal(PIXEL_BITS + 1), Signal(STRIDE_BITS + 1)
        row_step = Signal(2)
        m.d.sync += [
            step_x.eq(layer.src_pixel << layer.stride2),
            step_row.eq(layer.src_row << layer.stride2),
            row_step.eq(1 << layer.stride2),
        ]
        with m.If(here.column == column_end):
            m.d.comb += [
                after.column.eq(0),
                after.x.eq(origin.x),
                after.row.eq(here.row + row_step),
                after.address.eq(here.address + step_row),
            ]
        with m.Else():
            m.d.comb += [
                after.column.eq(here.column + 1),
                after.x.eq(here.x + step_x),
                after.row.eq(here.row),
                after.address.eq(here.address),
            ]

        by_rows = Signal()
        m.d.comb += self.row.eq(begin.row)
        m.d.sync += [by_rows.eq(layer.rows_ahead != 0), settling.eq(settling >> 1)]
        with m.If(issue & last_pixel & last_step & by_rows & (after.row != begin.row)):
            m.d.sync += settling.eq(-1)

        next_end = Mux(last_is_next, last_end, full_end)

        begin_tile = [
            blocks_left.eq(layer.blocks - 1),
            last_block.eq(layer.blocks == 1),
            last_is_next.eq(layer.blocks == 2),
        ]

        def begin_set_of(end):
            return [
                pixel.eq(0),
                first_pixel.eq(1),
                pixels_left.eq(end),
                last_pixel.eq(end == 0),
            ]

        row_offset = Signal(ADDRESS_BITS)  # ky * src_row
        words = Signal(5)  # n % channel_words
        channel = Signal(2)  # (n * taps) % in_channels
        along, along_step = Signal(GROUP_BITS + 2), Signal(range(taps + 1))  # units up to n
        m.d.sync += along_step.eq(Mux(is_stem, taps, 1))
        pad_left = Signal(2)

        with m.If(self.start):
            m.d.sync += [
                preparing.eq(1),
                pad_left.eq(layer.pad),
                origin.column.eq(0),
                origin.row.eq(layer.first_row - layer.pad),
                origin.x.eq(-layer.pad_x),
                origin.address.eq(layer.src_base),
                tiles_left.eq(layer.tiles - 1),
                *begin_tile,
            ]
        with m.If(preparing):
            with m.If(pad_left != 0):
                m.d.sync += [
                    pad_left.eq(pad_left - 1),
                    origin.address.eq(origin.address - layer.src_row),
                ]
            with m.Else():
                m.d.sync += [
                    preparing.eq(0),
                    active.eq(1),
                    begin.eq(origin),
                    here.eq(origin),
                    Cat(ky, n, along, row_offset, words, channel).eq(0),
                    first_step.eq(1),
                    last_n.eq(one_n),
                    last_ky.eq(one_ky),
                    block_end.eq(first_end),
                    *begin_set_of(first_end),
                ]

        with m.If(issue):
            with m.If(~last_pixel):
                m.d.sync += [
                    pixel.eq(pixel + 1),
                    first_pixel.eq(0),
                    pixels_left.eq(pixels_left - 1),
                    last_pixel.eq(pixels_left == 1),
                    here.eq(after),
                ]
            with m.Else():
                m.d.sync += [*begin_set_of(block_end), here.eq(begin), first_step.eq(0)]
                with m.If(~last_n):
                    m.d.sync += [
                        n.eq(n + 1),
                        last_n.eq(n == n_before),
                        along.eq(along + along_step),
                        words.eq(Mux(words == words_end, 0, words + 1)),
                        channel.eq(_modulo(m, channel, taps, layer.in_channels)),
                    ]
                with m.Else():
                    m.d.sync += [
                        Cat(n, along, words, channel).eq(0),
                        last_n.eq(one_n),
                        ky.eq(ky + 1),
                        last_ky.eq(ky == ky_before),
                        row_offset.eq(row_offset + layer.src_row),
                    ]
                with m.If(last_step):
                    m.d.sync += [
                        Cat(ky, row_offset).eq(0),
                        first_step.eq(1),
                        last_ky.eq(one_ky),
                        begin.eq(after),
                        here.eq(after),
                        blocks_left.eq(blocks_left - 1),
                        last_block.eq(last_is_next),
                        last_is_next.eq(blocks_left == 2),
                        block_end.eq(next_end),
                        *begin_set_of(next_end),
                    ]
                    with m.If(last_block):
                        m.d.sync += [
                            begin.eq(origin),
                            here.eq(origin),
                            *begin_tile,
                            block_end.eq(first_end),
                            *begin_set_of(first_end),
                            tiles_left.eq(tiles_left - 1),
                        ]
                        with m.If(tiles_left == 0):
                            m.d.sync += active.eq(0)

        # --- cycle 1: the parts of the address ---------------------------------------------------
        offset = Signal(GROUP_BITS + 2)
        shift = (self._words_per_group - 1).bit_length()
        with m.If(by_group):
            m.d.comb += offset.eq(n >> shift)
        with m.Else():
            m.d.comb += offset.eq(along)
        valid, part = Signal(), Signal(step_layout(taps))
        row, x = Signal(signed(SIZE_BITS + 2)), Signal(signed(STRIDE_BITS + 2))
        row_address = Signal(ADDRESS_BITS)
        m.d.sync += [
            valid.eq(issue),
            part.swap.eq(first_pixel),
            part.first.eq(first_step),
            part.last.eq(last_step),
            part.pixel.eq(pixel),
            part.select.eq(n & (self._words_per_group - 1)),
            part.count.eq(Mux(words == 0, layer.channels, 0)),
            row.eq(here.row + ky),
            x.eq(here.x + offset),
            row_address.eq(here.address + row_offset),
        ]
        for tap in range(taps):
            m.d.sync += part.border[tap].eq(_modulo(m, channel, tap, layer.in_channels))

        # --- cycle 2: the address, and whether it lies inside the map ----------------------------
        row_inside = Signal()
        m.d.comb += row_inside.eq((row >= 0) & (row < layer.in_height))
        m.d.sync += [
            self.step_valid.eq(valid),
            self.step.eq(part),
            self.step.address.eq(row_address + x),
        ]
        for tap in range(taps):
            inside = (x + tap >= 0) & (x + tap < layer.row_length)
            m.d.sync += self.step.inside[tap].eq(row_inside & inside)
        return m


def _modulo(m: Module, value, increment: int, modulus) -> Signal:
    """(value + increment) % modulus for value < modulus <= 4, as a table."""
    result = Signal(2)
    with m.Switch(Cat(value, modulus)):
        for divisor in range(1, 5):
            for old in range(divisor):
                with m.Case(divisor << 2 | old):
                    m.d.comb += result.eq((old + increment) % divisor)
    return result
