"""The MAC array's operand: input bytes, residuals or features."""

from amaranth import Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from hw.copies import copy
from hw.dot import mac_operand
from hw.maps import feature_layout
from hw.walk import step_layout
from isa.fixed import FEATURE_BITS, RESIDUAL_BITS
from isa.layer import LayerKind


def residual_layout(post_lanes: int) -> data.ArrayLayout:
    """A word of the residual map: L residuals."""
    return data.ArrayLayout(signed(RESIDUAL_BITS), post_lanes)


class MacOperand(wiring.Component):
    """Picks the values of a step from what its address has read. Registered: one cycle.

    The stem takes S bytes, or the channel's border value for those outside the image; the pointwise
    layer takes T residuals and the classifier T features, channels ``select * T`` and up of the
    word, and zeros for what is left. ``kind`` and ``border`` stand from the cycle before the first
    step.
    """

    LATENCY = 1

    def __init__(self, *, taps: int, stem_taps: int, post_lanes: int):
        self._taps, self._stem_taps = taps, stem_taps
        self._groups = post_lanes // taps
        super().__init__(
            {
                "kind": In(LayerKind),
                "border": In(32),
                "step": In(step_layout(stem_taps)),
                "bytes": In(data.ArrayLayout(8, stem_taps)),
                "residual": In(residual_layout(post_lanes)),
                "feature": In(feature_layout(post_lanes)),
                "operand": Out(mac_operand(taps=taps, stem_taps=stem_taps)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        step = self.step
        operand = Signal.like(self.operand, reset_less=True)
        m.d.comb += self.operand.eq(operand)
        border = copy(m, self.border, "border")
        pixels = [
            Mux(step.inside[tap], self.bytes[tap], border.word_select(step.border[tap], 8))
            for tap in range(self._stem_taps)
        ]
        for tap in range(self._taps, self._stem_taps):
            stem = copy(m, self.kind == LayerKind.STEM, f"stem_{tap}")
            m.d.sync += operand.bytes[tap - self._taps].eq(Mux(stem, pixels[tap], 0))
        for tap in range(self._taps):
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
            stem = copy(m, self.kind == LayerKind.STEM, f"stem_{tap}")
            pointwise = copy(m, self.kind == LayerKind.POINTWISE, f"pointwise_{tap}")
            with m.If(stem):
                m.d.sync += operand.values[tap].eq(pixels[tap])
            with m.Elif(pointwise):
                m.d.sync += operand.values[tap].eq(residuals[step.select])
            with m.Else():
                m.d.sync += operand.values[tap].eq(features[step.select])
        return m
