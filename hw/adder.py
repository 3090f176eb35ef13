"""Adders made of the ECP5's carry cells, with more inside than synthesis puts there.

Synthesis uses two of the four inputs that a carry chain has for each bit, and spends two cells more
on each chain, for a constant carry in and for a carry out that nobody reads.
"""

from amaranth.hdl import C, Instance, Mux, Signal, Value, signed

#: Inputs A, B, C, D of a bit's LUT: (A & B) + (C & D). Where these are equal the carry is A & B.
_SUM = 0x7888
#: The carry is A, whatever comes in, as long as C and D are high.
IGNORES_CARRY_IN = 0x000A
_UNUSED = 0x0000


def add(m, platform, name, a, b, *, bits, carry=0, a_on=1, b_on=1):
    """``(a if a_on else 0) + (b if b_on else 0) + carry``, modulo 2**bits, as a signed signal.

    ``a`` and ``b`` are extended by their own signs. Combinational. On a board it becomes one carry
    chain of ``bits + 1`` bits in `m`; in a simulation, which has no platform, an expression.
    """
    total = Signal(signed(bits), name=name)
    if platform is None:
        m.d.comb += total.eq(Mux(a_on, a, 0) + Mux(b_on, b, 0) + carry)
        return total
    wide = []
    for operand, letter in ((a, "a"), (b, "b")):
        wide.append(Signal(signed(bits), name=f"{name}_{letter}"))
        m.d.comb += wide[-1].eq(operand)
    # (INIT, A, B, C, D, sum) of each bit of the chain: first the carry, at the end a filler.
    high, low = C(1), C(0)
    a_on, b_on = (Value.cast(on) for on in (a_on, b_on))
    chain = [(IGNORES_CARRY_IN, Value.cast(carry), low, high, high, None)]
    for a_bit, b_bit, total_bit in zip(*wide, total, strict=True):
        chain.append((_SUM, a_bit, a_on, b_bit, b_on, total_bit))
    if len(chain) % 2:
        chain.append((_UNUSED, low, low, low, low, None))
    carries = [Signal(name=f"{name}_carry_{i}") for i in range(len(chain) // 2 - 1)]
    for cell in range(len(chain) // 2):
        ports = {}
        for half, (init, *inputs, output) in enumerate(chain[2 * cell :][:2]):
            ports |= {f"p_INIT{half}": C(init, 16), f"p_INJECT1_{half}": "NO"}
            ports |= {f"i_{pin}{half}": x for pin, x in zip("ABCD", inputs, strict=True)}
            if output is not None:
                ports[f"o_S{half}"] = output
        if cell > 0:
            ports["i_CIN"] = carries[cell - 1]
        if cell < len(carries):
            ports["o_COUT"] = carries[cell]
        m.submodules[f"{name}_cell_{cell}"] = Instance("CCU2C", **ports)
    return total
