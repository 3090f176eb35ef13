"""Bi-Real Net (Liu et al., arXiv 1808.00278): the magnitude-aware gradient.

Training binarises to mean |w| * sign(w), with mean |w| taken as a constant:
g_w = g_W * mean |w| * [|w| <= 1] (its inference drops the scale, which BN absorbs: the
same network).
"""

from torch import Tensor

from rbonn_train.methods.base import MeanConv2d, mean_magnitude, straight_through


class BiRealConv2d(MeanConv2d):
    """See the module."""

    def binary(self) -> Tensor:
        alpha = mean_magnitude(self.weight)
        return straight_through(self.weight, alpha, alpha)
