"""The board's top: clocks, serial port, SDRAM, flash, link and accelerator. Only wires."""

from fractions import Fraction

from amaranth.hdl import ClockDomain, Elaboratable, Module
from amaranth.lib import io
from amaranth.lib.wiring import connect

from hw.accelerator import Accelerator
from hw.bitstream import placeholder
from hw.boards import Board
from hw.clocking import ClockGenerator
from hw.flash_pins import FlashPins
from hw.link import Link
from hw.resets import Parts
from hw.sdram_pins import SdramPins
from hw.uart import UARTReceiver, UARTTransmitter
from isa.geometry import Geometry


class Top(Elaboratable):
    """One accelerator on one board, driven over the board's serial port.

    LED 0 shines while the interrupt is up: an image is loaded, a frame is done, or an error waits.
    Raises ValueError for a geometry with an SDRAM where the board has none.
    """

    def __init__(self, *, board: Board, geometry: Geometry):
        if geometry.sdram_bytes and board.memory_mhz is None:
            raise ValueError(
                f"Board must have an SDRAM for geometry {geometry.name}, not {board.name}"
            )
        self._board = board
        self._geometry = geometry

    @property
    def sites(self):
        """Where cells of the netlist shall stand, by name."""
        floorplan = self._board.floorplan
        return {} if floorplan is None else floorplan(self._geometry)

    def elaborate(self, platform):
        m = Module()
        board = self._board
        m.domains.sync = ClockDomain(reset_less=True)
        memory_mhz = None
        if self._geometry.sdram_bytes:
            m.domains.memory = ClockDomain(reset_less=True)
            memory_mhz = board.memory_mhz
        m.submodules.clocks = clocks = ClockGenerator(
            input_mhz=board.oscillator_mhz, target_mhz=board.clock_mhz, memory_mhz=memory_mhz
        )
        pins = platform.request("uart", 0, dir={"rx": "-", "tx": "-", "rts": "-", "dtr": "-"})
        m.submodules.clock_pin = clock_pin = io.Buffer(
            "i", platform.request(board.oscillator, dir="-")
        )
        m.submodules.led = led = io.Buffer("o", platform.request("led", 0, dir="-"))
        m.submodules.rx_pin = rx_pin = io.Buffer("i", pins.rx)
        m.submodules.tx_pin = tx_pin = io.Buffer("o", pins.tx)

        clock_hz = Fraction(clocks.settings.output_mhz).limit_denominator(1000) * 1_000_000
        divisor = clock_hz / board.uart_baud
        resets = {"sync": clocks.reset}
        parts = Parts(m, resets)
        parts.receiver = receiver = UARTReceiver(divisor=divisor)
        parts.transmitter = transmitter = UARTTransmitter(divisor=divisor)
        parts.link = link = Link(clock_hz=int(clock_hz))
        if memory_mhz is not None:
            resets["memory"] = clocks.memory_reset
        # The same for every network: a bitstream is filled with an image after routing.
        m.submodules.accelerator = accelerator = Accelerator(
            geometry=self._geometry,
            image=placeholder(self._geometry.image_words),
            memory_mhz=clocks.settings.memory_mhz,
            resets=resets,
        )
        m.d.comb += [
            clocks.clk_in.eq(clock_pin.i),
            receiver.pin.eq(rx_pin.i),
            tx_pin.o.eq(transmitter.pin),
            led.o.eq(accelerator.interrupt),
        ]
        connect(m, receiver.bytes, link.rx)
        connect(m, link.tx, transmitter.bytes)
        connect(m, link.bus, accelerator.bus)
        if memory_mhz is not None:
            pads = platform.request("sdram", 0, dir=SdramPins.DIRECTIONS)
            m.submodules.sdram = sdram = SdramPins(pads)
            connect(m, accelerator.pins, sdram.pins)
            flash_pads = platform.request("spi_flash", 0, dir=FlashPins.DIRECTIONS)
            m.submodules.flash = flash = FlashPins(flash_pads, clock_mhz=clocks.settings.output_mhz)
            connect(m, accelerator.flash, flash.spi)
        return m
