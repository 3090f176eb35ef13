"""A design of a few dozen cells that takes the whole flow: PLL, UART pins, a blinking LED."""

from amaranth.hdl import Cat, ClockDomain, Elaboratable, Module, Signal
from amaranth.lib import io
from amaranth.lib.cdc import FFSynchronizer

from hw.clocking import ClockGenerator


class Echo(Elaboratable):
    """Returns what arrives on the UART, `delay` cycles later; LED 0 blinks."""

    def __init__(self, board, *, delay=8):
        self._board = board
        self._delay = delay

    def elaborate(self, platform):
        m = Module()
        board = self._board
        m.domains.sync = ClockDomain(reset_less=True)
        m.submodules.clocks = clocks = ClockGenerator(
            input_mhz=board.oscillator_mhz, target_mhz=board.clock_mhz
        )
        pins = platform.request("uart", 0, dir={"rx": "-", "tx": "-", "rts": "-", "dtr": "-"})
        m.submodules.clock_pin = clock_pin = io.Buffer(
            "i", platform.request(board.oscillator, dir="-")
        )
        m.submodules.led = led = io.Buffer("o", platform.request("led", 0, dir="-"))
        m.submodules.rx = rx = io.Buffer("i", pins.rx)
        m.submodules.tx = tx = io.Buffer("o", pins.tx)

        line = Signal(self._delay, init=-1)
        count = Signal(25)
        arrived = Signal(init=1)
        m.submodules.rx_sync = FFSynchronizer(rx.i, arrived, init=1)
        m.d.comb += [clocks.clk_in.eq(clock_pin.i), tx.o.eq(line[-1]), led.o.eq(count[-1])]
        m.d.sync += [line.eq(Cat(arrived, line)), count.eq(count + 1)]
        return m
