"""Parts of a layer, joined again, are the layer."""

import numpy as np
import pytest

from compiler.parts import rows_ahead_of_time, some_tiles, tiles_together
from compiler.pipeline import compile_tensors
from isa.geometry import TINY
from isa.image import PacketType
from tests.networks import random_checkpoint, small_network


def layers(name):
    program = compile_tensors(*random_checkpoint(small_network(name)), TINY, verify=False).program
    return {layer.name: layer for layer in program.layers}


@pytest.mark.parametrize(
    ("name", "sizes", "groups"),
    [("blocks.0", (2, 1), (2, 2)), ("blocks.1.shortcut", (1, 3, 2), (2, 2, 2)),
     ("fc", (2, 1), (2, 1))],
)  # fmt: skip
def test_some_tiles(name, sizes, groups):
    """tiny has four lanes, two post lanes, and two tiles to a word of the bit maps."""
    layer = layers("odd-channels")[name]
    parts, first = [], 0
    for size in sizes:
        parts.append(some_tiles(layer, TINY, first, size))
        first += size
    assert first == layer.tiles.count
    assert sum(part.out_channels for part in parts) == layer.out_channels
    assert [part.tiles.last_groups for part in parts] == list(groups)
    assert [part.ends for part in parts] == [False] * (len(parts) - 1) + [True]
    for what in ("weights", "params.m", "params.threshold"):

        def of(x, what=what):
            for attribute in what.split("."):
                x = getattr(x, attribute)
            return x

        assert (np.concatenate([of(part) for part in parts]) == of(layer)).all()
        assert (np.concatenate([of(part.tiles) for part in parts]) == of(layer.tiles)).all()
    base = layer.destination.base if layer.destination else 0
    offsets = np.cumsum([0, *sizes[:-1]])
    assert [part.destination.base for part in parts] == [base + 2 * int(x) for x in offsets]
    if layer.bits:
        assert [part.bits.base for part in parts] == [
            layer.bits.base + int(x) // 2 for x in offsets
        ]


def test_tiles_of_one_bit_word_stay_together():
    found = layers("odd-channels")
    assert tiles_together(found["blocks.0"], TINY) == 2
    assert tiles_together(found["blocks.1.shortcut"], TINY) == 1
    assert tiles_together(found["fc"], TINY) == 1


def test_rows_of_the_next_frames_stem():
    stem = layers("long-frame")["stem"]  # 32 x 32 x 3 -> 16 x 16 -> 8 x 8 x 4
    parts = [rows_ahead_of_time(stem, first, count) for first, count in ((0, 3), (3, 4), (7, 1))]
    assert all(part.packet is PacketType.AHEAD for part in parts)
    assert [part.out_size for part in parts] == [(6, 16), (8, 16), (2, 16)]
    assert [part.first_row for part in parts] == [0, 6, 14]
    assert [(part.begins, part.ends) for part in parts] == [
        (True, False), (False, False), (False, True),
    ]  # fmt: skip
    assert [part.destination.base for part in parts] == [0, 3 * 16, 7 * 16]
    assert [part.bits.base for part in parts] == [0, 3 * 8, 7 * 8]
    assert all(part.tiles is stem.tiles for part in parts)
