"""The trace format: there and back, and every line that must be refused."""

import pytest

from isa.geometry import TINY
from isa.layer import LayerKind
from isa.trace import (
    ACTIVITIES,
    EXCLUSIVE,
    FrameRecord,
    LayerRecord,
    Memory,
    TraceError,
    WriteRecord,
    read_trace,
    write_trace,
)

TEXT = """\
R 10 3ffff
R 11 0
B 1f 1 a
E 0 0 250 1 2 3 4 5 6 7 8 9 10 11 12 13 14
F 3 80007fff
E 1 5 300 0 0 0 0 0 0 0 0 0 0 0 0 0 0
L 2 7fffff800000
E 2 3 340 0 0 9 0 0 0 0 0 0 0 0 0 0 0
D 350 0 0 0 0 0 0 0 0 0 0 0 0 8 1
R 0 1
E 0 0 600 0 0 0 0 0 0 0 0 0 0 0 0 0 0
D 601 0 0 0 0 0 0 0 0 0 0 0 0 0 1
"""


def test_reads_and_writes():
    frames = read_trace(TEXT.splitlines(), TINY)
    stem, mean, classifier = frames[0].layers
    assert (stem.index, stem.kind, stem.cycle) == (0, LayerKind.STEM, 250)
    assert stem.activity == dict(zip(ACTIVITIES, range(1, 15), strict=True))
    assert stem.writes[Memory.RESIDUAL] == WriteRecord([0x10, 0x11], [0x3FFFF, 0])
    assert stem.writes[Memory.BITS] == WriteRecord([2 * 0x1F + 1], [0xA])
    assert mean.writes[Memory.FEATURES] == WriteRecord([3], [0x8000_7FFF])
    assert not mean.writes[Memory.RESIDUAL].addresses
    assert classifier.writes[Memory.LOGITS] == WriteRecord([2], [0x7FFFFF_800000])
    assert (frames[0].cycle, frames[1].cycle) == (350, 601)
    assert (frames[0].activity["scan_logits"], frames[0].activity["wait_crc"]) == (8, 1)
    assert frames[1].layers[0].writes[Memory.RESIDUAL] == WriteRecord([0], [1])
    assert "\n".join(write_trace(frames, TINY)) + "\n" == TEXT


@pytest.mark.parametrize(
    "line",
    [
        "",
        "X 1 2",
        "R 1",
        "R 1 2 3",
        "R x 2",
        "R 1 xx",
        "R 1 40000",  # 18 bits a word
        "B 1 2 3",  # two sub-words
        "B 1 1 10",  # 4 bits a sub-word
        "B 1 1",
        "F 0 100000000",
        "L 0 1000000000000",
        "E 0 0 250 1 2 3 4 5 6 7 8 9 10 11 12 13",
        "E 0 7 250 1 2 3 4 5 6 7 8 9 10 11 12 13 14",
        "E 0 0 25a 1 2 3 4 5 6 7 8 9 10 11 12 13 14",
        "D",
        "D 1",
        "D 1 1 2 3 4 5 6 7 8 9 10 11 12 13",
    ],
)
def test_refuses_lines(line):
    with pytest.raises(TraceError) as error:
        read_trace(["R 0 0", line], TINY)
    assert str(error.value) == f"Trace line 2 must be a record of isa.trace, not {line!r}"


def test_refuses_a_trace_that_is_cut():
    lines = TEXT.splitlines()
    with pytest.raises(TraceError) as error:
        read_trace(lines[:-1], TINY)
    assert str(error.value) == "Trace must end with the end of a frame, not at line 11"
    with pytest.raises(TraceError) as error:
        read_trace([*lines[:10], "D 602" + 14 * " 0"], TINY)
    assert str(error.value) == "Trace line 11 must follow the end of a layer"


def test_frame_without_layers():
    nothing, zeros = dict.fromkeys(ACTIVITIES, 0), " ".join(14 * "0")
    assert read_trace([f"D 5 {zeros}"], TINY) == [FrameRecord([], 5, nothing)]
    layer = LayerRecord(3, LayerKind.POOL, 9, {}, nothing)
    assert list(write_trace([FrameRecord([layer], 10, nothing)], TINY)) == [
        f"E 3 4 9 {zeros}",
        f"D 10 {zeros}",
    ]


def test_one_activity_is_that_of_a_cycle():
    """The others may come with any of them."""
    assert [name for name in ACTIVITIES if name not in EXCLUSIVE] == [
        "binary_layer", "stream_busy", "wait_stream",
    ]  # fmt: skip
