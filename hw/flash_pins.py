"""The board's side of the SPI flash: registers in the pads, and the clock of the configuration.

The FPGA loads itself from this flash, and its clock leaves by a pin of the configuration logic,
which only the primitive USRMCLK drives. So the clock comes from a register in the fabric, and is
later at the chip than the other pins by what lies between them.

From the edge that lets the clock fall to the bit that is stable in its pad, at 10 ns a cycle:

======================================================  =======
from the register through USRMCLK to the chip           6 ns
output delay of the chip (tV, at most)                  8 ns
from the chip through the pad to its register           1.3 ns
sum: the bit is stable                                  15.3 ns
======================================================  =======

It is taken at 20 ns, where the clock falls again, and stays for at least 2 ns after that. The chip
takes a bit 10 ns after it has changed, and 10 ns before it changes again, the clock's delay added
or taken off; it wants 2 and 3 ns. These are estimates from the data sheets. At 60 MHz each is
two thirds longer.
"""

from amaranth.hdl import Const, Instance, Module, Signal
from amaranth.lib import io, wiring
from amaranth.lib.wiring import In

from hw.flash import SpiSignature

MAX_CLOCK_MHZ = 100.0


class FlashPins(wiring.Component):
    """Connects `spi` with the pads of `resource`; write protection and hold are off.

    `resource` is ``platform.request("spi_flash", 0, dir=FlashPins.DIRECTIONS)``, `clock_mhz` that
    of the domain `sync`. Every signal takes one cycle.
    """

    #: Pads without buffers; those are made here.
    DIRECTIONS = dict.fromkeys(("cs", "copi", "cipo", "hold", "wp"), "-")

    def __init__(self, resource, *, clock_mhz):
        if clock_mhz > MAX_CLOCK_MHZ:
            raise ValueError(
                f"Flash pins clock_mhz must be at most {MAX_CLOCK_MHZ:g}, not {clock_mhz!r}"
            )
        self._resource = resource
        super().__init__({"spi": In(SpiSignature())})

    def elaborate(self, platform):
        m = Module()
        spi, pads = self.spi, self._resource
        sck = Signal()
        m.d.sync += sck.eq(spi.sck)
        m.submodules.sck = Instance("USRMCLK", i_USRMCLKI=sck, i_USRMCLKTS=Const(0))
        for name, value in {"cs": spi.cs, "copi": spi.copi}.items():
            m.submodules[name] = buffer = io.FFBuffer("o", getattr(pads, name))
            m.d.comb += buffer.o.eq(value)
        m.submodules.cipo = cipo = io.FFBuffer("i", pads.cipo)
        m.d.comb += spi.cipo.eq(cipo.i)
        # The pads invert: 0 is what keeps these off.
        for name in ("hold", "wp"):
            m.submodules[name] = buffer = io.Buffer("o", getattr(pads, name))
            m.d.comb += buffer.o.eq(0)
        return m
