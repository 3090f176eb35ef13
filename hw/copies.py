"""Equal registers that divide a large fan-out, which synthesis would merge into one."""

from amaranth.hdl import Signal


def kept(shape, name, *, init=None, reset_less=False):
    """A signal for such a register; `hw.synth` keeps the flip-flops behind it as well."""
    return Signal(shape, name=name, init=init, reset_less=reset_less, attrs={"keep": "true"})


def shares(count, size):
    """So many lanes in ranges of that size, each of which gets copies of its own."""
    return [range(start, min(start + size, count)) for start in range(0, count, size)]


def copy(m, value, name):
    """A register without reset that holds ``value`` a cycle later, on its own."""
    target = kept(value.shape(), name, reset_less=True)
    m.d.sync += target.eq(value)
    return target
