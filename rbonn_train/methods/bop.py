"""Bop (Helwegen et al., arXiv 1906.02107) and second-order Bop (Suarez-Ramirez et al., arXiv
2104.05124): no latent weights; the weights are -1 or +1 and flip when the gradient insists.

Bop: m <- (1 - gamma) m + gamma g; w flips where |m| > threshold and sign(m) =
sign(w), so where w m > threshold.

Second order, biased: also v <- (1 - sigma) v + sigma g^2; w flips where
w m / (sqrt(v) + epsilon) > threshold. Bias-corrected: m and v are divided by the share that they
have seen of a constant gradient, 1 - (1 - gamma)^t and 1 - (1 - sigma)^t after t steps.

gamma falls linearly to a hundredth, epoch by epoch; the schedule is ours (Bop's authors lower it
tenfold every 100 epochs, 1906.02107, section 5.2). Weights that go on flipping leave the statistics
of BN behind, and inference, which uses these, loses points.

alpha is 1: the BN that follows scales.
"""

import enum
from typing import ClassVar

import torch
from torch import Tensor, nn

from rbonn_train.methods.base import BinaryConv2d, hard_sign, straight_through

EPSILON = 1e-10
LAST_GAMMA = 0.01  # of the first


class Order(enum.Enum):
    FIRST = "first"
    BIASED = "biased"
    CORRECTED = "corrected"


class BopConv2d(BinaryConv2d):
    """See the module. ``weight`` holds -1 and +1; ``m`` and ``v`` its gradient's averages, and
    ``unseen`` (2,) the shares of a constant gradient that they lack."""

    latent_free: ClassVar[bool] = True
    m: Tensor
    v: Tensor
    unseen: Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        stride: int = 1,
        order: Order = Order.FIRST,
        gamma: float = 1e-3,
        sigma: float = 1e-2,
        threshold: float = 1e-6,
    ) -> None:
        super().__init__(in_channels, out_channels, stride=stride)
        if not 0 < gamma <= 1 or not 0 < sigma <= 1 or threshold < 0:
            raise ValueError(
                f"gamma and sigma must be above 0 and at most 1, and threshold at least 0, not "
                f"{gamma}, {sigma} and {threshold}"
            )
        self.order, self.sigma, self.threshold = order, sigma, threshold
        self.first_gamma = self.gamma = gamma
        self.weight = nn.Parameter(hard_sign(self.weight))
        self.register_buffer("m", torch.zeros_like(self.weight))
        self.register_buffer("unseen", torch.ones(2))
        if order is not Order.FIRST:
            self.register_buffer("v", torch.zeros_like(self.weight))

    @property
    def alpha(self) -> Tensor:
        return torch.ones(len(self.weight), device=self.weight.device)

    def set_progress(self, done: float) -> None:
        self.gamma = self.first_gamma * (1 - (1 - LAST_GAMMA) * done)

    @torch.no_grad()
    def start(self) -> None:
        self.weight.copy_(hard_sign(self.weight))

    def binary(self) -> Tensor:
        """The signs, although the weights are signs: an average of them (EMA) is not."""
        return straight_through(self.weight, torch.ones((), device=self.weight.device), 1.0)

    @torch.no_grad()
    def after_step(self) -> None:
        grad = self.weight.grad
        if grad is None:
            return
        self.unseen *= self.unseen.new_tensor([1 - self.gamma, 1 - self.sigma])
        self.m.lerp_(grad, self.gamma)
        drive = self.m
        if self.order is not Order.FIRST:
            self.v.lerp_(grad.square(), self.sigma)
            spread = self.v
            if self.order is Order.CORRECTED:
                drive, spread = drive / (1 - self.unseen[0]), spread / (1 - self.unseen[1])
            drive = drive / (spread.sqrt() + EPSILON)
        self.weight.mul_(1 - 2 * (self.weight * drive > self.threshold).to(grad.dtype))
