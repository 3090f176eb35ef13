"""A register stage in a stream, which divides a long way."""

from amaranth.hdl import Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out


class Stage(wiring.Component):
    """Passes on one item a cycle, a cycle later; in `sync`.

    ``input.ready`` and ``output.valid`` are registers: no path leads from one side to the other.
    """

    def __init__(self, shape):
        super().__init__(
            {"input": In(stream.Signature(shape)), "output": Out(stream.Signature(shape))}
        )

    def elaborate(self, platform):
        m = Module()
        input, output = self.input, self.output
        payload = Signal(input.payload.shape(), reset_less=True)
        # The item behind it, taken before it was known that the one in front would stay.
        spare = Signal.like(payload, reset_less=True)
        m.d.comb += output.payload.eq(payload)
        full = Signal()  # there is a spare item
        m.d.comb += input.ready.eq(~full)
        with m.If(~full):
            m.d.sync += spare.eq(input.payload)
        with m.If(output.ready | ~output.valid):
            m.d.sync += [output.valid.eq(full | input.valid), full.eq(0)]
            with m.If(full):
                m.d.sync += payload.eq(spare)
            with m.Else():
                m.d.sync += payload.eq(input.payload)
        with m.Elif(input.valid):
            m.d.sync += full.eq(1)
        return m
