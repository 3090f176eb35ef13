"""The MAC array's operand, for each kind of layer."""

import random

import pytest

from hw.operands import MacOperand
from isa.layer import LayerKind
from sim.bench import simulate


@pytest.mark.parametrize(
    ("taps", "stem_taps", "post_lanes"), [(1, 1, 1), (1, 1, 4), (2, 3, 8), (4, 4, 4), (1, 4, 2)]
)
@pytest.mark.parametrize("kind", [LayerKind.STEM, LayerKind.POINTWISE, LayerKind.CLASSIFIER])
def test_operand(kind, taps, stem_taps, post_lanes):
    dut = MacOperand(taps=taps, stem_taps=stem_taps, post_lanes=post_lanes)
    further = [0] * (stem_taps - taps)
    luck = random.Random(11)
    border = [10, 250, 128, 7]

    async def bench(ctx):
        ctx.set(dut.kind, kind)
        ctx.set(dut.border, int.from_bytes(bytes(border), "little"))
        await ctx.tick()
        for _ in range(100):
            pixels = [luck.randrange(256) for _ in range(stem_taps)]
            residuals = [luck.randrange(-256, 256) for _ in range(post_lanes)]
            features = [luck.randrange(-(1 << 15), 1 << 15) for _ in range(post_lanes)]
            select = luck.randrange(post_lanes // taps)
            inside = [luck.randrange(2) for _ in range(stem_taps)]
            channels = [luck.randrange(4) for _ in range(stem_taps)]
            ctx.set(dut.bytes, pixels)
            ctx.set(dut.residual, residuals)
            ctx.set(dut.feature, features)
            ctx.set(dut.step.select, select)
            ctx.set(dut.step.inside, sum(bit << t for t, bit in enumerate(inside)))
            ctx.set(dut.step.border, channels)
            await ctx.tick()
            expected = {
                LayerKind.STEM: [
                    pixels[t] if inside[t] else border[channels[t]] for t in range(stem_taps)
                ],
                LayerKind.POINTWISE: residuals[select * taps :][:taps] + further,
                LayerKind.CLASSIFIER: features[select * taps :][:taps] + further,
            }[kind]
            values = [ctx.get(dut.operand.values[t]) for t in range(taps)]
            values += [ctx.get(dut.operand.bytes[t]) for t in range(stem_taps - taps)]
            assert values == expected

    simulate(dut, bench)
