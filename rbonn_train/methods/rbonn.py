"""RBONN (Xu et al., "Recurrent Bilinear Optimization for Binary Neural Networks", 2209.01542).

Notation: ``w`` latent weights (out, in, 3, 3); ``b = sign(w)`` with sign(0) = +1; ``alpha > 0`` one
scale per output channel; ``A = diag(1 / alpha)``. The bilinear objective
``G(w, A) = ||b - A w||^2`` is used in its equivalent form ``||w - alpha b||^2``.

Four modes, because the paper and the code that its authors released differ:

- ``none``: the released binariser without recurrence;
- ``released``: the released layer bit for bit, but for sign(0) = +1. Its density test uses the
  *indices* of argsort where ranks were meant, which picks a nearly random 40 % of the channels;
- ``released-rankfix``: the same with ranks, so the channels with the smallest alpha;
- ``paper``: the printed equations (see :class:`RBONNConv2d`).

The gradient of the task loss through the recurrence needs the previous step. It lives in a
registered buffer, so that it survives data parallelism, checkpoints and ``zero_grad``.
"""

import enum
import functools
from typing import Any

import torch
from torch import Tensor, nn

from rbonn_train.methods.base import ScaledConv2d, hard_sign, mean_magnitude, per_channel

RELEASED_GAIN = 0.02  # the released forward multiplies |scale| by this constant
RELEASED_U = 0.2
# Printed without a value. w is multiplied by (1 + u) a step where it qualifies, so u must be small.
PAPER_U = 1e-3


class Mode(enum.Enum):
    NONE = "none"
    RELEASED = "released"
    RANKFIX = "released-rankfix"
    PAPER = "paper"


class _ReleasedBinariser(torch.autograd.Function):
    """W = 0.02 * sign(w') * s with w' = w - u d; ``w`` (out, in, k, k), ``s`` (out, 1, 1, 1),
    positive. ``u`` (out, 1, 1, 1) and d = ``previous * indicator`` are the recurrence, or None.

    g_w = lambda (w' - W) + g_W s; g_s = sum(g_W w') - lambda sum((w' - W) 0.02 sign(w')): the
    bilinear term enters through its gradient alone, and w' stands where 0.02 sign(w') would be
    exact. g_u = -sum(g_w d). One function, so that nothing of the size of w is kept for backward.
    """

    @staticmethod
    def forward(
        ctx: Any,
        w: Tensor,
        s: Tensor,
        penalty: float,
        u: Tensor | None,
        previous: Tensor | None,
        indicator: Tensor | None,
    ) -> Tensor:
        ctx.save_for_backward(w, s, u, previous, indicator)
        ctx.penalty = penalty
        w = _backtracked(w, u, previous, indicator)
        return hard_sign(w).mul_(RELEASED_GAIN).mul_(s)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = grads
        w, s, u, previous, indicator = ctx.saved_tensors
        w = _backtracked(w, u, previous, indicator)
        b = hard_sign(w).mul_(RELEASED_GAIN)
        distance = w - b * s
        grad_s = _per_channel(grad * w) - ctx.penalty * _per_channel(b.mul_(distance))
        grad_w = distance.mul_(ctx.penalty).add_(grad * s)
        if u is None:
            return grad_w, grad_s, None, None, None, None
        # As autograd sums, but for the indicator, which may as well come last.
        grad_u = (previous * grad_w).sum(dim=(1, 2, 3), keepdim=True).neg_().mul_(indicator)
        return grad_w, grad_s, None, grad_u, None, None


def _backtracked(
    w: Tensor, u: Tensor | None, previous: Tensor | None, indicator: Tensor | None
) -> Tensor:
    """w' = w - u d with d = ``previous * indicator``, or w where there is no recurrence."""
    if u is None:
        return w
    assert previous is not None
    assert indicator is not None
    step = previous * (u * indicator)
    return torch.sub(w, step, out=step)


class _PaperBinariser(torch.autograd.Function):
    """W = alpha * sign(w); ``w`` (out, in, k, k), ``alpha`` (out, 1, 1, 1), positive.

    L = L_S + lambda/2 ||w - alpha b||^2, straight-through gradient of sign on |w| <= 1:
    g_w = g_W alpha [|w| <= 1] + lambda (w - alpha b);
    g_alpha = sum(g_W b) - lambda sum((w - alpha b) b).
    """

    @staticmethod
    def forward(ctx: Any, w: Tensor, alpha: Tensor, penalty: float) -> Tensor:
        ctx.save_for_backward(w, alpha)
        ctx.penalty = penalty
        return hard_sign(w).mul_(alpha)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        (grad,) = grads
        w, alpha = ctx.saved_tensors
        b = hard_sign(w)
        inside = w.abs().le_(1).mul_(alpha).mul_(grad)
        distance = w.abs().sub_(alpha)  # w - alpha b is b times this, exactly
        grad_alpha = _per_channel(grad * b) - ctx.penalty * _per_channel(distance)
        return b.mul_(distance).mul_(ctx.penalty).add_(inside), grad_alpha, None


def _per_channel(x: Tensor) -> Tensor:
    """Sums over all axes but the first: (out, 1, 1, 1). Axis by axis, last first, as the released
    code does: another order would round differently. ``x``: (out, in, k, k)."""
    # Short axes by adding slices: the same sums, and ten times as fast as torch's.
    rows = functools.reduce(torch.add, x.unbind(3))
    return functools.reduce(torch.add, rows.unbind(2)).sum(1).view(-1, 1, 1, 1)


def _indices(flags: Tensor) -> Tensor:
    """Where a vector of bool is true."""
    return flags.nonzero().flatten()


def _select(x: Tensor, rows: Tensor) -> Tensor:
    """``x[rows]``, ``x`` (out, in, k, k). Twice as fast where it is in channels-last order, as in
    training: rows of a matrix are copied whole."""
    last = x.permute(0, 2, 3, 1)
    chosen = last.flatten(1).index_select(0, rows)
    return chosen.view(-1, *last.shape[1:]).permute(0, 3, 1, 2)


def ranks(x: Tensor) -> Tensor:
    """Rank of each element of a vector, 0 for the smallest."""
    return torch.argsort(torch.argsort(x, stable=True))


def qualifies(w: Tensor, a: Tensor, tau: float) -> Tensor:
    """Which channels (out,), bool, have weights that are not dense while their A is: those in which
    DReLU(w, A) is w; in the others it is 0.

    ``w``: (out, in, k, k); ``a``: (out,). Dense: the rank (ascending, from 1) among the ``out``
    channels is above T = int(out * tau); the weight's rank is that of ||w_i||_1.
    """
    return ~dense(magnitude(w), tau) & dense(a, tau)


def magnitude(w: Tensor) -> Tensor:
    """||w_i||_1 per output channel, (out,)."""
    return w.abs().sum(dim=(1, 2, 3))


def dense(norms: Tensor, tau: float) -> Tensor:
    """Which elements of a vector rank above the share ``tau``, bool."""
    return ranks(norms) >= int(len(norms) * tau)


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


class RBONNConv2d(ScaledConv2d):
    """Binary 3x3 convolution with RBONN weights.

    Parameters: ``weight`` (out, in, 3, 3) latent, ``scale`` (out, 1, 1, 1), ``u`` (out, 1, 1, 1).

    ``released``, ``released-rankfix``: in training, ``w - u * indicator * g`` takes the place of w
    in the forward pass, g the gradient of the previous step; u learns through autograd. In the
    very first step g is 0, and so is the gradient of u (the released code has none then, so its
    Adam counts one step less for u; DistributedDataParallel asks for one in every step).

    ``paper``: after each optimiser step ``w[t+1] += U[t] * DReLU(w[t], A[t])``,
    ``U <- |U - eta dL/dU|`` with ``dL/dU[t] = sum(dL_S/dw[t] * DReLU(w[t-1], A[t]))`` (of
    L_S alone, without the bilinear term). alpha itself is learned, and |.| keeps it positive, as
    the printed ``A <- |A - eta dL/dA|`` does for A = 1 / alpha; it starts as the mean of |w| of its
    channel, the minimum of G.
    """

    previous: Tensor
    previous_sparse: Tensor

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
        super().__init__(in_channels, out_channels, stride=stride)
        if penalty < 0 or not 0 <= tau <= 1:
            raise ValueError(f"penalty must be at least 0 and tau 0 to 1, not {penalty} and {tau}")
        self.mode, self.penalty, self.tau = mode, penalty, tau
        self.gain = 1.0 if mode is Mode.PAPER else RELEASED_GAIN
        self.u = nn.Parameter(torch.full((out_channels, 1, 1, 1), RELEASED_U))
        # The last step's gradient (released) or weight (paper); zero before the first step.
        self.register_buffer("previous", torch.zeros_like(self.weight))
        if mode is Mode.PAPER:
            # In which of its channels the weights were not dense.
            self.register_buffer("previous_sparse", torch.zeros(out_channels, dtype=torch.bool))
            nn.init.constant_(self.u, PAPER_U)
            self.start()
        self.u.requires_grad_(mode is not Mode.NONE)
        self.own_gradients = mode is Mode.PAPER
        self._backtrack = torch.zeros_like(self.u)  # U of this step where DReLU is not 0

    def start(self) -> None:
        """Mode ``paper``: alpha becomes the mean of |w| per channel, where G has its minimum."""
        if self.mode is Mode.PAPER:
            self.set_alpha(mean_magnitude(self.weight))

    def chosen(self) -> Tensor | None:
        if self.mode is Mode.NONE:
            return None
        if self.mode is Mode.PAPER:
            return qualifies(self.weight.detach(), 1 / self.alpha.detach(), self.tau)
        s, rankfix = self.scale.detach().abs(), self.mode is Mode.RANKFIX
        return released_indicator(s, self.tau, rankfix=rankfix).flatten() > 0

    def binary(self) -> Tensor:
        s, weight = self.scale.abs(), self.weight
        if self.mode is Mode.PAPER:
            return _PaperBinariser.apply(weight, s, self.penalty)
        if not self.training or self.mode is Mode.NONE:
            return _ReleasedBinariser.apply(weight, s, self.penalty, None, None, None)
        rankfix = self.mode is Mode.RANKFIX
        indicator = released_indicator(s.detach(), self.tau, rankfix=rankfix)
        return _ReleasedBinariser.apply(weight, s, self.penalty, self.u, self.previous, indicator)

    @torch.no_grad()
    def after_backward(self) -> None:
        grad = self.weight.grad
        if grad is None or self.mode is Mode.NONE:
            return
        if self.mode is not Mode.PAPER:
            self.previous.copy_(grad)
            return
        # DReLU is 0 in most channels: only the others are computed.
        dense_a = dense(1 / self.alpha.detach(), self.tau)
        rows = _indices(self.previous_sparse & dense_a)
        w, grad = _select(self.weight, rows), _select(grad, rows)
        distance = w.sub_(hard_sign(w).mul_(per_channel(self.alpha[rows])))
        task = grad.sub_(distance.mul_(self.penalty))
        self.u.grad = torch.zeros_like(self.u)
        self.u.grad[rows] = _per_channel(task.mul_(_select(self.previous, rows)))
        self.previous.copy_(self.weight)
        self.previous_sparse.copy_(~dense(magnitude(self.weight), self.tau))
        rows = _indices(self.previous_sparse & dense_a)
        self._backtrack = torch.zeros_like(self.u)
        self._backtrack[rows] = self.u[rows]

    @torch.no_grad()
    def after_step(self) -> None:
        if self.mode is Mode.PAPER and self.weight.grad is not None:
            self.weight += self._backtrack * self.previous
            self.u.abs_()
