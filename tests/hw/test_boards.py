"""The table of boards, and the pins and clocks that a design on them is constrained to."""

import pytest

from hw.boards import BOARDS, get_board
from hw.build import prepare
from tests.hw.echo import Echo


def test_board_names():
    assert set(BOARDS) == {"ulx3s-25f", "ulx3s-85f"}
    assert all(get_board(name).name == name for name in BOARDS)


def test_unknown_board_is_refused_by_name():
    with pytest.raises(ValueError) as error:
        get_board("ulx4m")
    assert str(error.value) == "Board must be 'ulx3s-25f' or 'ulx3s-85f', not 'ulx4m'"


@pytest.mark.parametrize(
    ("name", "device", "algorithms"),
    [
        ("ulx3s-25f", "--25k", ("--placer", "heap", "--router", "router1")),
        ("ulx3s-85f", "--85k", ("--placer", "static", "--router", "router2", "--tmg-ripup")),
    ],
)
def test_nextpnr_options(name, device, algorithms):
    assert get_board(name).nextpnr_options == (
        device, "--package", "CABGA381", "--speed", "6", *algorithms,
    )  # fmt: skip


@pytest.mark.parametrize("name", sorted(BOARDS))
def test_pins_and_clocks_are_constrained(name):
    board = get_board(name)
    lpf = prepare(Echo(board), board).lpf
    for line in (
        'LOCATE COMP "clk25_0__io" SITE "G2";',
        'LOCATE COMP "uart_0__rx__io" SITE "M1";',
        'LOCATE COMP "uart_0__tx__io" SITE "L4";',
        'LOCATE COMP "led_0__io" SITE "B2";',
        'FREQUENCY PORT "clk25_0__io" 25000000.0 HZ;',
        f'FREQUENCY NET "clocks.clk_sync" {board.clock_mhz * 1e6} HZ;',
    ):
        assert line in lpf
    # Every port that is used has a place.
    assert lpf.count("LOCATE COMP") == lpf.count("IOBUF PORT") == 4


@pytest.mark.parametrize("board", BOARDS.values(), ids=BOARDS)
def test_clocks_are_reached(board):
    clocks = board.clocks
    assert clocks.output_mhz == board.clock_mhz
    if board.memory_mhz is None:
        assert clocks.memory_mhz is None
    else:
        assert 0.85 * board.memory_mhz <= clocks.memory_mhz <= board.memory_mhz


def test_elaboration_is_reproducible_and_free_of_paths():
    board = get_board("ulx3s-25f")
    first, second = (prepare(Echo(board), board) for _ in range(2))
    assert first == second
    assert "attribute \\src" not in first.rtlil
