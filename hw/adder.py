"""An adder whose operands can be switched off: as large as one that always adds."""

from amaranth.hdl import C, Cat, Instance, Module, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.arguments import check_positive

#: Inputs A, B, C, D of a carry cell's LUT; (A & B) + (C & D): these differ, or the carry is A & B.
_LUT_INIT = 0x7888


class GatedAdder(wiring.Component):
    """``sum = (a if a_on else 0) + (b if b_on else 0)``, signed, in the same cycle.

    Each bit of a carry chain has a LUT of four inputs, of which an addition uses two. Synthesis
    puts the gates before the chain, in LUTs of their own. So a board gets the ECP5's carry cells
    themselves, with the gates inside; a simulation, which has no platform, the same in Amaranth.
    """

    def __init__(self, bits):
        check_positive("GatedAdder", bits=bits)
        self._bits = bits
        super().__init__(
            {
                "a": In(signed(bits)),
                "a_on": In(1),
                "b": In(signed(bits)),
                "b_on": In(1),
                "sum": Out(signed(bits)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        if platform is None:
            gated = [
                operand & on.replicate(self._bits)
                for operand, on in ((self.a, self.a_on), (self.b, self.b_on))
            ]
            m.d.comb += self.sum.eq(gated[0].as_signed() + gated[1].as_signed())
            return m
        padding = C(0, self._bits % 2)
        a, b = Cat(self.a, padding), Cat(self.b, padding)
        total = Signal(len(a))
        carry = C(0)
        for low in range(0, len(a), 2):
            ports = {}
            for half in range(2):
                bit = low + half
                ports |= {
                    f"p_INIT{half}": C(_LUT_INIT, 16),
                    f"p_INJECT1_{half}": "NO",
                    f"i_A{half}": a[bit],
                    f"i_B{half}": self.a_on,
                    f"i_C{half}": b[bit],
                    f"i_D{half}": self.b_on,
                    f"o_S{half}": total[bit],
                }
            carry_in, carry = carry, Signal(name=f"carry_{low + 2}")
            m.submodules[f"cell_{low}"] = Instance("CCU2C", i_CIN=carry_in, o_COUT=carry, **ports)
        m.d.comb += self.sum.eq(total)
        return m
