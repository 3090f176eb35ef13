"""The MAC array's operand: input bytes, residuals or features, T of them."""

from amaranth import Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from hw.maps import feature_layout
from hw.walk import step_layout
from isa.fixed import FEATURE_BITS, RESIDUAL_BITS
from isa.layer import LayerKind


def residual_layout(post_lanes: int) -> data.ArrayLayout:
    """A word of the residual map: L residuals."""
    return data.ArrayLayout(signed(RESIDUAL_BITS), post_lanes)


class MacOperand(wiring.Component):
    """Picks the T values of a step from what its address has read. Registered: one cycle.

    The stem takes bytes, or the channel's border value for those outside the image; the pointwise
    layer takes residuals and the classifier features, channels ``select * T`` and up of the word.
    """

    LATENCY = 1

    def __init__(self, *, taps: int, post_lanes: int):
        self._taps = taps
        self._groups = post_lanes // taps
        super().__init__(
            {
                "kind": In(LayerKind),
                "border": In(32),
                "step": In(step_layout(taps)),
                "bytes": In(data.ArrayLayout(8, taps)),
                "residual": In(residual_layout(post_lanes)),
                "feature": In(feature_layout(post_lanes)),
                "operand": Out(data.ArrayLayout(signed(FEATURE_BITS), taps)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        operand = Signal.like(self.operand, reset_less=True)
        m.d.comb += self.operand.eq(operand)
        for tap in range(self._taps):
            border = self.border.word_select(self.step.border[tap], 8)
            residual, feature = (
                data.ArrayLayout(signed(width), self._groups)
                for width in (RESIDUAL_BITS, FEATURE_BITS)
            )
            residuals, features = Signal(residual), Signal(feature)
            for group in range(self._groups):
                channel = group * self._taps + tap
                m.d.comb += [
                    residuals[group].eq(self.residual[channel]),
                    features[group].eq(self.feature[channel]),
                ]
            with m.Switch(self.kind):
                with m.Case(LayerKind.STEM):
                    m.d.sync += operand[tap].eq(Mux(self.step.inside[tap], self.bytes[tap], border))
                with m.Case(LayerKind.POINTWISE):
                    m.d.sync += operand[tap].eq(residuals[self.step.select])
                with m.Default():
                    m.d.sync += operand[tap].eq(features[self.step.select])
        return m
