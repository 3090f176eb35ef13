"""The board's top: that it elaborates with all pins and clocks constrained."""

import dataclasses

import pytest

from hw.boards import get_board
from hw.build import prepare
from hw.top import Top
from isa.geometry import TINY
from tests.geometries import TINY_SDRAM


def test_all_pins_and_clocks_are_constrained():
    board = dataclasses.replace(get_board("ulx3s-25f"), clock_mhz=50.0)
    sources = prepare(Top(board=board, geometry=TINY), board)
    for port in ("clk25_0__io", "uart_0__rx__io", "uart_0__tx__io", "led_0__io"):
        assert f'LOCATE COMP "{port}" SITE' in sources.lpf
    assert 'FREQUENCY PORT "clk25_0__io" 25000000.0 HZ;' in sources.lpf
    assert 'FREQUENCY NET "clocks.clk_sync" 50000000.0 HZ;' in sources.lpf
    assert "EHXPLLL" in sources.rtlil


def test_an_sdram_and_a_flash_have_pins_and_a_clock_of_its_own():
    board = dataclasses.replace(get_board("ulx3s-85f"), clock_mhz=50.0)
    sources = prepare(Top(board=board, geometry=TINY_SDRAM), board)
    used = [line.split('"')[1] for line in sources.lpf.splitlines() if "IOBUF PORT" in line]
    placed = [line.split('"')[1] for line in sources.lpf.splitlines() if "LOCATE COMP" in line]
    assert used == placed
    assert len([port for port in used if port.startswith("sdram_0__")]) == 39
    assert 'FREQUENCY NET "clocks.clk_sync" 50000000.0 HZ;' in sources.lpf
    assert f'FREQUENCY NET "clocks.clk_memory" {board.clocks.memory_mhz * 1e6} HZ;' in sources.lpf
    assert len([port for port in used if port.startswith("spi_flash_0__")]) == 5
    assert sources.rtlil.count("cell \\USRMCLK ") == 1
    assert "image_ram" not in sources.rtlil
    without = prepare(Top(board=board, geometry=TINY), board)
    assert "image_ram_0" in without.rtlil
    assert "USRMCLK" not in without.rtlil


def test_a_board_without_an_sdram_is_refused():
    with pytest.raises(ValueError) as caught:
        Top(board=get_board("ulx3s-25f"), geometry=TINY_SDRAM)
    assert str(caught.value) == "Board must have an SDRAM for geometry tiny-sdram, not ulx3s-25f"
