"""The board's top: that it elaborates with all pins and clocks constrained."""

import dataclasses

from hw.boards import get_board
from hw.build import prepare
from hw.top import Top
from isa.geometry import TINY


def test_all_pins_and_clocks_are_constrained():
    board = dataclasses.replace(get_board("ulx3s-25f"), clock_mhz=50.0)
    sources = prepare(Top(board=board, geometry=TINY), board)
    for port in ("clk25_0__io", "uart_0__rx__io", "uart_0__tx__io", "led_0__io"):
        assert f'LOCATE COMP "{port}" SITE' in sources.lpf
    assert 'FREQUENCY PORT "clk25_0__io" 25000000.0 HZ;' in sources.lpf
    assert 'FREQUENCY NET "clocks.clk_sync" 50000000.0 HZ;' in sources.lpf
    assert "EHXPLLL" in sources.rtlil
