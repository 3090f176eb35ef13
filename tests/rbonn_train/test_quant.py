"""Simulated rounding: values, straight-through gradients, and the choice of scales."""

import math

import numpy as np
import pytest
import torch

from isa import fixed
from rbonn_train.quant import (
    ResidualPoint,
    choose_scales,
    fake_quantise,
    fake_quantise_weight,
    stride,
)


def test_residuals_round_half_up_and_saturate() -> None:
    y = torch.tensor([-0.75, -0.5, -0.25, 0.0, 0.24, 0.25, 0.75, 1e9, -1e9, 127.6, -128.4])
    codes = fake_quantise(y, 0.5) / 0.5
    assert codes.tolist() == [-1, -1, 0, 0, 0, 1, 2, 255, -256, 255, -256]
    expected = fixed.saturate(fixed.round_half_up(y.double().numpy() / 0.5), fixed.RESIDUAL_BITS)
    assert codes.tolist() == expected.tolist()


def test_gradient_passes_where_nothing_saturates() -> None:
    y = torch.tensor([-128.2, -127.0, 0.3, 127.7, 127.8], requires_grad=True)
    fake_quantise(y, 0.5).backward(torch.arange(1.0, 6.0))
    assert y.grad is not None
    assert y.grad.tolist() == [1, 2, 3, 4, 0]


def test_weights_round_as_the_fold_does() -> None:
    weight = torch.randn(4, 3, 2, 2, requires_grad=True)
    integers, scale = fixed.quantise_weights(weight.detach().double().numpy())
    out = fake_quantise_weight(weight)
    expected = torch.from_numpy(integers * scale.reshape(-1, 1, 1, 1)).float()
    torch.testing.assert_close(out.detach(), expected)
    out.sum().backward()
    assert torch.equal(weight.grad, torch.ones_like(weight))


def test_a_point_passes_watches_and_rounds() -> None:
    point = ResidualPoint()
    y = torch.randn(2, 3, 4, 4)
    assert point(y) is y
    assert point.average(y) is y
    assert point.samples == []
    point.watching = True
    point(torch.linspace(-10, 5, 1001))
    assert point.percentile(100) == 10
    assert point.samples == []
    point.lsb = 0.25
    assert torch.equal(point(y), fake_quantise(y, 0.25))
    assert torch.equal(point.average(y), fake_quantise(y, 0.25))


@pytest.mark.parametrize(
    "shape", [(250, 64, 56, 56), (10, 64, 56, 56), (64, 128, 7, 7), (1, 256, 14, 14)]
)
def test_samples_favour_no_channel_and_no_pixel(shape: tuple[int, ...]) -> None:
    """Sizes in which a stride of one more or less visits one column in seven."""
    chosen = np.unravel_index(np.arange(0, math.prod(shape), stride(shape)), shape)
    for axis, length in zip(chosen[1:], shape[1:], strict=True):
        counts = np.bincount(axis, minlength=length)
        assert counts.min() > 0.8 * counts.mean()
        assert counts.max() < 1.2 * counts.mean()


def test_large_maps_are_sampled_over_all_their_pixels() -> None:
    point = ResidualPoint()
    point.watching = True
    y = torch.zeros(8, 16, 32, 32)
    y[:, 3] = 7.0
    point(y)
    assert 4000 < len(point.samples[0]) < 20000
    assert (point.samples[0] == 7).double().mean().item() == pytest.approx(1 / 16, rel=0.2)


@pytest.mark.parametrize("spread", [1.0, 1.3, 1.9, 40.0])
def test_scales_cover_the_ranges(spread: float) -> None:
    ranges = {"stem": 1.0, "blocks.0": spread, "blocks.1": 0.37 * spread, "blocks.2": 5.0}
    quantisation = choose_scales(ranges)
    assert set(quantisation.exponents) == set(ranges)
    for name, largest in ranges.items():
        top = 255 * quantisation.lsb(name)
        assert 0.94 * largest <= top <= 1.9 * largest
    waste = [np.log2(255 * quantisation.lsb(n) / r) for n, r in ranges.items()]
    assert np.mean(waste) < 0.5


def test_scales_of_equal_ranges_waste_nothing() -> None:
    quantisation = choose_scales({"a": 3.0, "b": 6.0, "c": 12.0})
    assert quantisation.exponents["c"] - quantisation.exponents["a"] == 2
    assert 255 * quantisation.lsb("a") < 3.05
