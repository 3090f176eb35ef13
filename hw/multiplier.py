"""A signed multiplier with registers before and behind it: those of the ECP5's DSP block."""

from amaranth.hdl import C, ClockSignal, Instance, Module, Signal, Value, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

OPERAND_BITS = 18
PRODUCT_BITS = 36


class Multiplier(wiring.Component):
    """``product = a * b``, LATENCY cycles later, new operands in every cycle, no flow control.

    Synthesis infers the block from a ``*``, but leaves its registers unused, which costs half of
    the clock. So a board gets the block itself; a simulation, which has no platform, the same in
    Amaranth. The registers have no reset.
    """

    LATENCY = 2

    def __init__(self, *, a_bits, b_bits):
        for name, bits in (("a_bits", a_bits), ("b_bits", b_bits)):
            if not isinstance(bits, int) or not 1 <= bits <= OPERAND_BITS:
                raise ValueError(f"Multiplier {name} must be in 1..{OPERAND_BITS}, not {bits!r}")
        super().__init__(
            {
                "a": In(signed(a_bits)),
                "b": In(signed(b_bits)),
                "product": Out(signed(a_bits + b_bits)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        if platform is None:
            a, b = (Signal.like(port, reset_less=True) for port in (self.a, self.b))
            product = Signal.like(self.product, reset_less=True)
            m.d.sync += [a.eq(self.a), b.eq(self.b), product.eq(a * b)]
            m.d.comb += self.product.eq(product)
            return m
        product = Signal(PRODUCT_BITS)
        m.d.comb += self.product.eq(product)
        ports = {}
        for letter, value in (("A", self.a), ("B", self.b)):
            wide = Signal(signed(OPERAND_BITS), name=f"wide_{letter.lower()}")
            m.d.comb += wide.eq(value)
            ports |= {f"i_{letter}{i}": Value.cast(wide)[i] for i in range(OPERAND_BITS)}
            ports |= {f"i_SIGNED{letter}": C(1), f"i_SOURCE{letter}": C(0)}
        ports |= {f"o_P{i}": product[i] for i in range(PRODUCT_BITS)}
        for rank in ("INPUTA", "INPUTB", "OUTPUT"):
            ports |= {
                f"p_REG_{rank}_CLK": "CLK0",
                f"p_REG_{rank}_CE": "CE0",
                f"p_REG_{rank}_RST": "RST0",
            }
        m.submodules.block = Instance(
            "MULT18X18D",
            p_GSR="DISABLED",
            i_CLK0=ClockSignal(),
            i_CE0=C(1),
            i_RST0=C(0),
            **ports,
        )
        return m
