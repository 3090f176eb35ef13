"""The module: names and shapes, borders, blocks, simulated rounding, calibration."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from isa import fixed
from isa.network import Network, Stem, tensor_shapes
from rbonn_train.data import Dataset, to_tensor
from rbonn_train.methods import layer_maker
from rbonn_train.methods.base import sign
from rbonn_train.methods.rbonn import Mode, RBONNConv2d
from rbonn_train.network import BinaryNetwork, RealConv2d

LARGE = Network(
    "large", (32, 64), 3, 7, (6, 12), (2, 1), (0.5, 0.4, 0.3), (0.2, 0.3, 0.4), Stem(7, 2, True)
)


def rounded(weight: Tensor) -> Tensor:
    """The int8 weights of the fold, in real units."""
    integers, scale = fixed.quantise_weights(weight.detach().double().numpy())
    return torch.from_numpy(integers * scale.reshape(-1, *[1] * (weight.ndim - 1))).float()


@pytest.mark.parametrize("method", [None, "released", "paper"])
def test_parameters_are_those_of_the_checkpoint(method: str | None) -> None:
    make = None if method is None else layer_maker(method)
    state = BinaryNetwork(LARGE, make).state_dict()
    shapes = tensor_shapes(LARGE)
    for name, shape in shapes.items():
        if not name.endswith(".conv.alpha"):
            assert tuple(state[name].shape) == shape
    others = {name.rsplit(".", 1)[-1] for name in set(state) - set(shapes)}
    expected = {"num_batches_tracked"}
    if method is not None:
        expected |= {"scale", "u", "previous"}
    if method == "paper":
        expected.add("previous_sparse")
    assert others == expected


def test_sizes() -> None:
    model = BinaryNetwork(LARGE, layer_maker("released"))
    images = torch.randint(0, 256, (2, 3, 32, 64), dtype=torch.uint8)
    maps = {name: tuple(x.shape) for name, x in model.residuals(images)}
    assert maps == {
        "stem": (2, 6, 8, 16),
        "blocks.0": (2, 6, 8, 16),
        "blocks.1": (2, 6, 8, 16),
        "blocks.2": (2, 12, 4, 8),
    }
    assert model(images).shape == (2, 7)


@pytest.mark.parametrize("quantised", [False, True])
def test_border_pixels_are_the_mean_which_the_accelerator_rounds(quantised: bool) -> None:
    network = dataclasses.replace(LARGE, mean=(0.501, 0.4, 0.3))
    model = BinaryNetwork(network).eval()
    images = torch.randint(0, 256, (1, 3, 32, 64), dtype=torch.uint8)
    if quantised:
        model.quantise(model.calibrate([images]))
    stem = model.stem
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (network.mean, network.std))
    weight = stem.conv.weight
    large = torch.empty(1, 3, 38, 70)
    large[:] = 255 * mean
    if quantised:
        large[:] = torch.tensor([128.0, 102.0, 77.0]).view(1, 3, 1, 1)  # of 127.755, 102, 76.5
        weight = rounded(weight / std) * std
    large[:, :, 3:-3, 3:-3] = images
    x = functional.conv2d((large / 255 - mean) / std, weight, stride=2)
    torch.testing.assert_close(stem(images), functional.max_pool2d(stem.bn(x), 3, 2, padding=1))


@pytest.mark.parametrize("quantised", [False, True])
def test_shortcut_and_classifier_have_int8_weights_where_rounding_is_on(
    quantised: bool, network: Network, dataset: Dataset
) -> None:
    model = BinaryNetwork(network, layer_maker("released")).eval()
    images = to_tensor(dataset.images[:32])
    if quantised:
        model.quantise(model.calibrate([images]))
    shortcut = model.binary_blocks()[1].shortcut
    assert shortcut is not None
    shortcut.point.lsb = None  # what it makes is not rounded, so that its weights show
    weights = [shortcut.conv.weight, model.fc.weight]
    if quantised:
        weights = [rounded(weight) for weight in weights]
    x = torch.randn(4, 8, 4, 4)
    torch.testing.assert_close(shortcut(x), shortcut.bn(functional.conv2d(x, weights[0])))
    features = model.residuals(images)[-1][1].mean(dim=(2, 3))
    torch.testing.assert_close(model(images), features @ weights[1].T + model.fc.bias)


def test_a_block_is_the_printed_formula() -> None:
    model = BinaryNetwork(LARGE, layer_maker("released")).eval()
    block = model.binary_blocks()[2]
    for parameter in (block.bias0, block.bias1, block.bias2, block.prelu):
        torch.nn.init.normal_(parameter)
    x = torch.randn(2, 6, 8, 16)
    side = functional.conv2d(functional.avg_pool2d(x, 2), block.shortcut.conv.weight)
    main = block.bn(block.conv(sign(x + block.bias0.view(1, -1, 1, 1))))
    total = main + block.shortcut.bn(side) + block.bias1.view(1, -1, 1, 1)
    slope = block.prelu.view(1, -1, 1, 1)
    expected = torch.where(total < 0, total * slope, total) + block.bias2.view(1, -1, 1, 1)
    torch.testing.assert_close(block(x, x, model.points[2]), expected)


def test_the_sign_sees_the_value_before_rounding() -> None:
    block = BinaryNetwork(LARGE, layer_maker("released")).eval().binary_blocks()[0]
    y = torch.full((1, 6, 8, 16), 0.4)
    torch.nn.init.constant_(block.bias0, -0.2)
    rounded, point = torch.zeros_like(y), torch.nn.Identity()
    assert torch.equal(block(y, rounded, point), block(y + 9, rounded, point))
    assert not torch.equal(block(y, rounded, point), block(y - 9, rounded, point))


def test_steps_use_real_and_binary_weights() -> None:
    first = BinaryNetwork(LARGE)
    second = BinaryNetwork(LARGE, layer_maker("paper", penalty=1, tau=0.5))
    assert all(isinstance(block.conv, RealConv2d) for block in first.binary_blocks())
    for block in second.binary_blocks():
        assert isinstance(block.conv, RBONNConv2d)
        assert (block.conv.mode, block.conv.penalty, block.conv.tau) == (Mode.PAPER, 1, 0.5)


def test_quantisation_puts_residuals_on_the_grid(network: Network, dataset: Dataset) -> None:
    model = BinaryNetwork(network, layer_maker("released")).eval()
    images = to_tensor(dataset.images)
    before = model(images)
    quantisation = model.calibrate(images.split(64))
    assert model.quantisation is None
    assert torch.equal(model(images), before)  # nothing but watching
    assert list(quantisation.exponents) == network.residual_names()
    model.quantise(quantisation)
    maps = dict(model.residuals(images))
    for name, x in maps.items():
        codes = x / quantisation.lsb(name)
        torch.testing.assert_close(codes, codes.round(), atol=1e-4, rtol=0)
        assert codes.abs().max() > 100
    after = model(images)
    assert not torch.equal(after, before)
    assert np.corrcoef(after.detach().flatten(), before.detach().flatten())[0, 1] > 0.95
    model.quantise(None)
    assert torch.equal(model(images), before)


def test_rounding_in_a_block(network: Network, dataset: Dataset) -> None:
    """Signs see values before rounding; pool and shortcut see, and make, rounded ones."""
    model = BinaryNetwork(network, layer_maker("released")).eval()
    images = to_tensor(dataset.images)
    quantisation = model.calibrate([images])
    model.quantise(quantisation)
    stem, first = (x for _, x in model.residuals(images)[:2])
    block, point = model.binary_blocks()[0], model.points[0]
    y = model.stem(images)
    assert torch.equal(first, model.points[1](block(y, stem, point)))
    assert not torch.equal(first, model.points[1](block(stem, stem, point)))
    seen: list[torch.Tensor] = []
    shortcut = model.binary_blocks()[1].shortcut
    assert shortcut is not None
    shortcut.register_forward_hook(lambda _, given, made: seen.extend([given[0], made]))
    model(images)
    for x, name in zip(seen, ("blocks.0", "blocks.1.shortcut"), strict=True):
        codes = x / quantisation.lsb(name)
        torch.testing.assert_close(codes, codes.round(), atol=1e-4, rtol=0)


def test_statistics_are_those_of_all_images(network: Network, dataset: Dataset) -> None:
    model = BinaryNetwork(network, layer_maker("released")).train()
    images = to_tensor(dataset.images)
    model(images[:16])
    model.estimate_statistics(images, batch=128)
    assert model.training
    assert model.stem.bn.momentum == 0.1
    model.eval()
    y = (model.stem(images) - model.stem.bn.bias.view(-1, 1, 1)).detach()
    torch.testing.assert_close(y.mean(dim=(0, 2, 3)), torch.zeros(8), atol=1e-4, rtol=0)
    torch.testing.assert_close(y.var(dim=(0, 2, 3)), torch.ones(8), atol=1e-2, rtol=0)


@pytest.mark.parametrize("count", [9, 10, 11])
def test_no_image_counts_much_more_than_others_for_statistics(network: Network, count: int) -> None:
    """Not even where the last batch, of 5, would be a single one."""
    model = BinaryNetwork(network, layer_maker("released"))
    images = torch.full((count, 1, *network.input_size), 100, dtype=torch.uint8)
    images[-1] = 200

    def mean(images: Tensor) -> Tensor:
        model.estimate_statistics(images, batch=5)
        return model.stem.bn.running_mean.clone()

    low, high = mean(images[:5]), mean(images[-1:].repeat(5, 1, 1, 1))
    share = (mean(images) - low) / (high - low)
    torch.testing.assert_close(share, torch.full_like(share, 1 / count), atol=0.03, rtol=0)


def test_calibration_keeps_mode_and_statistics(network: Network, dataset: Dataset) -> None:
    model = BinaryNetwork(network, layer_maker("released")).train()
    mean = model.stem.bn.running_mean.clone()
    model.calibrate([to_tensor(dataset.images)])
    assert model.training
    assert torch.equal(mean, model.stem.bn.running_mean)


def test_gradients_reach_every_parameter_through_the_rounding(
    network: Network, dataset: Dataset
) -> None:
    model = BinaryNetwork(network, layer_maker("released"))
    images = to_tensor(dataset.images)
    model.quantise(model.calibrate([images]))
    functional.cross_entropy(model(images), torch.from_numpy(dataset.labels)).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert name.endswith(".u") or parameter.grad.abs().sum() > 0, name
