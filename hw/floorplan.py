"""Where the multipliers go: nextpnr is told, because it does not find out.

The blocks of an 85F stand in three rows from one side of the chip to the other, and nearly all of
them are used. Left alone, the placer deals them out: a lane's two multipliers end up far apart, and
what a group of lanes has in common goes all over the chip. Here the two stand side by side, and the
lanes that share copies of their operand in one stretch of a row. All else follows by itself.
"""

from hw.array import LANES_PER_COPY
from isa.geometry import Geometry

#: Taps of a lane that a pair of neighbours takes, and so do the two multipliers of a post lane.
PAIR = 2
#: Columns of an 85F's blocks of four multipliers; two pairs each.
_COLUMNS = (*range(4, 59, 9), *range(69, 115, 9))
#: (row, first pair) of the stretches that LANES_PER_COPY lanes take, and of the post lanes'.
_LANES = ((10, 0), (10, 9), (10, 18), (34, 0), (34, 18), (58, 0), (58, 9), (58, 18))
_POST = (34, 9)


def multiplier_sites(geometry: Geometry) -> dict[str, str]:
    """Sites of an 85F for the multipliers of `hw.top.Top`, by the name of their cell.

    ValueError for a geometry with more lanes than stretches, or lanes that are no pairs.
    """
    room = len(_LANES) * LANES_PER_COPY
    if geometry.taps != PAIR or geometry.lanes > room or geometry.post_lanes > LANES_PER_COPY:
        raise ValueError(
            f"Floorplan must be asked for lanes of {PAIR} taps, at most {room} of them and "
            f"{LANES_PER_COPY} post lanes, not {geometry.lanes} of {geometry.taps} taps and "
            f"{geometry.post_lanes} post lanes"
        )
    core, sites = "accelerator.core", {}
    for lane in range(geometry.lanes):
        row, first = _LANES[lane // LANES_PER_COPY]
        for tap, site in enumerate(_pair(row, first + lane % LANES_PER_COPY)):
            sites[f"{core}.mac.dot_{lane}.product_{tap}.block"] = site
    row, first = _POST
    for lane in range(geometry.post_lanes):
        for name, site in zip(("product", "sloped"), _pair(row, first + lane), strict=True):
            sites[f"{core}.post.lane_{lane}.{name}_multiplier.block"] = site
    return sites


def _pair(row: int, index: int) -> tuple[str, str]:
    """Two neighbours, counted from the left."""
    column, second = _COLUMNS[index // 2], 4 * (index % 2)
    return tuple(f"X{column + n}/Y{row}/MULT18_{n}" for n in (second, second + 1))
