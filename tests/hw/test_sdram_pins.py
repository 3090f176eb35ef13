"""The SDRAM's pads on the ULX3S: all placed, registers in them, and the clock constrained."""

import dataclasses

import pytest

from hw.boards import get_board
from hw.build import prepare
from hw.route import route
from hw.synth import synthesise
from tests.hw.sdram_alone import MEMORY_MHZ, SdramAlone

# Both clocks are whole fractions of one VCO's.
BOARD = dataclasses.replace(get_board("ulx3s-85f"), clock_mhz=100.0)


def test_pads_are_placed_and_hold_registers():
    sources = prepare(SdramAlone(BOARD), BOARD)
    pads = {"clk": 1, "clk_en": 1, "cs": 1, "ras": 1, "cas": 1, "we": 1, "ba": 2, "a": 13,
            "dqm": 2, "dq": 16}  # fmt: skip
    for name, width in pads.items():
        for bit in range(width):
            port = f"sdram_0__{name}__io" + (f"[{bit}]" if width > 1 else "")
            assert f'LOCATE COMP "{port}" SITE' in sources.lpf
    assert 'FREQUENCY NET "clocks.clk_memory" 133333333' in sources.lpf
    cells = [line.split()[1] for line in sources.rtlil.splitlines() if " cell " in line]
    assert cells.count(r"\ODDRX1F") == 1  # the clock
    assert cells.count(r"\IFS1P3DX") == 16 + 1  # the last is the serial port's
    # Data and direction of every pad; CS# never changes, and the clock's register is the DDR one.
    assert cells.count(r"\OFS1P3DX") == 2 * (sum(pads.values()) - 2 + 1) + 1


@pytest.mark.full
def test_the_controller_routes_at_its_clock(tmp_path):
    sources = prepare(SdramAlone(BOARD), BOARD)
    (tmp_path / "top.il").write_text(sources.rtlil)
    (tmp_path / "top.lpf").write_text(sources.lpf)
    synthesise(tmp_path / "top.il", json=tmp_path / "top.json")
    _, report = route(tmp_path / "top.json", tmp_path / "top.lpf", BOARD, seed=1, out_dir=tmp_path)
    assert report.clock_at(MEMORY_MHZ).achieved_mhz > MEMORY_MHZ
    assert report.utilisation["lut"][0] < 800
