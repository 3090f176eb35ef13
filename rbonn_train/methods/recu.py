"""ReCU (Xu et al., arXiv 2103.12369): weights are standardised, tails clamped, then binarised.

v = (w - mean w) / (std w / (2 sqrt 2)) per channel, with the constant of the released code;
ReCU(v) = max(min(v, Q), -Q) with Q = -E|v| ln(2 - 2 tau), the tau-quantile of a Laplace
distribution of mean 0, E|v| over the layer; W = alpha sign(ReCU(v)), straight-through: the gradient
passes where |v| <= Q, and flows on through mean and deviation. tau grows from ``tau`` to
``tau_end`` as A e^(t/T) + B (the exponential scheduler). alpha is learned; |alpha| is used here, so
that scales stay positive.
"""

import math
from typing import Any

import torch
from torch import Tensor

from rbonn_train.methods.base import ScaledConv2d, hard_sign, mean_magnitude

EPSILON = 1e-5


class _Identity(torch.autograd.Function):
    """sign(v), with gradient 1."""

    @staticmethod
    def forward(ctx: Any, v: Tensor) -> Tensor:
        return hard_sign(v)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return grads[0]


class ReCUConv2d(ScaledConv2d):
    """See the module."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        stride: int = 1,
        tau: float = 0.85,
        tau_end: float = 0.99,
    ) -> None:
        super().__init__(in_channels, out_channels, stride=stride)
        if not 0.5 < tau <= tau_end < 1:
            raise ValueError(f"tau and tau_end must rise within 0.5 to 1, not {tau} and {tau_end}")
        self.first, self.last = tau, tau_end
        self.tau = tau

    def start(self) -> None:
        self.set_alpha(mean_magnitude(self.weight))

    def set_progress(self, done: float) -> None:
        a = (self.last - self.first) / (math.e - 1)
        self.tau = a * math.exp(done) + self.first - a

    def standardised(self) -> Tensor:
        """v, (out, in, 3, 3)."""
        centred = self.weight - self.weight.mean(dim=(1, 2, 3), keepdim=True)
        variance = centred.var(dim=(1, 2, 3), keepdim=True)
        return centred / ((variance + EPSILON).sqrt() / (2 * math.sqrt(2)))

    def binary(self) -> Tensor:
        v = self.standardised()
        limit = -float(v.detach().abs().mean()) * math.log(2 - 2 * self.tau)
        return _Identity.apply(v.clamp(-limit, limit)) * self.scale.abs()

    @torch.no_grad()
    def decisive(self) -> Tensor:
        return self.standardised()
