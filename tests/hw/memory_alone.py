"""The memory system on its board, with a core and a host of a few registers: for routing."""

from amaranth.hdl import Cat, ClockDomain, Elaboratable, Module, Signal, Value
from amaranth.lib import io
from amaranth.lib.wiring import connect

from hw.clocking import ClockGenerator
from hw.memory import MemorySystem
from hw.sdram_pins import SdramPins

MEMORY_MHZ = 400 / 3


class MemoryAlone(Elaboratable):
    """What the core drives comes from a shift register that the serial port fills; what it gets is
    folded into one that the serial port empties. So nothing is constant, and nothing is unused.
    """

    def __init__(self, board):
        self._board = board

    def elaborate(self, platform):
        m = Module()
        board = self._board
        m.domains.sync = ClockDomain(reset_less=True)
        m.domains.memory = ClockDomain(reset_less=True)
        m.submodules.clocks = clocks = ClockGenerator(
            input_mhz=board.oscillator_mhz, target_mhz=board.clock_mhz, memory_mhz=MEMORY_MHZ
        )
        uart = platform.request("uart", 0, dir={"rx": "-", "tx": "-", "rts": "-", "dtr": "-"})
        oscillator = platform.request(board.oscillator, dir="-")
        sdram = platform.request("sdram", 0, dir=SdramPins.DIRECTIONS)
        m.submodules.clock_pin = clock_pin = io.Buffer("i", oscillator)
        m.submodules.rx = rx = io.FFBuffer("i", uart.rx)
        m.submodules.tx = tx = io.FFBuffer("o", uart.tx)
        m.submodules.memory = memory = MemorySystem(
            clock_mhz=MEMORY_MHZ, resets={"sync": clocks.reset, "memory": clocks.memory_reset}
        )
        m.submodules.pins = pins = SdramPins(sdram)
        connect(m, memory.pins, pins.pins)

        chain = rx.i
        driven, got = [], []
        for path, member, value in memory.signature.flatten(memory):
            if path[0] != "pins":
                (driven if member.flow.name == "In" else got).append(Value.cast(value))
        for port in driven:
            shift = Signal(len(port))
            m.d.sync += shift.eq((shift << 1) | chain)
            m.d.comb += port.eq(shift)
            chain = shift[-1]
        kept = Signal(sum(map(len, got)))
        folded = Signal.like(kept)
        m.d.sync += [kept.eq(Cat(got)), folded.eq((folded >> 1) ^ kept), tx.o.eq(folded[0])]
        m.d.comb += clocks.clk_in.eq(clock_pin.i)
        return m
