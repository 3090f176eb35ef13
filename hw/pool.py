"""Pooling: the stem's 3x3 max-pool, and the averages (2x2, and over the whole map).

Both take words of L channels without flow control and answer after a constant ``latency``.
"""

import numpy as np
from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from hw.arguments import check_positive
from hw.arithmetic import with_half
from hw.copies import copy, shares
from isa.fixed import FEATURE_BITS, RESIDUAL_BITS, SHIFT_BITS, round_shift
from isa.layer import SIZE_BITS

#: Most pixels of a global average: 2**14.
SUM_BITS = RESIDUAL_BITS + 14
FINE_SHIFT_BITS = 3
#: What every lane needs at once is copied for so many lanes, or its fan-out bounds the clock.
LANES_PER_COPY = 4


def word_layout(post_lanes):
    """A word of L channels: residuals, and the sign bits that were taken before their rounding."""
    return data.StructLayout(
        {
            "valid": 1,
            "residual": data.ArrayLayout(signed(RESIDUAL_BITS), post_lanes),
            "bits": post_lanes,
        }
    )


def _larger(x, y):
    return Mux(x > y, x, y)


class MaxPool(wiring.Component):
    """3x3 max-pool with stride 2 and a border of 1, which is ignored. No flow control.

    The pixels of a map of even width and height come in row-major order, ``groups`` words each.
    Output (i, j) is the largest of rows 2i-1..2i+1 and columns 2j-1..2j+1, and leaves with pixel
    (2i+1, 2j+1). The sign bit of the largest is the OR of the sign bits, since the sign of a larger
    value is never less; so it survives although the residuals have been rounded.

    Members
    -------
    enable : In(1)
        While low, words pass unchanged, and the rows of the map that were seen before are kept.
        It stands from the cycle before a word.
    width : In
        Of the map before the pool; ``width // 2 * groups`` must be at most ``line_words``.
    groups : In
        Words of a pixel, at most ``max_groups``. Like ``width``, constant from the cycle before a
        map's first word to its last one.
    restart : In(1)
        The next word is the first of a map; none comes in this cycle.
    input, output : word_layout
    """

    latency = 4

    def __init__(self, *, post_lanes, max_groups, line_words):
        check_positive(
            "MaxPool", post_lanes=post_lanes, max_groups=max_groups, line_words=line_words
        )
        self._post_lanes, self._max_groups = post_lanes, max_groups
        self._line_words = line_words
        lanes = word_layout(post_lanes)
        self._word = data.StructLayout(
            {name: field.shape for name, field in lanes if name != "valid"}
        )
        place = {
            "group": range(max_groups),
            "column": SIZE_BITS,
            "odd_row": 1,
            "later_row": 1,  # not the first one
            "line": range(line_words),
        }
        self._stage = data.StructLayout({"place": data.StructLayout(place), "word": self._word})
        super().__init__(
            {
                "enable": In(1),
                "width": In(SIZE_BITS),
                "groups": In(range(self._max_groups + 1)),
                "restart": In(1),
                "input": In(word_layout(post_lanes)),
                "output": Out(word_layout(post_lanes)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        counts, stores = copy(m, self.enable, "counts"), copy(m, self.enable, "stores")
        now = self._place(m, counts)
        # Registered first: the way through the memory and the comparison is long enough.
        entry = Signal(self._stage, reset_less=True)
        entry_valid, horizontal_valid, vertical_valid = Signal(), Signal(), Signal()
        m.d.sync += [
            entry_valid.eq(self.input.valid),
            horizontal_valid.eq(entry_valid),
            vertical_valid.eq(horizontal_valid),
            entry.place.eq(now),
            entry.word.residual.eq(self.input.residual),
            entry.word.bits.eq(self.input.bits),
        ]
        shared = [
            (lanes, copy(m, self.enable, f"enable_{lanes.start}"))
            for lanes in shares(self._post_lanes, LANES_PER_COPY)
        ]
        joined = self._along_row(m, now, entry.word, shared)
        self._down_rows(m, entry, joined, vertical_valid, shared, stores)
        return m

    def _place(self, m, counts):
        """Where in the map the word is that comes now."""
        now = Signal(self._stage["place"].shape)
        groups_end, width_end = Signal(range(self._max_groups)), Signal(SIZE_BITS)
        m.d.sync += [groups_end.eq(self.groups - 1), width_end.eq(self.width - 1)]
        last_group = now.group == groups_end
        with m.If(self.restart):
            m.d.sync += now.eq(0)
        with m.Elif(self.input.valid & counts):
            m.d.sync += now.group.eq(now.group + 1)
            with m.If(now.column[0]):
                m.d.sync += now.line.eq(now.line + 1)
            with m.If(last_group):
                m.d.sync += [now.group.eq(0), now.column.eq(now.column + 1)]
                with m.If(now.column == width_end):
                    m.d.sync += [
                        now.column.eq(0),
                        now.line.eq(0),
                        now.odd_row.eq(~now.odd_row),
                        now.later_row.eq(1),
                    ]
        return now

    def _along_row(self, m, now, current, shared):
        """An even column joined with its left neighbour, an odd one with both."""
        joined = Signal(self._word)
        one_lane = data.StructLayout({"residual": signed(RESIDUAL_BITS), "bit": 1})
        for lanes, enable in shared:
            group, keeps, odd, first = (
                copy(m, value, f"{name}_{lanes.start}")
                for name, value in {
                    "group": now.group,
                    "keeps": self.input.valid,
                    "odd": now.column[0],
                    "first": now.column == 0,
                }.items()
            )
            row = Memory(
                shape=data.ArrayLayout(one_lane, len(lanes)), depth=self._max_groups, init=[]
            )
            m.submodules[f"row_{lanes.start}"] = row
            left, keep = row.read_port(domain="comb"), row.write_port()
            m.d.comb += [left.addr.eq(group), keep.addr.eq(group), keep.en.eq(keeps)]
            for index, lane in enumerate(lanes):
                here, both = (Signal(one_lane, name=f"{name}_{lane}") for name in ("here", "both"))
                m.d.comb += [
                    here.residual.eq(current.residual[lane]),
                    here.bit.eq(current.bits[lane]),
                    both.eq(here),
                    joined.residual[lane].eq(Mux(enable, both.residual, here.residual)),
                    joined.bits[lane].eq(Mux(enable, both.bit, here.bit)),
                    keep.data[index].eq(Mux(odd, here, both)),
                ]
                with m.If(~first):
                    m.d.comb += [
                        both.residual.eq(_larger(here.residual, left.data[index].residual)),
                        both.bit.eq(here.bit | left.data[index].bit),
                    ]

        return joined

    def _down_rows(self, m, entry, joined, vertical_valid, shared, stores):
        """An even row joined with the one above, an odd one with both, as the columns are."""
        m.submodules.line = line = Memory(shape=self._word, depth=self._line_words, init=[])
        store = line.write_port()
        # In a map two pixels wide a line comes again while its last value is being written.
        load = line.read_port(transparent_for=(store,))
        m.d.comb += [load.addr.eq(entry.place.line), load.en.eq(1)]
        horizontal = Signal(self._stage, reset_less=True)
        vertical = Signal(self._stage, reset_less=True)
        above = Signal(self._word, reset_less=True)
        m.d.sync += [
            horizontal.eq(entry),
            horizontal.word.eq(joined),
            vertical.eq(horizontal),
            above.eq(load.data),
        ]
        odd_row, odd_column = vertical.place.odd_row, vertical.place.column[0]
        m.d.comb += [
            store.addr.eq(vertical.place.line),
            store.en.eq(vertical_valid & odd_column & stores),
        ]
        output = Signal(self._word, reset_less=True)
        m.d.sync += self.output.valid.eq(vertical_valid & (~stores | odd_column & odd_row))
        here, merged = vertical.word, Signal(self._word)
        for lanes, enable in shared:
            joins = copy(m, horizontal.place.later_row, f"joins_{lanes.start}")
            begins = copy(m, horizontal.place.odd_row, f"begins_{lanes.start}")
            for lane in lanes:
                residual, bit = here.residual[lane], here.bits[lane]
                m.d.comb += [merged.residual[lane].eq(residual), merged.bits[lane].eq(bit)]
                with m.If(joins):
                    m.d.comb += [
                        merged.residual[lane].eq(_larger(residual, above.residual[lane])),
                        merged.bits[lane].eq(bit | above.bits[lane]),
                    ]
                m.d.comb += [
                    store.data.residual[lane].eq(Mux(begins, residual, merged.residual[lane])),
                    store.data.bits[lane].eq(Mux(begins, bit, merged.bits[lane])),
                ]
                m.d.sync += [
                    output.residual[lane].eq(Mux(enable, merged.residual[lane], residual)),
                    output.bits[lane].eq(Mux(enable, merged.bits[lane], bit)),
                ]
        m.d.comb += [
            self.output.residual.eq(output.residual),
            self.output.bits.eq(output.bits),
        ]

    @staticmethod
    def model(x):
        """(H, W, C) residuals, or bits -> (H/2, W/2, C)."""
        x = np.asarray(x)
        h, w, _ = x.shape
        padded = np.pad(x, ((1, 0), (1, 0), (0, 0)), mode="edge")
        windows = [padded[r : r + h : 2, c : c + w : 2] for r in range(3) for c in range(3)]
        return np.max(windows, axis=0)


class Average(wiring.Component):
    """Sums words and shifts the sum, rounding half up: the 2x2 average (shift 2) and the features.

    Members
    -------
    shift : In
        Constant from the cycle before the first word until the last sum has left.
    input : In(valid, first, last, data: L x signed(9))
        A sum begins with ``first`` and ends with ``last``, at most 2**14 words later.
    output : Out(valid, data: L x signed(16))
        ``latency`` cycles after ``last``.
    """

    latency = 5

    def __init__(self, *, post_lanes):
        check_positive("Average", post_lanes=post_lanes)
        self._post_lanes = post_lanes
        super().__init__(
            {
                "shift": In(SHIFT_BITS),
                "input": In(
                    data.StructLayout(
                        {
                            "valid": 1,
                            "first": 1,
                            "last": 1,
                            "data": data.ArrayLayout(signed(RESIDUAL_BITS), post_lanes),
                        }
                    )
                ),
                "output": Out(
                    data.StructLayout(
                        {
                            "valid": 1,
                            "data": data.ArrayLayout(signed(FEATURE_BITS), post_lanes),
                        }
                    )
                ),
            }
        )

    def elaborate(self, platform):
        m = Module()
        entry = Signal.like(self.input.data, reset_less=True)
        output = Signal.like(self.output.data, reset_less=True)
        m.d.sync += entry.eq(self.input.data)
        m.d.comb += self.output.data.eq(output)
        done = self.input.valid & self.input.last
        for n in range(1, self.latency + 1):
            target = self.output.valid if n == self.latency else Signal(name=f"done_{n}")
            m.d.sync += target.eq(done)
            done = target
        for lanes in shares(self._post_lanes, LANES_PER_COPY):
            valid, first, shift = (
                copy(m, value, f"{name}_{lanes.start}")
                for name, value in {
                    "valid": self.input.valid,
                    "first": self.input.first,
                    "shift": self.shift,
                }.items()
            )
            coarse = Cat(Const(0, FINE_SHIFT_BITS), shift[FINE_SHIFT_BITS:])
            for lane in lanes:
                total = Signal(signed(SUM_BITS), name=f"total_{lane}", reset_less=True)
                shifted = Signal(signed(SUM_BITS + 1), name=f"shifted_{lane}", reset_less=True)
                with m.If(valid):
                    m.d.sync += total.eq(Mux(first, 0, total) + entry[lane])
                m.d.sync += shifted.eq(with_half(total) >> coarse)
                fine = Signal(signed(FEATURE_BITS + 1), name=f"fine_{lane}", reset_less=True)
                m.d.sync += fine.eq(shifted >> shift[:FINE_SHIFT_BITS])
                m.d.sync += output[lane].eq(fine[1:].as_signed() + fine[0])
        return m

    @staticmethod
    def model(x, shift):
        """(words, L) -> (L,)."""
        return round_shift(np.asarray(x).sum(axis=0), shift)
