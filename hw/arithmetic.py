"""Saturation and rounded shifts as expressions, the same as in isa.fixed."""

from amaranth.hdl import Cat, Const, Mux


def saturated(value, bits):
    """A signed value, limited to ``bits`` bits: an expression of that many bits, signed."""
    if len(value) <= bits:
        return value
    sign = value[-1]
    # It fits if all bits above agree with the sign bit of the result.
    upper = value[bits - 1 :]
    limit = Cat((~sign).replicate(bits - 1), sign)
    return Mux(upper.all() | ~upper.any(), value[:bits], limit).as_signed()


def with_half(value):
    """A signed value with one fraction bit, so that a right shift leaves what rounds it."""
    return Cat(Const(0, 1), value).as_signed()


def judged(value, bits):
    """The first half of ``rounded(value, bits)``, for a register between: ``bits + 2`` bits.

    The bits above are judged before the fraction bit is added: what leaves the range one bit wider
    stays outside of the range.
    """
    return Cat(value[0], saturated(value[1:].as_signed(), bits + 1)).as_signed()


def rounded(value, bits):
    """A signed value with one fraction bit, rounded half up and limited to ``bits`` bits."""
    value = judged(value, bits)
    return saturated(value[1:].as_signed() + value[0], bits)
