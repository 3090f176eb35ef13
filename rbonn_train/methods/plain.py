"""Plain straight-through binarisation with a learned scale: the yardstick of the others' cost.

W = |s| sign(w), g_w = g_W |s| [|w| <= 1], g_s = sign(s) sum(g_W sign(w)) per channel (Courbariaux
et al., "Binarized Neural Networks", arXiv 1602.02830, with a scale).
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from rbonn_train.methods.base import ScaledConv2d, hard_sign, mean_magnitude


class _Binarise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, w: Tensor, s: Tensor) -> Tensor:
        ctx.save_for_backward(w, s)
        return hard_sign(w).mul_(s)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        w, s = ctx.saved_tensors
        return (
            grads[0] * (s * (w.abs() <= 1)),
            (grads[0] * hard_sign(w)).sum(dim=(1, 2, 3), keepdim=True),
        )


class PlainConv2d(ScaledConv2d):
    """See the module. Its scale can be set, so it also holds what other methods trained.

    ``scale_sums``, for inference: the sums over signs, exact, are multiplied with alpha, as the
    released ReActNet does it; else the signs are, as RBONN does it. In float32 one rounding more or
    less may turn the sign of a value near 0, and with it all that follows.
    """

    scale_sums = False

    def start(self) -> None:
        self.set_alpha(mean_magnitude(self.weight))

    def binary(self) -> Tensor:
        return _Binarise.apply(self.weight, self.scale.abs())

    def forward(self, x: Tensor) -> Tensor:
        if self.training or not self.scale_sums:
            return super().forward(x)
        sums = functional.conv2d(x, hard_sign(self.weight), stride=self.stride, padding=1)
        return sums * self.alpha.view(-1, 1, 1)
