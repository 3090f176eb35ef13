"""ReActNet (Liu et al., arXiv 2003.03488): W = mean |w| * sign(w) and the gradient of the
authors' code, g_w = g_W [|w| <= 1]: the scale does not attenuate it.

Its RSign and RPReLU are the biases and PReLU that every network here has.
"""

from torch import Tensor

from rbonn_train.methods.base import MeanConv2d, mean_magnitude, straight_through


class ReActConv2d(MeanConv2d):
    """See the module."""

    def binary(self) -> Tensor:
        return straight_through(self.weight, mean_magnitude(self.weight), 1.0)
