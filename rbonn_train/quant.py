"""Simulation of the accelerator's rounding in training, with straight-through gradients.

The residual stream is stored as 9-bit integers; the next sign sees the value before that rounding.
int8 weights are rounded by :func:`isa.fixed.quantise_weights` itself.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from isa import fixed
from isa.network import Quantisation

SAMPLES = 8192  # values of |y| remembered per batch for the percentile
PERCENTILE = 99.95


class _FakeQuantise(torch.autograd.Function):
    """lsb * saturate_9(round_half_up(y / lsb)); the gradient passes where nothing saturated."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, lsb: float) -> Tensor:
        low, high = fixed.limits(fixed.RESIDUAL_BITS)
        rounded = (y * (1 / lsb)).add_(0.5).floor_()
        ctx.save_for_backward((rounded >= low) & (rounded <= high))
        return rounded.clamp_(low, high).mul_(lsb)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (inside,) = ctx.saved_tensors
        return grads[0] * inside, None


def fake_quantise(y: Tensor, lsb: float) -> Tensor:
    """What the residual memory holds for real values ``y``, in real units."""
    return _FakeQuantise.apply(y, lsb)


class ResidualPoint(nn.Module):
    """One tensor of the residual stream: passes it, watches its range, or rounds it.

    ``lsb``: real value of one LSB, None while rounding is off. ``watching``: collects |y|.
    """

    def __init__(self) -> None:
        super().__init__()
        self.lsb: float | None = None
        self.watching = False
        self.samples: list[Tensor] = []

    def forward(self, y: Tensor) -> Tensor:
        if self.watching:
            flat = y.detach().flatten()
            self.samples.append(flat[:: stride(y.shape)].abs())
        return y if self.lsb is None else fake_quantise(y, self.lsb)

    def average(self, x: Tensor) -> Tensor:
        """Rounds a 2x2 average of residuals to the same LSB, half up (in range by construction)."""
        return x if self.lsb is None else fake_quantise(x, self.lsb)

    def percentile(self, percentile: float) -> float:
        """Of the |y| collected since the last call, which are forgotten."""
        values = torch.cat(self.samples).double().cpu().numpy()
        self.samples = []
        return float(np.percentile(values, percentile))


def stride(shape: Sequence[int]) -> int:
    """For about :data:`SAMPLES` values of a tensor, in order. It shares no factor with any axis, so
    that it visits every channel, row and column alike."""
    count = math.prod(shape)
    step = max(1, count // SAMPLES)
    while math.gcd(step, count) > 1:
        step += 1
    return step


def fake_quantise_weight(weight: Tensor) -> Tensor:
    """int8 weights per output channel, in real units; straight-through gradient."""
    with torch.no_grad():
        integers, scale = fixed.quantise_weights(weight.double().cpu().numpy())
        shaped = scale.reshape(-1, *[1] * (weight.ndim - 1))
        difference = torch.from_numpy(integers * shaped).to(weight) - weight
    return weight + difference


def choose_scales(ranges: Mapping[str, float]) -> Quantisation:
    """Scale and exponents for which each tensor's largest code covers about its range.

    ``ranges``: a large percentile of |y| per tensor. Powers of two waste up to one bit: of 64
    mantissas, that whose LSBs are smallest in the geometric mean; 6 % of the range may saturate.
    """
    names = list(ranges)
    top = fixed.limits(fixed.RESIDUAL_BITS)[1]
    lsbs = np.array([max(ranges[name], 1e-6) / top for name in names])
    best, best_waste = (1.0, np.zeros(len(names))), math.inf
    for mantissa in 2.0 ** (np.arange(64) / 64):
        base = math.ldexp(mantissa, math.floor(math.log2(lsbs[0])))
        exponents = np.ceil(np.log2(lsbs / base) - 0.08)
        waste = float(np.sum(np.log2(base) + exponents - np.log2(lsbs)))
        if waste < best_waste - 1e-9:
            best, best_waste = (base, exponents), waste
    return Quantisation(float(best[0]), {n: int(e) for n, e in zip(names, best[1], strict=True)})
