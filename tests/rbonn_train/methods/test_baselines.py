"""Gradients of the baselines, against their printed equations written out."""

import math

import pytest
import torch
from torch import Tensor

from rbonn_train.methods import METHODS, layer_maker
from rbonn_train.methods.base import BinaryConv2d, hard_sign
from rbonn_train.methods.bop import BopConv2d
from rbonn_train.methods.recu import ReCUConv2d


def make(method: str, **options: float) -> BinaryConv2d:
    layer = layer_maker(method, **options)(3, 10, stride=1)
    if not layer.latent_free:
        with torch.no_grad():  # zeros test sign(0) = +1; weights beyond 1 test the clip
            layer.weight.mul_(6)
            layer.weight[0, 0] = 0.0
            assert (layer.weight.abs() > 1).any()
    layer.start()
    return layer


def gradient(layer: BinaryConv2d) -> tuple[Tensor, Tensor]:
    """A random g_W, and what becomes of it at w."""
    upstream = torch.randn_like(layer.weight)
    (layer.binary() * upstream).sum().backward()
    assert layer.weight.grad is not None
    return upstream, layer.weight.grad


@pytest.mark.parametrize("method", METHODS)
def test_the_forward_pass_is_alpha_times_the_signs(method: str) -> None:
    layer = make(method).eval()
    signs = torch.where(layer.decisive() >= 0, 1.0, -1.0)
    torch.testing.assert_close(layer.binary(), layer.alpha.view(-1, 1, 1, 1) * signs)
    assert (layer.alpha > 0).all()
    x = hard_sign(torch.randn(2, 3, 6, 6))
    expected = torch.nn.functional.conv2d(x, layer.binary(), padding=1)
    torch.testing.assert_close(layer(x), expected)


@pytest.mark.parametrize("method", ["plain", "xnor", "birealnet", "reactnet"])
def test_alpha_starts_as_the_mean_magnitude(method: str) -> None:
    layer = make(method)
    torch.testing.assert_close(layer.alpha, layer.weight.abs().mean(dim=(1, 2, 3)))


@pytest.mark.parametrize("method", ["xnor", "birealnet", "reactnet"])
def test_straight_through_gradients(method: str) -> None:
    layer = make(method)
    upstream, found = gradient(layer)
    w = layer.weight.detach()
    for channel, alpha in enumerate(layer.alpha.tolist()):
        for place in ((0, 0, 0), (1, 2, 1), (2, 1, 2)):
            value, g = w[channel][place].item(), upstream[channel][place].item()
            inside = float(abs(value) <= 1)
            expected = {
                "xnor": g * (1 / 27 + inside * alpha),
                "birealnet": g * alpha * inside,
                "reactnet": g * inside,
            }[method]
            assert found[channel][place].item() == pytest.approx(expected, rel=1e-5)


def test_the_plain_method_learns_its_scale() -> None:
    layer = make("plain")
    with torch.no_grad():
        layer.scale[::2] *= -1
    upstream, found = gradient(layer)
    w, s = layer.weight.detach(), layer.scale.detach()
    torch.testing.assert_close(found, upstream * s.abs() * (w.abs() <= 1))
    total = (upstream * hard_sign(w)).sum(dim=(1, 2, 3)) * s.flatten().sign()
    torch.testing.assert_close(layer.scale.grad.flatten(), total)


def test_recu_is_the_printed_formula() -> None:
    layer = make("recu")
    layer.set_progress(0.5)
    upstream, found = gradient(layer)
    w = layer.weight.detach().clone().requires_grad_()
    v = (w - w.mean(dim=(1, 2, 3), keepdim=True)) * 2 * math.sqrt(2)
    v = v / (w.var(dim=(1, 2, 3), keepdim=True) + 1e-5).sqrt()
    tau = 0.85 + 0.14 * (math.exp(0.5) - 1) / (math.e - 1)
    limit = -v.abs().mean().item() * math.log(2 - 2 * tau)
    clamped = torch.clamp(v, -limit, limit)
    assert 0 < (v.abs() > limit).float().mean() < 0.2
    alpha = layer.alpha.detach().view(-1, 1, 1, 1)
    (clamped * alpha * upstream).sum().backward()  # sign has gradient 1
    torch.testing.assert_close(found, w.grad)
    assert torch.equal(layer.decisive() >= 0, v >= 0)
    assert not torch.equal(layer.decisive() >= 0, layer.weight >= 0)


def test_tau_of_recu_grows_exponentially() -> None:
    layer = make("recu", tau=0.6, tau_end=0.9)
    assert isinstance(layer, ReCUConv2d)
    found = []
    for done in (0.0, 0.5, 1.0):
        layer.set_progress(done)
        found.append(layer.tau)
    assert found[0] == pytest.approx(0.6)
    assert found[2] == pytest.approx(0.9)
    assert found[0] < found[1] < 0.75
    with pytest.raises(ValueError, match=r"must rise within 0\.5 to 1, not 0\.9 and 0\.8"):
        make("recu", tau=0.9, tau_end=0.8)


class Bop:
    """The flip rules written out for one weight."""

    def __init__(self, method: str, gamma: float, sigma: float, threshold: float) -> None:
        self.method, self.gamma, self.sigma, self.threshold = method, gamma, sigma, threshold
        self.m = self.v = 0.0
        self.unseen_m = self.unseen_v = 1.0

    def step(self, w: float, g: float) -> float:
        self.unseen_m *= 1 - self.gamma
        self.unseen_v *= 1 - self.sigma
        self.m = (1 - self.gamma) * self.m + self.gamma * g
        self.v = (1 - self.sigma) * self.v + self.sigma * g * g
        m, v = self.m, self.v
        if self.method == "bop2":
            m, v = m / (1 - self.unseen_m), v / (1 - self.unseen_v)
        drive = m if self.method == "bop" else m / (math.sqrt(v) + 1e-10)
        return -w if w * drive > self.threshold else w


@pytest.mark.parametrize("method", ["bop", "bop2-biased", "bop2"])
def test_bop_flips_as_printed(method: str) -> None:
    rates = {"gamma": 0.1, "sigma": 0.3, "threshold": 0.2}
    layer = make(method, **{name: rates[name] for name in METHODS[method].options})
    reference = [Bop(method, **rates) for _ in range(layer.weight.numel())]
    expected, flips = layer.weight.flatten().tolist(), []
    assert set(expected) == {-1.0, 1.0}
    for number in range(8):
        if number == 4:  # gamma falls while m and v go on
            layer.set_progress(0.5)
            for rule in reference:
                rule.gamma = 0.0505
        layer.zero_grad()
        upstream, found = gradient(layer)
        assert torch.equal(found, upstream)
        before = expected
        expected = [
            rule.step(w, g)
            for rule, w, g in zip(reference, before, upstream.flatten().tolist(), strict=True)
        ]
        layer.after_step()
        assert layer.weight.flatten().tolist() == expected
        flips.append(sum(a != b for a, b in zip(before, expected, strict=True)))
    assert 0 < sum(flips) < 8 * len(expected)


def test_bop_starts_from_the_signs_of_step_1() -> None:
    layer = make("bop")
    assert isinstance(layer, BopConv2d)
    with torch.no_grad():
        layer.weight.copy_(torch.linspace(-1, 1, layer.weight.numel()).view_as(layer.weight))
    expected = hard_sign(layer.weight)
    layer.start()
    assert torch.equal(layer.weight, expected)
    assert layer.alpha.tolist() == [1.0] * 10
    for options in ({"gamma": 0.0}, {"sigma": 1.5}, {"threshold": -1.0}):
        with pytest.raises(ValueError, match="gamma and sigma must be above 0 and at most 1, and"):
            make("bop2", **options)


def test_names_and_options() -> None:
    with pytest.raises(ValueError, match=r"Method must be one of none, released, .*, not 'x'"):
        layer_maker("x")
    with pytest.raises(ValueError) as error:
        layer_maker("xnor", tau=1)
    assert str(error.value) == "Options of method xnor must be among: none; not 'tau'"
    assert METHODS["paper"].options == {"penalty": 1e-4, "tau": 0.6}
    assert set(METHODS["bop2"].options) == {"gamma", "sigma", "threshold"}
