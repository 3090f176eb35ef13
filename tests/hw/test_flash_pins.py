# amaranth: UnusedElaboratable=no
"""The flash's pads on the ULX3S: placed, registers in them, and the clock through USRMCLK."""

import dataclasses

import pytest
from amaranth.hdl import ClockDomain, Elaboratable, Module, Signal
from amaranth.lib import io
from amaranth.lib.wiring import connect

from hw.boards import get_board
from hw.build import prepare
from hw.clocking import ClockGenerator
from hw.flash import FlashReader
from hw.flash_pins import FlashPins
from hw.synth import synthesise

BOARD = dataclasses.replace(get_board("ulx3s-85f"), clock_mhz=100.0)


class FlashAlone(Elaboratable):
    """Words of the flash, folded to one that a LED shows."""

    def elaborate(self, platform):
        m = Module()
        m.domains.sync = ClockDomain(reset_less=True)
        m.submodules.clocks = clocks = ClockGenerator(
            input_mhz=BOARD.oscillator_mhz, target_mhz=BOARD.clock_mhz
        )
        m.submodules.clock_pin = clock_pin = io.Buffer(
            "i", platform.request(BOARD.oscillator, dir="-")
        )
        m.submodules.led = led = io.Buffer("o", platform.request("led", 0, dir="-"))
        m.submodules.reader = reader = FlashReader(offset=0)
        pads = platform.request("spi_flash", 0, dir=FlashPins.DIRECTIONS)
        m.submodules.pins = pins = FlashPins(pads, clock_mhz=clocks.settings.output_mhz)
        connect(m, reader.spi, pins.spi)
        folded = Signal(32)
        m.d.comb += [
            clocks.clk_in.eq(clock_pin.i),
            reader.enable.eq(1),
            reader.words.ready.eq(1),
            led.o.eq(folded[0]),
        ]
        with m.If(reader.words.valid):
            m.d.sync += folded.eq(folded.rotate_left(1) ^ reader.words.payload)
        return m


def test_pads_are_placed_and_hold_registers(tmp_path):
    sources = prepare(FlashAlone(), BOARD)
    sites = {"cs": "R2", "copi": "W2", "cipo": "V2", "hold": "W1", "wp": "Y2"}
    for name, site in sites.items():
        assert f'LOCATE COMP "spi_flash_0__{name}__io" SITE "{site}";' in sources.lpf
    (tmp_path / "top.il").write_text(sources.rtlil)
    synthesise(tmp_path / "top.il", json=tmp_path / "top.json")
    netlist = (tmp_path / "top.json").read_text()
    assert netlist.count('"type": "USRMCLK"') == 1
    assert netlist.count('"ioff_dir": "output"') == 4  # data and direction
    assert netlist.count('"ioff_dir": "input"') == 1


def test_a_clock_that_is_too_fast_is_refused():
    with pytest.raises(ValueError) as error:
        FlashPins(None, clock_mhz=100.1)
    assert str(error.value) == "Flash pins clock_mhz must be at most 100, not 100.1"
