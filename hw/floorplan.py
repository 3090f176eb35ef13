"""Where multipliers and the residual map go: nextpnr is told, because it does not find out.

The blocks of an 85F stand in rows from one side of the chip to the other, and nearly all of them
are used. Left alone, the placer deals them out: a lane's two multipliers end up far apart, what a
group of lanes has in common goes all over the chip, and so does a part of the residual map. Here
the two multipliers stand side by side, and the lanes that share copies of their operand in one
stretch of a row. The parts of the residual map, each of which has the channels of two post lanes,
lie above and below those: a column for each bank, with one lane above and the other one below. All
else follows by itself.
"""

from hw.array import LANES_PER_COPY
from hw.maps import WordMap
from isa.fixed import RESIDUAL_BITS
from isa.geometry import Geometry

#: Taps of a lane that a pair of neighbours takes, and so do the two multipliers of a post lane.
PAIR = 2
#: Columns of an 85F's blocks of four multipliers; two pairs each.
_COLUMNS = (*range(4, 59, 9), *range(69, 115, 9))
#: (row, first pair) of the stretches that LANES_PER_COPY lanes take, and of the post lanes'.
_LANES = ((10, 0), (10, 9), (10, 18), (34, 0), (34, 18), (58, 0), (58, 9), (58, 18))
_POST = (34, 9)
#: Blocks of memory between two columns of multipliers, and the rows beside those of the post lanes.
_MEMORIES = 4
_MEMORY_ROWS = (22, 46)


def sites(geometry: Geometry) -> dict[str, str]:
    """Sites of an 85F for cells of `hw.top.Top`, by name. ValueError: see the functions below."""
    return multiplier_sites(geometry) | residual_sites(geometry)


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
    core, found = "accelerator.core", {}
    for lane in range(geometry.lanes):
        row, first = _LANES[lane // LANES_PER_COPY]
        for tap, site in enumerate(_pair(row, first + lane % LANES_PER_COPY)):
            found[f"{core}.mac.dot_{lane}.product_{tap}.block"] = site
    row, first = _POST
    for lane in range(geometry.post_lanes):
        for name, site in zip(("product", "sloped"), _pair(row, first + lane), strict=True):
            found[f"{core}.post.lane_{lane}.{name}_multiplier.block"] = site
    return found


def residual_sites(geometry: Geometry) -> dict[str, str]:
    """Sites for the blocks of the residual map, a column for each bank of each part.

    ValueError for a geometry whose map has more than there are.
    """
    parts = geometry.post_lanes * RESIDUAL_BITS // WordMap.PART_BITS
    banks = -(-geometry.residual_words // WordMap.BANK_WORDS)
    room = len(_COLUMNS) * _MEMORIES
    if parts * banks > room:
        raise ValueError(
            f"Floorplan must be asked for a residual map of at most {room} banks in all parts, "
            f"not {parts} times {banks}"
        )
    found = {}
    for part in range(parts):
        for bank in range(banks):
            # A bank that is half full at most has both lanes in one block.
            words = geometry.residual_words - bank * WordMap.BANK_WORDS
            blocks = 1 if words <= WordMap.BANK_WORDS // 2 else 2
            group, number = divmod(part * banks + bank, _MEMORIES)
            column = _COLUMNS[group] + 2 * number
            for block, row in zip(range(blocks), _MEMORY_ROWS, strict=False):
                name = f"accelerator.core.residual_map.bank{bank}_{part}.0.{block}"
                found[name] = f"X{column}/Y{row}/EBR{number}"
    return found


def _pair(row: int, index: int) -> tuple[str, str]:
    """Two neighbours, counted from the left."""
    column, second = _COLUMNS[index // 2], 4 * (index % 2)
    return tuple(f"X{column + n}/Y{row}/MULT18_{n}" for n in (second, second + 1))
