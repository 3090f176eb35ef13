"""XNOR-Net (Rastegari et al., arXiv 1603.05279): alpha = mean |w|; the gradient counts
that alpha depends on w: g_w = g_W (1/n + alpha [|w| <= 1]), n weights a channel.

Its scales of the activations (the map K) are left out: they are real-valued per
pixel, and its authors' own ablation finds little in them.
"""

from torch import Tensor

from rbonn_train.methods.base import MeanConv2d, mean_magnitude, straight_through


class XNORConv2d(MeanConv2d):
    """See the module."""

    def binary(self) -> Tensor:
        alpha = mean_magnitude(self.weight)
        return straight_through(self.weight, alpha, alpha, 1 / self.weight[0].numel())
