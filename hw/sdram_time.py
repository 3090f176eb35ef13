"""What the SDRAM's controller measures time with; all flip-flops, and nothing to compare."""

from amaranth.hdl import Signal, signed


class Countdown:
    """Counts in the domain `memory`. `over` is a flip-flop, its sign: no comparison is needed.

    A statement `load(n)`, executed in one cycle, makes `over` low, and high from the n-th after it.
    """

    def __init__(self, m, longest, name):
        count = Signal(signed(1 + longest.bit_length()), init=longest - 2, name=name)
        self._count, self.over = count, count[-1]
        with m.If(~self.over):
            m.d.memory += count.eq(count - 1)

    def load(self, cycles):
        return self._count.eq(cycles - 2)


class Timer:
    """Keeps a strobe back until its time has come; a shift register in the domain `memory`.

    After a statement `load(n)`, executed in a cycle with a strobe, a strobe that is set in cycles
    in which `pending` is low comes n cycles after the first one, or later, but at least two.
    """

    def __init__(self, m, longest, name):
        self._bits = Signal(max(1, longest - 2), name=name)
        self.pending = self._bits[0]
        m.d.memory += self._bits.eq(self._bits >> 1)

    def load(self, cycles):
        return self._bits.eq((1 << max(0, cycles - 2)) - 1)
