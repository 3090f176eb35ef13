"""The map walker against the loops that it unrolls."""

import random

import pytest

from hw.map_walk import MapWalker
from sim.bench import simulate


@pytest.mark.parametrize(
    ("tiles", "groups", "last_groups", "width", "height"),
    [(1, 1, 1, 1, 1), (2, 4, 2, 3, 2), (3, 2, 1, 1, 4), (2, 1, 1, 5, 1), (1, 8, 5, 2, 2)],
)
def test_map_walker_visits_every_word_in_order(tiles, groups, last_groups, width, height):
    base, row, pixel = 37, 40, 7
    expected = []
    for t in range(tiles):
        count = last_groups if t == tiles - 1 else groups
        for i in range(height):
            for j in range(width):
                for g in range(count):
                    expected.append(
                        (
                            base + i * row + j * pixel + t * groups + g,
                            g,
                            t,
                            g == count - 1,
                            (i, j) == (height - 1, width - 1),
                            t == tiles - 1,
                        )
                    )
    dut = MapWalker()
    layout = {
        "base": base, "row": row, "pixel": pixel, "width": width, "height": height,
        "tiles": tiles, "groups": groups, "last_groups": last_groups,
    }  # fmt: skip

    async def bench(ctx):
        ctx.set(dut.layout, layout)
        await ctx.tick()
        for _ in range(2):  # a second start begins anew
            ctx.set(dut.start, 1)
            await ctx.tick()
            ctx.set(dut.start, 0)
            stalls = random.Random(1)
            found = []
            while len(found) < len(expected):
                if stalls.random() < 0.3:
                    ctx.set(dut.advance, 0)
                    await ctx.tick()
                    continue
                found.append(
                    (
                        ctx.get(dut.address),
                        ctx.get(dut.group),
                        ctx.get(dut.tile),
                        bool(ctx.get(dut.last_group)),
                        bool(ctx.get(dut.last_pixel)),
                        bool(ctx.get(dut.last_tile)),
                    )
                )
                ctx.set(dut.advance, 1)
                await ctx.tick()
            ctx.set(dut.advance, 0)
            assert found == expected

    simulate(dut, bench, deadline_cycles=4000)
