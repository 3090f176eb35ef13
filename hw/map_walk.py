"""The walk over a map's words: tiles, rows, pixels and words of a pixel, one word a cycle."""

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from isa.layer import ADDRESS_BITS, PIXEL_BITS, SIZE_BITS, STRIDE_BITS

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
