"""What every method has in common: a binary 3x3 convolution, and the signs it is made of.

A method says how weights are binarised and with which gradient (:meth:`BinaryConv2d.binary`), which
scale inference multiplies by (``alpha``), and what happens around an optimiser step.
"""

from collections.abc import Iterator
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional


class _Sign(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return hard_sign(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return x.abs().neg_().add_(1).clamp_(min=0).mul_(2).mul_(grads[0])


def sign(x: Tensor) -> Tensor:
    """+1 where x >= 0, else -1: the binary activation, of all methods alike.

    Gradient (ApproxSign, of Bi-Real Net): 2 + 2x on [-1, 0), 2 - 2x on [0, 1),
    else 0.
    """
    return _Sign.apply(x)


def hard_sign(w: Tensor) -> Tensor:
    """+1 where w >= 0, else -1, without a gradient."""
    # Adding 0 makes +0 of -0, whose sign bit copysign would take; twice as fast as comparing.
    signed = w.detach() + 0.0
    return torch.copysign(w.new_ones(()), signed, out=signed)


def per_channel(x: Tensor) -> Tensor:
    """A vector (out,) as (out, 1, 1, 1)."""
    return x.view(-1, 1, 1, 1)


def mean_magnitude(w: Tensor) -> Tensor:
    """Mean of |w| per output channel, (out, 1, 1, 1), without a gradient."""
    return w.detach().abs().mean(dim=(1, 2, 3), keepdim=True)


class _StraightThrough(torch.autograd.Function):
    """W = alpha * sign(w); g_w = g_W * (a [|w| <= 1] + b), alpha without a gradient.

    ``a`` and ``b`` broadcast to w.
    """

    @staticmethod
    def forward(ctx: Any, w: Tensor, alpha: Tensor, a: Tensor | float, b: float) -> Tensor:
        ctx.save_for_backward(w)
        ctx.factors = a, b
        return hard_sign(w).mul_(alpha)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        (w,) = ctx.saved_tensors
        a, b = ctx.factors
        return grads[0] * ((w.abs() <= 1) * a + b), None, None, None


def straight_through(w: Tensor, alpha: Tensor, a: Tensor | float, b: float = 0.0) -> Tensor:
    """alpha * sign(w), whose gradient is g_W * (a [|w| <= 1] + b)."""
    return _StraightThrough.apply(w, alpha, a, b)


class BinaryConv2d(nn.Module):
    """Binary 3x3 convolution, zero padding 1; inputs are -1, 0 (border) or +1.

    ``weight`` (out, in, 3, 3): latent, or the binary weights themselves (``latent_free``).
    """

    weight: Tensor
    latent_free: ClassVar[bool] = False
    """Whether the method flips the weights itself, so that no optimiser must touch them."""
    own_gradients: bool = False
    """Whether a parameter has its gradient from :meth:`after_backward` alone."""

    def __init__(self, in_channels: int, out_channels: int, *, stride: int = 1) -> None:
        super().__init__()
        self.stride = stride
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, 3, 3))
        nn.init.kaiming_uniform_(self.weight, a=5**0.5)

    def binary(self) -> Tensor:
        """The weights of the forward pass: alpha * sign(...), with the method's gradient."""
        raise NotImplementedError

    @property
    def alpha(self) -> Tensor:
        """The scale (out,) that inference multiplies the signs of :meth:`decisive` with."""
        raise NotImplementedError

    def decisive(self) -> Tensor:
        """The values (out, in, 3, 3) whose signs inference uses, without a gradient."""
        return self.weight.detach()

    def chosen(self) -> Tensor | None:
        """Which channels (out,) a recurrence acts on now; None for methods without one."""
        return None

    def start(self) -> None:
        """Called once, after the weights of step 1 have been loaded."""

    def set_progress(self, done: float) -> None:
        """Called before each epoch: the share of the step that lies behind, 0 to below 1."""

    def after_backward(self) -> None:
        """Called once a step, gradients complete (reduced over processes), before the optimiser."""

    def after_step(self) -> None:
        """Called once a step, after the optimiser."""

    def forward(self, x: Tensor) -> Tensor:
        return functional.conv2d(x, self.binary(), stride=self.stride, padding=1)


class ScaledConv2d(BinaryConv2d):
    """A binary convolution whose alpha is the magnitude of a learned ``scale`` (out, 1, 1, 1)."""

    gain: float = 1.0

    def __init__(self, in_channels: int, out_channels: int, *, stride: int = 1) -> None:
        super().__init__(in_channels, out_channels, stride=stride)
        self.scale = nn.Parameter(torch.randn(out_channels, 1, 1, 1))

    @property
    def alpha(self) -> Tensor:
        return self.gain * self.scale.abs().flatten()

    def set_alpha(self, alpha: Tensor) -> None:
        """Makes :attr:`alpha` the given values (out,)."""
        with torch.no_grad():
            self.scale.copy_(per_channel(alpha) / self.gain)


class MeanConv2d(BinaryConv2d):
    """A binary convolution whose alpha is the mean of |w| of its channel, the least squares fit of
    alpha * sign(w) to w (XNOR-Net)."""

    @property
    def alpha(self) -> Tensor:
        return mean_magnitude(self.weight).flatten()


def binary_layers(model: nn.Module) -> Iterator[BinaryConv2d]:
    """The binary convolutions of a model, in order."""
    return (module for module in model.modules() if isinstance(module, BinaryConv2d))


def after_backward(model: nn.Module) -> None:
    """:meth:`BinaryConv2d.after_backward` of every layer."""
    for layer in binary_layers(model):
        layer.after_backward()


def after_step(model: nn.Module) -> None:
    """:meth:`BinaryConv2d.after_step` of every layer."""
    for layer in binary_layers(model):
        layer.after_step()
