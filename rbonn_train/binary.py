"""Binary activations and the RBONN convolution (Xu et al., "Recurrent Bilinear Optimization for
Binary Neural Networks", arXiv 2209.01542).

Notation: ``w`` latent weights (out, in, 3, 3); ``b = sign(w)`` with sign(0) = +1; ``alpha > 0`` one
scale per output channel; ``A = diag(1 / alpha)`` (section 3.1). The bilinear objective
``G(w, A) = ||b - A w||^2`` is used in its equivalent form ``||w - alpha b||^2``.

Four modes, because the paper and the code that its authors released differ:

- ``none``: the released binariser without recurrence;
- ``released``: the released layer bit for bit, but for sign(0) = +1. Its density test uses the
  *indices* of argsort where ranks were meant, which picks a nearly random 40 % of the channels;
- ``released-rankfix``: the same with ranks, so the channels with the smallest alpha;
- ``paper``: the printed equations (see :class:`RBONNConv2d`).

The gradient of the task loss through the recurrence needs the previous step. It lives in a
registered buffer, so that it survives data parallelism, checkpoints and ``zero_grad``; the training
loop calls :func:`after_backward` and :func:`after_step`.
"""

import enum
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

RELEASED_GAIN = 0.02  # the released forward multiplies |scale| by this constant
RELEASED_U = 0.2
# Printed without a value. w is multiplied by (1 + u) a step where it qualifies, so u must be small.
PAPER_U = 1e-3


class Mode(enum.Enum):
    NONE = "none"
    RELEASED = "released"
    RANKFIX = "released-rankfix"
    PAPER = "paper"


class _Sign(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return (x >= 0).to(x.dtype).mul_(2).sub_(1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return x.abs().neg_().add_(1).clamp_(min=0).mul_(2).mul_(grads[0])


def sign(x: Tensor) -> Tensor:
    """+1 where x >= 0, else -1. Gradient (ApproxSign, Bi-Real Net; section 3.3 of the paper):
    2 + 2x on [-1, 0), 2 - 2x on [0, 1), else 0."""
    return _Sign.apply(x)


def hard_sign(w: Tensor) -> Tensor:
    """+1 where w >= 0, else -1, without a gradient."""
    return (w.detach() >= 0).to(w.dtype) * 2 - 1


class _ReleasedBinariser(torch.autograd.Function):
    """W = 0.02 * sign(w) * s; ``w`` (out, in, k, k), ``s`` (out, 1, 1, 1), positive.

    g_w = lambda (w - W) + g_W s; g_s = sum(g_W w) - lambda sum((w - W) 0.02 sign(w)): the bilinear
    term enters through its gradient alone, and w stands where 0.02 sign(w) would be exact.
    """

    @staticmethod
    def forward(ctx: Any, w: Tensor, s: Tensor, penalty: float) -> Tensor:
        ctx.save_for_backward(w, s)
        ctx.penalty = penalty
        return hard_sign(w) * RELEASED_GAIN * s

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        (grad,) = grads
        w, s = ctx.saved_tensors
        b = hard_sign(w) * RELEASED_GAIN
        distance = w - b * s
        grad_w = ctx.penalty * distance + grad * s
        grad_s = _per_channel(grad * w) - ctx.penalty * _per_channel(distance * b)
        return grad_w, grad_s, None


class _PaperBinariser(torch.autograd.Function):
    """W = alpha * sign(w); ``w`` (out, in, k, k), ``alpha`` (out, 1, 1, 1), positive.

    L = L_S + lambda/2 ||w - alpha b||^2 (eq. 4, 5), straight-through gradient of sign on |w| <= 1:
    g_w = g_W alpha [|w| <= 1] + lambda (w - alpha b);
    g_alpha = sum(g_W b) - lambda sum((w - alpha b) b).
    """

    @staticmethod
    def forward(ctx: Any, w: Tensor, alpha: Tensor, penalty: float) -> Tensor:
        ctx.save_for_backward(w, alpha)
        ctx.penalty = penalty
        return hard_sign(w) * alpha

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        (grad,) = grads
        w, alpha = ctx.saved_tensors
        b = hard_sign(w)
        distance = w - alpha * b
        grad_w = grad * alpha * (w.abs() <= 1) + ctx.penalty * distance
        grad_alpha = _per_channel(grad * b) - ctx.penalty * _per_channel(distance * b)
        return grad_w, grad_alpha, None


def _per_channel(x: Tensor) -> Tensor:
    """Sums over all axes but the first: (out, 1, 1, 1). Axis by axis, last first, as the released
    code does: another order would round differently."""
    return x.sum(3, keepdim=True).sum(2, keepdim=True).sum(1, keepdim=True)


def ranks(x: Tensor) -> Tensor:
    """Rank of each element of a vector, 0 for the smallest."""
    return torch.argsort(torch.argsort(x, stable=True))


def density_relu(w: Tensor, a: Tensor, tau: float) -> Tensor:
    """DReLU (eq. 12, 13): w_i where channel i's weights are not dense and its A_i is, else 0.

    ``w``: (out, in, k, k); ``a``: (out,). Dense: the rank (ascending, from 1) among the ``out``
    channels is above T = int(out * tau); the weight's rank is that of ||w_i||_1.
    """
    threshold = int(len(w) * tau)
    dense_w = ranks(w.abs().sum(dim=(1, 2, 3))) >= threshold
    dense_a = ranks(a) >= threshold
    return w * (~dense_w & dense_a).to(w.dtype).view(-1, 1, 1, 1)


def released_indicator(s: Tensor, tau: float, *, rankfix: bool) -> Tensor:
    """The released density test: 1 for int(out * (1 - tau)) channels, else 0.

    ``s`` and the result are (out, 1, 1, 1).

    Released: sorting's indices are compared (channel j counts if the j-th smallest scale belongs to
    one of the first channels). ``rankfix``: the channels of smallest scale, so of largest A.
    """
    order = torch.sort(s, dim=0).indices
    if rankfix:
        order = torch.argsort(order, dim=0)
    return (order < int(len(s) * (1 - tau))).to(s.dtype)


class RBONNConv2d(nn.Module):
    """Binary 3x3 convolution, zero padding 1, with RBONN weights; inputs are -1, 0 (border) or +1.

    Parameters: ``weight`` (out, in, 3, 3) latent, ``scale`` (out, 1, 1, 1), ``u`` (out, 1, 1, 1).

    ``released``, ``released-rankfix``: in training, ``w - u * indicator * g`` takes the place of w
    in the forward pass, g the gradient of the previous step; u learns through autograd. In the
    very first step g is 0, and so is the gradient of u (the released code has none then;
    DistributedDataParallel asks for one in every step).

    ``paper``: after each optimiser step ``w[t+1] += U[t] * DReLU(w[t], A[t])`` (eq. 10, 11),
    ``U <- |U - eta dL/dU|`` with ``dL/dU[t] = sum(dL_S/dw[t] * DReLU(w[t-1], A[t]))`` (eq. 14, 15;
    L_S alone, without the bilinear term). alpha itself is learned, and |.| keeps it positive, as
    eq. 8 does for A = 1 / alpha; it starts as the mean of |w| of its channel, the minimum of G.

    ``scale_sums``, for inference: the sums over signs, exact, are multiplied with alpha, as the
    released ReActNet does it; else the signs are, as RBONN does it. In float32 one rounding more or
    less may turn the sign of a value near 0, and with it all that follows.
    """

    weight: Tensor
    previous: Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        stride: int = 1,
        mode: Mode = Mode.RELEASED,
        penalty: float = 1e-4,
        tau: float = 0.6,
    ) -> None:
        super().__init__()
        self.stride, self.mode, self.penalty, self.tau = stride, mode, penalty, tau
        self.scale_sums = False
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, 3, 3))
        nn.init.kaiming_uniform_(self.weight, a=5**0.5)
        self.scale = nn.Parameter(torch.randn(out_channels, 1, 1, 1))
        self.u = nn.Parameter(torch.full((out_channels, 1, 1, 1), RELEASED_U))
        # The last step's gradient (released) or weight (paper); zero before the first step.
        self.register_buffer("previous", torch.zeros_like(self.weight))
        if mode is Mode.PAPER:
            nn.init.constant_(self.u, PAPER_U)
            self.reset_alpha()
        self.u.requires_grad_(mode is not Mode.NONE)

    def reset_alpha(self) -> None:
        """Sets alpha to the mean of |w| per channel (mode ``paper``, where G has its minimum)."""
        self.set_alpha(self.weight.detach().abs().mean(dim=(1, 2, 3)))

    @property
    def gain(self) -> float:
        return 1.0 if self.mode is Mode.PAPER else RELEASED_GAIN

    @property
    def alpha(self) -> Tensor:
        """The scale (out,) that the forward pass multiplies sign(w) with."""
        return self.gain * self.scale.abs().flatten()

    def set_alpha(self, alpha: Tensor) -> None:
        """Makes :attr:`alpha` the given values (out,)."""
        with torch.no_grad():
            self.scale.copy_(alpha.view(-1, 1, 1, 1) / self.gain)

    def bilinear_loss(self) -> Tensor:
        """1/2 ||w - alpha b||^2, whose gradient times ``penalty`` the backward pass adds."""
        distance = self.weight - self.alpha.view(-1, 1, 1, 1) * hard_sign(self.weight)
        return 0.5 * distance.square().sum()

    def forward(self, x: Tensor) -> Tensor:
        s, weight = self.scale.abs(), self.weight
        if self.scale_sums and not self.training:
            sums = functional.conv2d(x, hard_sign(weight), stride=self.stride, padding=1)
            return sums * self.alpha.view(-1, 1, 1)
        if self.mode is Mode.PAPER:
            binary = _PaperBinariser.apply(weight, s, self.penalty)
        else:
            if self.training and self.mode is not Mode.NONE:
                rankfix = self.mode is Mode.RANKFIX
                indicator = released_indicator(s.detach(), self.tau, rankfix=rankfix)
                weight = weight - self.u * (self.previous * indicator)
            binary = _ReleasedBinariser.apply(weight, s, self.penalty)
        return functional.conv2d(x, binary, stride=self.stride, padding=1)

    @torch.no_grad()
    def after_backward(self) -> None:
        """Call once a step, gradients complete (reduced over processes), before the optimiser."""
        grad = self.weight.grad
        if grad is None or self.mode is Mode.NONE:
            return
        if self.mode is not Mode.PAPER:
            self.previous.copy_(grad)
            return
        alpha = self.alpha.view(-1, 1, 1, 1)
        task = grad - self.penalty * (self.weight - alpha * hard_sign(self.weight))
        self.u.grad = _per_channel(task * self._density_relu(self.previous))
        self.previous.copy_(self.weight)
        self._backtrack = self.u * self._density_relu(self.weight)

    @torch.no_grad()
    def after_step(self) -> None:
        """Call once a step, after the optimiser."""
        if self.mode is Mode.PAPER and self.weight.grad is not None:
            self.weight.add_(self._backtrack)
            self.u.abs_()

    def _density_relu(self, w: Tensor) -> Tensor:
        return density_relu(w, 1 / self.alpha.clamp(min=1e-12), self.tau)


def after_backward(model: nn.Module) -> None:
    """:meth:`RBONNConv2d.after_backward` of every layer."""
    for module in model.modules():
        if isinstance(module, RBONNConv2d):
            module.after_backward()


def after_step(model: nn.Module) -> None:
    """:meth:`RBONNConv2d.after_step` of every layer."""
    for module in model.modules():
        if isinstance(module, RBONNConv2d):
            module.after_step()
