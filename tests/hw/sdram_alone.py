"""The SDRAM controller on its board, with a requester of a few registers: for routing."""

from amaranth.hdl import ClockDomain, Elaboratable, Module, Signal, Value
from amaranth.lib import io
from amaranth.lib.wiring import connect

from hw.clocking import ClockGenerator
from hw.resets import Parts
from hw.sdram import SdramController
from hw.sdram_pins import SdramPins

MEMORY_MHZ = 400 / 3


class SdramAlone(Elaboratable):
    """Requests come from a shift register that the serial port fills; what is read goes there.

    So nothing is constant that the controller decides by, and nothing that it yields is unused.
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
        m.submodules.rx = rx = io.FFBuffer("i", uart.rx, i_domain="memory")
        m.submodules.tx = tx = io.FFBuffer("o", uart.tx, o_domain="memory")
        parts = Parts(m, {"memory": clocks.memory_reset}, cycles=2)
        parts.controller = controller = SdramController(clock_mhz=MEMORY_MHZ)
        m.submodules.pins = pins = SdramPins(sdram)
        connect(m, controller.pins, pins.pins)

        requests, beats = controller.requests, controller.write_data
        ports = (requests.payload, requests.valid, beats.payload, beats.valid)
        chain = rx.i
        for port in ports:
            shift = Signal(len(Value.cast(port)))
            m.d.memory += shift.eq((shift << 1) | chain)
            m.d.comb += port.eq(shift)
            chain = shift[-1]
        answer = Signal(16)
        m.d.memory += [
            answer.eq(answer >> 1),
            tx.o.eq(answer[0] ^ requests.ready ^ beats.ready ^ controller.ready),
        ]
        with m.If(controller.read_valid):
            m.d.memory += answer.eq(controller.read_data)
        m.d.comb += clocks.clk_in.eq(clock_pin.i)
        return m
