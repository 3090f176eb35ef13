"""Gradients and recurrence of RBONN, against the equations and the released code."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from rbonn_train.methods.base import after_backward, after_step, hard_sign, sign
from rbonn_train.methods.rbonn import Mode, RBONNConv2d, qualifies, ranks, released_indicator

LAMBDA = 1e-4


def step(layer: RBONNConv2d, x: Tensor, upstream: Tensor) -> Tensor:
    """Forward and backward of sum(out * upstream); returns the output."""
    layer.zero_grad()
    out = layer(x)
    (out * upstream).sum().backward()
    after_backward(layer)
    return out.detach()


def make(mode: Mode, *, stride: int = 1, cout: int = 10) -> RBONNConv2d:
    layer = RBONNConv2d(3, cout, stride=stride, mode=mode)
    with torch.no_grad():  # zeros test sign(0) = +1; weights beyond 1 test the clip
        layer.weight.mul_(6)
        layer.weight[0, 0] = 0.0
    return layer


class Released:
    """The released layer's steps, written out: forward, backward, recurrence (sign(0) = +1).

    The gradient of the convolution itself comes from torch; everything else is spelled out.
    """

    def __init__(self, layer: RBONNConv2d, *, recurrent: bool, rankfix: bool) -> None:
        self.w = layer.weight.detach().clone()
        self.scale = layer.scale.detach().clone()
        self.u = layer.u.detach().clone()
        self.stride, self.recurrent, self.rankfix = layer.stride, recurrent, rankfix
        self.w_grad: Tensor | None = None

    def step(self, x: Tensor, upstream: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Output, and the gradients of w, scale and u."""
        s = self.scale.abs()
        drelu = torch.zeros_like(self.w)
        if self.recurrent and self.w_grad is not None:
            order = sorted(range(len(s)), key=lambda i: float(s[i]))
            count = int(len(s) * (1 - 0.6))
            for channel in range(len(s)):
                place = order.index(channel) if self.rankfix else order[channel]
                if place < count:
                    drelu[channel] = self.w_grad[channel]
        used = self.w - self.u * drelu
        bits = torch.where(used >= 0, 1.0, -1.0) * 0.02
        out = functional.conv2d(x, bits * s, stride=self.stride, padding=1)
        g = torch.nn.grad.conv2d_weight(x, used.shape, upstream, stride=self.stride, padding=1)
        g_used = LAMBDA * (used - bits * s) + g * s

        def total(t: Tensor) -> Tensor:
            t = torch.sum(t, keepdim=True, dim=3)
            return torch.sum(torch.sum(t, keepdim=True, dim=2), keepdim=True, dim=1)

        g_s = total(g * used) - LAMBDA * total((used - bits * s) * bits)
        g_u = -(g_used * drelu).sum(dim=(1, 2, 3), keepdim=True)
        self.w_grad = g_used
        return out, g_used, g_s * torch.sign(self.scale), g_u


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("mode", [Mode.NONE, Mode.RELEASED, Mode.RANKFIX])
def test_released_modes_equal_the_released_code(mode: Mode, stride: int) -> None:
    layer = make(mode, stride=stride)
    reference = Released(layer, recurrent=mode is not Mode.NONE, rankfix=mode is Mode.RANKFIX)
    for _ in range(4):
        x = sign(torch.randn(2, 3, 6, 6))
        upstream = torch.randn(2, 10, 6 // stride, 6 // stride)
        expected = reference.step(x, upstream)
        out = step(layer, x, upstream)
        assert torch.equal(out, expected[0])
        assert torch.equal(layer.weight.grad, expected[1])
        assert torch.equal(layer.scale.grad, expected[2])
        if mode is not Mode.NONE:
            torch.testing.assert_close(layer.u.grad, expected[3])
        with torch.no_grad():  # a plain gradient step on both
            for ours, theirs, grad in zip(
                (layer.weight, layer.scale, layer.u),
                (reference.w, reference.scale, reference.u),
                expected[1:],
                strict=True,
            ):
                if ours.grad is None:
                    continue
                ours -= 0.1 * grad
                theirs -= 0.1 * grad
    assert mode is Mode.NONE or layer.previous.abs().sum() > 0


def test_released_recurrence_is_off_in_evaluation() -> None:
    layer = make(Mode.RELEASED)
    x = sign(torch.randn(1, 3, 6, 6))
    step(layer, x, torch.randn(1, 10, 6, 6))
    layer.previous.mul_(1e6)
    trained = layer(x)
    layer.eval()
    weight = layer.alpha.view(-1, 1, 1, 1) * hard_sign(layer.weight)
    torch.testing.assert_close(layer(x), functional.conv2d(x, weight, padding=1))
    assert not torch.equal(trained, layer(x))


def test_density_test_of_the_released_code_compares_indices() -> None:
    s = torch.tensor([0.5, 0.1, 0.4, 0.2, 0.3]).view(-1, 1, 1, 1)
    # Sorted: channels 1 3 4 2 0. int(5 * 0.4) = 2 channels: those places that hold 0 and 1 ...
    assert released_indicator(s, 0.6, rankfix=False).flatten().tolist() == [1, 0, 0, 0, 1]
    # ... where the two smallest scales were meant.
    assert released_indicator(s, 0.6, rankfix=True).flatten().tolist() == [0, 1, 0, 1, 0]


def test_ranks() -> None:
    assert ranks(torch.tensor([30.0, 10.0, 40.0, 20.0])).tolist() == [2, 0, 3, 1]


def density_relu(w: torch.Tensor, a: torch.Tensor, tau: float) -> torch.Tensor:
    """DReLU(w, A) as printed."""
    return w * qualifies(w, a, tau).view(-1, 1, 1, 1)


def test_density_relu_needs_sparse_weights_and_dense_scales() -> None:
    w = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0]).view(5, 1, 1, 1) * torch.ones(5, 2, 3, 3)
    a = torch.tensor([0.9, 0.1, 0.2, 0.3, 0.8])
    # T = 3: channels 3 and 4 have dense weights, 0 and 4 dense scales.
    kept = density_relu(w, a, 0.6)
    assert kept[:, 0, 0, 0].tolist() == [1, 0, 0, 0, 0]
    assert torch.equal(kept[0], w[0])
    assert density_relu(w, a, 1.0).abs().sum() == 0


def test_paper_gradients_are_those_of_the_printed_loss() -> None:
    layer = make(Mode.PAPER)
    x, upstream = sign(torch.randn(2, 3, 6, 6)), torch.randn(2, 10, 6, 6)
    step(layer, x, upstream)
    # The same loss for autograd: sign(w) with gradient 1 on |w| <= 1, and lambda * L_R evaluated.
    w = layer.weight.detach().clone().requires_grad_()
    scale = layer.scale.detach().clone().requires_grad_()
    clipped = w.clamp(-1, 1)
    binary = hard_sign(w) + clipped - clipped.detach()
    task = (functional.conv2d(x, scale.abs() * binary, padding=1) * upstream).sum()
    bilinear = 0.5 * ((w - scale.abs() * hard_sign(w)) ** 2).sum()
    (task + LAMBDA * bilinear).backward()
    torch.testing.assert_close(layer.weight.grad, w.grad)
    torch.testing.assert_close(layer.scale.grad, scale.grad)
    assert (w.detach().abs() > 1).any()


def test_paper_alpha_starts_at_the_minimum_of_the_bilinear_term() -> None:
    layer = make(Mode.PAPER)
    layer.start()
    torch.testing.assert_close(layer.alpha, layer.weight.detach().abs().mean(dim=(1, 2, 3)))
    layer.penalty = 1.0
    step(layer, torch.zeros(1, 3, 6, 6), torch.zeros(1, 10, 6, 6))
    torch.testing.assert_close(layer.scale.grad, torch.zeros_like(layer.scale), atol=1e-4, rtol=0)


def test_paper_recurrence() -> None:
    layer = make(Mode.PAPER)
    layer.start()
    torch.nn.init.constant_(layer.u, 0.01)
    with torch.no_grad():  # some channels must be sparse in w and dense in A
        layer.scale[:4] *= torch.tensor([0.1, 0.2, 0.3, 0.4]).view(-1, 1, 1, 1)
        layer.weight[:4] *= 0.5
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.01)
    before = torch.zeros_like(layer.weight)  # w[t-1]
    turned = 0
    for number in range(3):
        step(layer, sign(torch.randn(2, 3, 6, 6)), torch.randn(2, 10, 6, 6))
        with torch.no_grad():
            w, u, alpha = layer.weight.clone(), layer.u.clone(), layer.alpha.clone()
            task = layer.weight.grad - LAMBDA * (w - alpha.view(-1, 1, 1, 1) * hard_sign(w))
            expected_u_grad = (task * density_relu(before, 1 / alpha, 0.6)).sum((1, 2, 3))
            stepped = w - 0.01 * layer.weight.grad
        torch.testing.assert_close(layer.u.grad.flatten(), expected_u_grad)
        assert number == 0 or expected_u_grad.abs().sum() > 0
        optimizer.step()
        turned += int((u < 0.01 * layer.u.grad).sum())
        expected_u = (u - 0.01 * layer.u.grad).abs()
        after_step(layer)
        backtrack = density_relu(w, 1 / alpha, 0.6)
        assert backtrack.abs().sum() > 0
        torch.testing.assert_close(layer.weight.detach(), stepped + u * backtrack)
        torch.testing.assert_close(layer.u.detach(), expected_u)
        assert (layer.u >= 0).all()
        before = w
    assert turned > 0  # |.| had something to do


@pytest.mark.parametrize("mode", list(Mode))
def test_tau_of_one_switches_the_recurrence_off(mode: Mode) -> None:
    layer, plain = make(mode), make(mode)
    plain.load_state_dict(layer.state_dict())
    layer.tau = 1.0
    x, upstream = sign(torch.randn(2, 3, 6, 6)), torch.randn(2, 10, 6, 6)
    for _ in range(2):
        step(layer, x, upstream)
        after_step(layer)
    plain.previous.zero_()
    step(plain, x, upstream)
    assert torch.equal(layer.weight, plain.weight)
    assert torch.equal(layer.weight.grad, plain.weight.grad)


@pytest.mark.parametrize("mode", list(Mode))
def test_alpha_is_what_the_forward_pass_multiplies_with(mode: Mode) -> None:
    layer = make(mode).eval()
    x = sign(torch.randn(1, 3, 6, 6))
    weight = layer.alpha.view(-1, 1, 1, 1) * hard_sign(layer.weight)
    torch.testing.assert_close(layer(x), functional.conv2d(x, weight, padding=1))
    alpha = torch.rand(10) + 0.1
    layer.set_alpha(alpha)
    torch.testing.assert_close(layer.alpha.detach(), alpha)


def test_the_previous_gradient_survives_zero_grad_and_saving() -> None:
    layer = make(Mode.RELEASED)
    step(layer, sign(torch.randn(1, 3, 6, 6)), torch.randn(1, 10, 6, 6))
    gradient = layer.weight.grad.clone()
    layer.zero_grad()
    copy = make(Mode.RELEASED)
    copy.load_state_dict(layer.state_dict())
    assert torch.equal(copy.previous, gradient)
