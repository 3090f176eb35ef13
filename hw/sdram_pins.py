"""The board's side of the SDRAM: registers in the pads, and the clock that leaves the FPGA.

Commands, addresses and data pass one register in their pad on the way out, and data one on the way
in, so their times do not depend on placement. The chip's clock comes from a pad as well, from a DDR
register that puts out a 0 and then a 1: the clock of the domain `memory`, turned by 180 degrees,
and as late as everything else that leaves a pad. So the chip sees a command change half a cycle
before its clock's edge and half a cycle after it: 3.75 ns each at 133 MHz, where it wants 1.5 and
0.8.

When a beat is back, counted from the edge that puts READ on the pads, at 7.5 ns a cycle and slow:

======================================================  =======
half a cycle, to the chip's edge                        3.75 ns
clock from the edge to the chip, pad included           3.3 ns
two cycles: the beat comes after the second of them     15.0 ns
access time of the chip (tAC, CAS latency 3)            5.4 ns
from the chip through the pad to its register           1.3 ns
sum: the beat is stable                                 28.75 ns
======================================================  =======

It stays until one cycle later, less the 5.4 ns of access time and plus the 2.7 ns of hold time
(tOH): 33.55 ns. The fourth edge, at 30 ns, is 1.25 ns after the one and 3.55 ns before the other.
In a fast FPGA (1.6 and 0.6 ns in place of 3.3 and 1.3) the beat is there from 26.35 to 31.15 ns:
3.65 ns and 1.15 ns. These are estimates from the data sheets of both chips; the delays of the
ULX3S's traces are below 0.2 ns.
"""

from amaranth.hdl import Module
from amaranth.lib import io, wiring
from amaranth.lib.wiring import In

from hw.sdram_chip import PinsSignature

_SUBSIGNALS = ("clk", "clk_en", "cs", "ras", "cas", "we", "ba", "a", "dqm", "dq")


class SdramPins(wiring.Component):
    """Connects the controller's `pins` with the pads of `resource`, in the domain `memory`.

    `resource` is ``platform.request("sdram", 0, dir=SdramPins.DIRECTIONS)``. Everything takes one
    cycle out and one in; `dq_in` is what the chip drives, whether or not it does.
    """

    #: Pads without buffers; those are made here.
    DIRECTIONS = dict.fromkeys(_SUBSIGNALS, "-")

    def __init__(self, resource):
        self._resource = resource
        super().__init__({"pins": In(PinsSignature())})

    def elaborate(self, platform):
        m = Module()
        pins, pads = self.pins, self._resource
        m.submodules.clk = clk = io.DDRBuffer("o", pads.clk, o_domain="memory")
        m.submodules.cs = cs = io.Buffer("o", pads.cs)
        m.d.comb += [clk.o[0].eq(0), clk.o[1].eq(1), cs.o.eq(1)]

        # The pads of RAS#, CAS# and WE# invert, and a command holds what is on the pins.
        command = pins.command.as_value()
        for name, value in {
            "clk_en": pins.cke,
            "ras": ~command[2],
            "cas": ~command[1],
            "we": ~command[0],
            "ba": pins.bank,
            "a": pins.address,
            "dqm": pins.dqm,
        }.items():
            m.submodules[name] = buffer = io.FFBuffer("o", getattr(pads, name), o_domain="memory")
            m.d.comb += buffer.o.eq(value)

        m.submodules.dq = dq = io.FFBuffer("io", pads.dq, i_domain="memory", o_domain="memory")
        m.d.comb += [dq.o.eq(pins.dq_out), dq.oe.eq(pins.dq_drive), pins.dq_in.eq(dq.i)]
        return m
