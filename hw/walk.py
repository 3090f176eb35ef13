"""The loops of a convolution layer, unrolled one iteration a cycle: what the arrays read."""

from amaranth import Cat, Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from hw.copies import kept
from hw.map_walk import GROUP_BITS
from isa.layer import ADDRESS_BITS, LAYER, PIXEL_BITS, SIZE_BITS, STRIDE_BITS, LayerKind


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
    weights (``taken`` tells when it is issued), the last step of a block for the output RAM, and a
    stem's block for the input:
    ``input_ready`` follows by ``ready_latency`` cycles ``row``, the input row that the current
    block begins with. The steps follow without flow control, ``LATENCY`` cycles after they are
    issued. From the cycle after ``start`` on the walker is ``preparing``, then ``working``: in each
    cycle of that it either issues a step or waits, for one of the three. After a set of one pixel
    there is a cycle without a step.
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
                "taken": Out(1),
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
        # All that decides is known a cycle ahead, so that `issue` is a register. What stands one
        # set or block ahead (`next_...`, `nears_...`) is worked out meanwhile: no set ends in the
        # cycle behind the one before.
        preparing, active = Signal(), Signal()
        issue, issue_here = kept(1, "issue"), kept(1, "issue_here")  # the second for the position
        pixel, block_end, next_end = Signal(4), Signal(4), Signal(4)
        ky, n = Signal(3), Signal(GROUP_BITS)
        tiles_left, blocks_left = Signal(9), Signal(14)
        # `one_...`: the loop ends where it begins.
        pixels_left = Signal(4)
        last_pixel, last_n, last_ky, last_step = (Signal() for _ in range(4))
        first_pixel, first_step = Signal(), Signal()
        ends_block, ends_tile = Signal(), Signal()  # the last pixel of its last step
        block_one, next_one = Signal(), Signal()  # of one pixel: `block_end` is 0, `next_end`
        last_block, last_is_next, last_tile = Signal(), Signal(), Signal()
        nears_n, nears_ky, nears_last, next_last = (Signal() for _ in range(4))
        # Loaded and not yet begun: at most the shadow set and one on its way.
        sets_ready = Signal(2)
        output_free = Signal(init=1)
        settling = Signal(self._ready_latency)  # `input_ready` is still that of another row
        # The layer's loop ends, so that no subtraction stands in the way of the counters.
        n_before, ky_before = Signal(GROUP_BITS), Signal(3)
        one_n, one_ky, one_step, one_block, two_blocks = (Signal() for _ in range(5))
        column_before, words_end = Signal(SIZE_BITS), Signal(5)
        full_end, last_end, first_end = Signal(4), Signal(4), Signal(4)
        m.d.sync += [
            n_before.eq(layer.inner - 2),
            one_n.eq(layer.inner == 1),
            ky_before.eq(layer.kernel_rows - 2),
            one_ky.eq(layer.kernel_rows == 1),
            one_step.eq(one_n & one_ky),
            one_block.eq(layer.blocks == 1),
            two_blocks.eq(layer.blocks == 2),
            column_before.eq(layer.out_width - 2),
            words_end.eq(layer.channel_words - 1),
            full_end.eq(layer.block - 1),
            last_end.eq(layer.last_block - 1),
            first_end.eq(Mux(layer.blocks == 1, layer.last_block, layer.block) - 1),
            nears_n.eq(n == n_before),
            nears_ky.eq(ky == ky_before),
            nears_last.eq(blocks_left == 2),
            last_tile.eq(tiles_left == 0),
        ]
        with m.If(last_block):
            m.d.sync += [next_end.eq(first_end), next_one.eq(first_end == 0)]
        with m.Elif(last_is_next):
            m.d.sync += [next_end.eq(last_end), next_one.eq(last_end == 0)]
        with m.Else():
            m.d.sync += [next_end.eq(full_end), next_one.eq(full_end == 0)]
        with m.If(last_step):
            m.d.sync += next_last.eq(one_step)
        with m.Elif(last_n):
            m.d.sync += next_last.eq(one_n & (ky == ky_before))
        with m.Else():
            m.d.sync += next_last.eq((n == n_before) & last_ky)

        # What the next cycle's step needs, if it begins a set.
        begins_set, goes_on = Signal(), Signal()
        needs_set, needs_output, needs_input = Signal(), Signal(), Signal()
        moves = Signal()  # the next block begins in another row
        will_last, will_begin = Mux(issue, next_last, last_step), Mux(issue, last_step, first_step)
        m.d.comb += self.taken.eq(issue & first_pixel)
        will_be_free = ~(self.taken & last_step) & (output_free | self.freed)
        m.d.comb += [
            begins_set.eq(~issue | last_pixel),
            goes_on.eq(active & ~(issue & ends_tile & last_tile)),
            # The next set is still on its way when one of one pixel has just begun.
            needs_set.eq(issue & first_pixel | ~self.loaded & ~sets_ready.any()),
            needs_output.eq(will_last & ~will_be_free),
            needs_input.eq(
                is_stem & will_begin & (~self.input_ready | settling[0] | issue & moves)
            ),
            self.preparing.eq(preparing),
            self.working.eq(active),
        ]
        go = goes_on & (~begins_set | ~(needs_set | needs_output | needs_input))
        waits = goes_on & begins_set
        m.d.sync += [
            issue.eq(go),
            issue_here.eq(go),
            self.wait_input.eq(waits & needs_input),
            self.wait_output.eq(waits & needs_output & ~needs_input),
            self.wait_weights.eq(waits & needs_set & ~needs_output & ~needs_input),
            sets_ready.eq(sets_ready + self.loaded - self.taken),
            output_free.eq(will_be_free),
        ]

        # --- where the current pixel, and the block's first one, read ----------------------------
        position = data.StructLayout(
            {
                "column": SIZE_BITS,
                "last": 1,  # column of a row
                "row": signed(SIZE_BITS + 1),  # input row of ky = 0
                "x": signed(STRIDE_BITS + 1),  # offset within that row of n = 0
                "address": ADDRESS_BITS,  # of x = 0 in that row
            }
        )
        origin, begin, here, after = (Signal(position, reset_less=True) for _ in range(4))
        step_x, step_row = Signal(PIXEL_BITS + 1), Signal(STRIDE_BITS + 1)
        row_step = Signal(2)
        m.d.sync += [
            step_x.eq(layer.src_pixel << layer.stride2),
            step_row.eq(layer.src_row << layer.stride2),
            row_step.eq(1 << layer.stride2),
        ]
        with m.If(here.last):
            m.d.comb += [
                after.column.eq(0),
                after.last.eq(origin.last),
                after.x.eq(origin.x),
                after.row.eq(here.row + row_step),
                after.address.eq(here.address + step_row),
            ]
        with m.Else():
            m.d.comb += [
                after.column.eq(here.column + 1),
                after.last.eq(here.column == column_before),
                after.x.eq(here.x + step_x),
                after.row.eq(here.row),
                after.address.eq(here.address),
            ]

        by_rows, moved = Signal(), Signal()  # moved: `here` is in another row than `begin`
        m.d.comb += [self.row.eq(begin.row), moves.eq(by_rows & (moved | here.last))]
        m.d.sync += [by_rows.eq(layer.rows_ahead != 0), settling.eq(settling >> 1)]
        with m.If(issue & ends_block & moves):
            m.d.sync += settling.eq(-1)

        begin_tile = [
            blocks_left.eq(layer.blocks - 1),
            last_block.eq(one_block),
            last_is_next.eq(two_blocks),
        ]

        def begin_set(end, one_pixel, is_last_step, is_last_block):
            return [
                pixel.eq(0),
                first_pixel.eq(1),
                pixels_left.eq(end),
                last_pixel.eq(one_pixel),
                last_step.eq(is_last_step),
                ends_block.eq(one_pixel & is_last_step),
                ends_tile.eq(one_pixel & is_last_step & is_last_block),
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
                origin.last.eq(layer.out_width == 1),
                origin.row.eq(layer.first_row - layer.pad),
                origin.x.eq(-layer.pad_x),
                origin.address.eq(layer.src_base),
                tiles_left.eq(layer.tiles - 1),
                *begin_tile,
            ]
        with m.If(preparing):
            # ... until the origin stands; so no decision stands behind these.
            m.d.sync += [
                begin.eq(origin),
                here.eq(origin),
                moved.eq(0),
                Cat(ky, n, along, row_offset, words, channel).eq(0),
                first_step.eq(1),
                last_n.eq(one_n),
                last_ky.eq(one_ky),
                block_end.eq(first_end),
                block_one.eq(first_end == 0),
                *begin_set(first_end, first_end == 0, one_step, one_block),
            ]
            with m.If(pad_left != 0):
                m.d.sync += [
                    pad_left.eq(pad_left - 1),
                    origin.address.eq(origin.address - layer.src_row),
                ]
            with m.Else():
                m.d.sync += [preparing.eq(0), active.eq(1), self.wait_weights.eq(1)]

        with m.If(issue_here):
            m.d.sync += [here.eq(after), moved.eq(moved | here.last)]
            with m.If(last_pixel):
                m.d.sync += [here.eq(begin), moved.eq(0)]
            with m.If(ends_block):
                m.d.sync += [begin.eq(after), here.eq(after)]
            with m.If(ends_tile):
                m.d.sync += [begin.eq(origin), here.eq(origin)]

        with m.If(issue):
            with m.If(~last_pixel):
                nears_end = pixels_left == 1
                m.d.sync += [
                    pixel.eq(pixel + 1),
                    first_pixel.eq(0),
                    pixels_left.eq(pixels_left - 1),
                    last_pixel.eq(nears_end),
                    ends_block.eq(nears_end & last_step),
                    ends_tile.eq(nears_end & last_step & last_block),
                ]
            with m.Else():
                m.d.sync += [
                    first_step.eq(last_step),
                    *begin_set(
                        Mux(last_step, next_end, block_end),
                        Mux(last_step, next_one, block_one),
                        next_last,
                        Mux(last_step, Mux(last_block, one_block, last_is_next), last_block),
                    ),
                ]
                with m.If(~last_n):
                    m.d.sync += [
                        n.eq(n + 1),
                        last_n.eq(nears_n),
                        along.eq(along + along_step),
                        words.eq(Mux(words == words_end, 0, words + 1)),
                        channel.eq(_modulo(m, channel, taps, layer.in_channels)),
                    ]
                with m.Else():
                    m.d.sync += [
                        Cat(n, along, words, channel).eq(0),
                        last_n.eq(one_n),
                        ky.eq(ky + 1),
                        last_ky.eq(nears_ky),
                        row_offset.eq(row_offset + layer.src_row),
                    ]
            with m.If(ends_block):
                m.d.sync += [
                    Cat(ky, row_offset).eq(0),
                    last_ky.eq(one_ky),
                    blocks_left.eq(blocks_left - 1),
                    last_block.eq(last_is_next),
                    last_is_next.eq(nears_last),
                    block_end.eq(next_end),
                    block_one.eq(next_one),
                ]
            with m.If(ends_tile):
                m.d.sync += [*begin_tile, tiles_left.eq(tiles_left - 1)]
                with m.If(last_tile):
                    m.d.sync += active.eq(0)

        # --- cycle 1: the parts of the address ---------------------------------------------------
        offset = Signal(GROUP_BITS + 2)
        shift = (self._words_per_group - 1).bit_length()
        with m.If(by_group):
            m.d.comb += offset.eq(n >> shift)
        with m.Else():
            m.d.comb += offset.eq(along)
        valid, part = Signal(), Signal(step_layout(taps), reset_less=True)
        row = Signal(signed(SIZE_BITS + 2), reset_less=True)
        x = Signal(signed(STRIDE_BITS + 2), reset_less=True)
        row_address = Signal(ADDRESS_BITS, reset_less=True)
        m.d.sync += [
            valid.eq(issue_here),
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
        step = Signal.like(part)
        m.d.comb += [
            row_inside.eq((row >= 0) & (row < layer.in_height)),
            self.step.eq(step),
        ]
        m.d.sync += [
            self.step_valid.eq(valid),
            step.eq(part),
            step.address.eq(row_address + x),
        ]
        for tap in range(taps):
            inside = (x + tap >= 0) & (x + tap < layer.row_length)
            m.d.sync += step.inside[tap].eq(row_inside & inside)
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
