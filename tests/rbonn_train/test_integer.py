"""The integer network against a slow, plain implementation, and against the float network."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pytest
import torch

from isa import fixed
from isa.checkpoint import read_checkpoint
from isa.fixed import IntArray
from isa.folding import FoldedConv, FoldedNetwork, fold_network
from isa.network import Network
from rbonn_train.checkpoint import load_model
from rbonn_train.config import MODELS_FOLDER, load_model_yaml
from rbonn_train.data import load_shipped, to_tensor
from rbonn_train.evaluate import accuracy, predict
from rbonn_train.integer import IntegerNetwork, average_2x2, exact_conv, round_shift
from rbonn_train.recipe import recipe_from_dict
from tests.networks import SMALL_NETWORKS, random_checkpoint, random_frames, small_network

Maps = tuple[IntArray, IntArray | None]


def slow_conv(x: IntArray, weights: IntArray, stride: int, pad: int, fill: IntArray) -> IntArray:
    """(H, W, C) -> (H', W', out), one product after another; ``fill``: border value per channel."""
    out_channels, in_channels, kernel, _ = weights.shape
    height, width = x.shape[0] // stride, x.shape[1] // stride
    acc = np.zeros((height, width, out_channels), np.int64)
    for row, column, ky, kx in np.ndindex(height, width, kernel, kernel):
        y, z = row * stride + ky - pad, column * stride + kx - pad
        inside = 0 <= y < x.shape[0] and 0 <= z < x.shape[1]
        pixel = x[y, z] if inside else fill
        for channel in range(in_channels):
            acc[row, column] += weights[:, channel, ky, kx] * pixel[channel]
    return acc


def slow_pool(x: IntArray) -> IntArray:
    """3x3 stride 2, pixels outside ignored."""
    height, width, _ = x.shape
    rows = [range(max(0, 2 * i - 1), min(height, 2 * i + 2)) for i in range(height // 2)]
    columns = [range(max(0, 2 * j - 1), min(width, 2 * j + 2)) for j in range(width // 2)]
    return np.array([[x[np.ix_(r, c)].max(axis=(0, 1)) for c in columns] for r in rows])


def slow_layers(folded: FoldedNetwork, image: npt.NDArray[np.uint8]) -> Iterator[tuple[str, Maps]]:
    """One image through the whole network, by the arithmetic units of isa.fixed."""
    stem, form = folded.stem, folded.network.stem
    acc = slow_conv(image.astype(np.int64), stem.weights, form.stride, form.padding, stem.border)
    residual, bits = post(stem, acc, None)
    if form.pool:
        residual, bits = slow_pool(residual), slow_pool(bits)
    yield "stem", (residual, bits)
    for block in folded.blocks:
        operand, name = residual, block.conv.name
        if block.shortcut is not None:
            operand = fixed.average_2x2(residual)
            yield f"{name}.pool", (operand, None)
            acc = slow_conv(operand, block.shortcut.weights, 1, 0, np.zeros(0, np.int64))
            operand, _ = post(block.shortcut, acc, None)
            yield f"{name}.shortcut", (operand, None)
        signs = np.where(bits == 1, 1, -1)
        weights = np.where(block.conv.weights == 1, 1, -1)
        zero = np.zeros(signs.shape[2], np.int64)
        acc = slow_conv(signs, weights, block.block.stride, 1, zero)
        residual, bits = post(block.conv, acc, operand)
        yield name, (residual, bits)
    layer = folded.classifier
    features = fixed.global_sum(residual, layer.feature_shift)
    acc = np.array(
        [sum(int(w) * int(f) for w, f in zip(r, features, strict=True)) for r in layer.weights]
    )
    yield "fc", (fixed.logits(acc, layer.folded.params, layer.folded.shifts), None)


def post(layer: FoldedConv, acc: IntArray, residual: IntArray | None) -> tuple[IntArray, IntArray]:
    assert np.abs(acc).max() <= layer.acc_bound
    return fixed.post_process(acc, residual, layer.folded.params, layer.folded.shifts)


@pytest.mark.parametrize("network", SMALL_NETWORKS, ids=lambda network: network.name)
def test_every_layer_equals_a_slow_implementation(network) -> None:
    folded = fold_network(*random_checkpoint(network, seed=3))
    images = random_frames(network, 3, seed=3)
    integer = IntegerNetwork(folded)
    trace = integer.trace(images)
    for index, image in enumerate(images):
        layers = dict(slow_layers(folded, image))
        assert list(layers) == list(trace)
        for name, (residual, bits) in layers.items():
            np.testing.assert_array_equal(trace[name].residual[index], residual, name)
            if bits is None:
                assert trace[name].bits is None
            else:
                np.testing.assert_array_equal(trace[name].bits[index], bits, name)
    assert torch.equal(trace["fc"].residual, integer(images))


def test_random_networks_exercise_negative_gains_and_slopes() -> None:
    folded = fold_network(*random_checkpoint(small_network("big-stem"), seed=3))
    assert (folded.stem.folded.params.m < 0).any()
    assert any((block.conv.folded.params.m < 0).any() for block in folded.blocks)
    assert any((block.conv.folded.params.slope < 0).any() for block in folded.blocks)


@pytest.mark.parametrize("network", SMALL_NETWORKS, ids=lambda network: network.name)
def test_the_stem_equals_the_float_network_within_one_lsb(network) -> None:
    info, tensors = random_checkpoint(network, seed=5)
    images = random_frames(network, 4, seed=5)
    model = load_model(info, tensors)
    model.quantise(info.quantisation)
    with torch.no_grad():
        name, expected = model.residuals(to_tensor(images))[0]
    lsbs = expected.permute(0, 2, 3, 1) / info.quantisation.lsb(name)
    residual = IntegerNetwork(fold_network(info, tensors)).trace(images)["stem"].residual
    assert (lsbs - residual).abs().max() <= 1.001
    assert (lsbs.round() == residual).double().mean() > 0.97


def test_images_are_split_into_batches() -> None:
    network = small_network("one-pixel")
    integer = IntegerNetwork(fold_network(*random_checkpoint(network)))
    images = random_frames(network, 230)
    single = torch.cat([integer(images[i : i + 1]) for i in range(230)])
    assert torch.equal(integer(images), single)


def test_rounding_is_half_up() -> None:
    x = torch.tensor([-7, -6, -5, -2, -1, 0, 1, 2, 3, 6])
    assert round_shift(x, 2).tolist() == [-2, -1, -1, 0, 0, 0, 0, 1, 1, 2]
    assert round_shift(x, 0).tolist() == x.tolist()
    square = torch.tensor([[[[-1, -1], [-1, 1]]]])
    assert average_2x2(square).item() == 0  # -0.5 rounds up


@pytest.mark.parametrize("bound", [(1 << 24) - 1, (1 << 24) + 1])
def test_convolution_is_exact_beyond_float32(bound: int) -> None:
    # 2**24 + 1 has no float32; from that bound on the convolution runs in float64.
    folded = fold_network(*random_checkpoint(small_network("plain"))).stem.folded
    value = bound - 127 * 2
    layer = FoldedConv("x", np.array([[[[1]], [[127]]]]), bound, folded, 1.0)
    acc = exact_conv(torch.tensor([value, 2]).view(1, 2, 1, 1), layer, stride=1, padding=0)
    assert acc.item() == bound


SHIPPED = sorted(path.stem for path in MODELS_FOLDER.glob("*.safetensors"))
assert {"fmnist-s", "resnet18", "tiny"} <= set(SHIPPED)


@pytest.mark.parametrize("model", SHIPPED)
def test_shipped_checkpoint_on_the_images_that_ship(model: str) -> None:
    info, tensors = read_checkpoint(MODELS_FOLDER / f"{model}.safetensors")
    dataset = load_shipped(info.network)
    measured = accuracy(info, tensors, dataset, "integer")
    assert measured["images"] == 500
    assert info.metrics["images"] == 10_000
    # 500 images: three standard deviations are about 4 points.
    assert abs(measured["accuracy"] - info.metrics["accuracy_integer"]) < 0.05
    images = info.metrics["images"]  # whole ones: a difference of decimals is not exact
    integer, real = (round(info.metrics[f"accuracy_{a}"] * images) for a in ("integer", "float"))
    assert integer >= real - 0.002 * images
    assert recipe_from_dict(info.training["recipe"]) == load_model_yaml(model).recipe
    if model != "tiny":
        assert info.metrics["accuracy_integer"] >= 0.91
        assert measured["accuracy"] >= 0.88


def test_the_shipped_resnet_is_small() -> None:
    assert (MODELS_FOLDER / "resnet18.safetensors").stat().st_size <= 4_000_000


def test_integers_and_floats_agree_on_a_shipped_network() -> None:
    path = MODELS_FOLDER / "tiny.safetensors"
    info, tensors = read_checkpoint(path)
    images = load_shipped(info.network).images
    real, layers = predict(path, images, "float", layers=True)
    integers, maps = predict(path, images, "integer", layers=True)
    assert set(layers) == {"stem", "blocks.0", "blocks.1", "fc"}
    lsb = fold_network(info, tensors).classifier.lsb
    assert np.corrcoef(real.ravel(), integers.ravel() * lsb)[0, 1] > 0.98
    assert (real.argmax(axis=1) == integers.argmax(axis=1)).mean() > 0.9
    for name, layer in layers.items():
        if name != "fc":
            mine = maps[name].residual * info.quantisation.lsb(name)
            assert (mine - layer.residual).abs().median() < info.quantisation.lsb(name)


@pytest.mark.parametrize("name", ["three-stages", "odd-channels", "big-stem", "not-square"])
def test_each_block_equals_its_real_formula_within_one_lsb(name: str) -> None:
    """Fed with the integer maps before it, so that no difference can add up."""
    network = small_network(name)
    info, tensors = random_checkpoint(network, seed=7)
    images = random_frames(network, 4, seed=7)
    trace = IntegerNetwork(fold_network(info, tensors)).trace(images)
    lsb = info.quantisation.lsb
    source = "stem"
    for block in network.blocks():
        here = block.name

        def batch_norm(x: np.ndarray, bn: str) -> np.ndarray:
            values = [
                tensors[f"{bn}.{part}"]
                for part in ("weight", "bias", "running_mean", "running_var")
            ]
            return (x - values[2]) / np.sqrt(values[3] + 1e-5) * values[0] + values[1]

        x, operand = trace[source], source
        if block.downsamples:
            operand = f"{here}.shortcut"
            pooled = trace[f"{here}.pool"].residual.numpy() * lsb(source)
            weight = tensors[f"{operand}.conv.weight"][:, :, 0, 0]
            real = batch_norm(pooled @ weight.T, f"{operand}.bn")
            # int8 weights: at most half a step of weight, 1/254 of the largest, per channel
            slack = np.abs(pooled).sum(-1).max() * np.abs(weight).max() / 254
            gamma = tensors[f"{operand}.bn.weight"] / np.sqrt(tensors[f"{operand}.bn.running_var"])
            check(real, trace[operand], lsb(operand), slack * np.abs(gamma).max())
        signs = torch.from_numpy(2.0 * x.bits.numpy() - 1).permute(0, 3, 1, 2)
        weight = torch.from_numpy(np.where(tensors[f"{here}.conv.weight"] >= 0, 1.0, -1.0))
        acc = torch.nn.functional.conv2d(signs, weight, stride=block.stride, padding=1)
        y = acc.permute(0, 2, 3, 1).numpy() * tensors[f"{here}.conv.alpha"]
        y = batch_norm(y, f"{here}.bn") + trace[operand].residual.numpy() * lsb(operand)
        y = y + tensors[f"{here}.bias1"]
        y = np.where(y < 0, y * tensors[f"{here}.prelu"], y) + tensors[f"{here}.bias2"]
        check(y, trace[here], lsb(here), 0.05 * lsb(here))  # y itself is in 1/64 LSB
        following = tensors.get(f"blocks.{block.index + 1}.bias0")
        if following is not None:
            bits = y + following >= 0
            wrong = bits != (trace[here].bits.numpy() == 1)
            assert np.abs(y + following)[wrong].max(initial=0) < 0.1 * lsb(here)
        source = here


@pytest.mark.parametrize("size", [(4, 4), (16, 16), (32, 16)])
def test_logits_equal_their_real_formula(size: tuple[int, int]) -> None:
    """From 128 pixels on, the global sum is shifted to fit the classifier's operand."""
    network = Network("logits", size, 1, 5, (6,), (1,), (0.4,), (0.3,))
    info, tensors = random_checkpoint(network, seed=2)
    folded = fold_network(info, tensors)
    assert folded.classifier.feature_shift == {16: 0, 256: 2, 512: 3}[size[0] * size[1]]
    trace = IntegerNetwork(folded).trace(random_frames(network, 4))
    features = trace["blocks.0"].residual.double().mean(dim=(1, 2)) * info.quantisation.lsb(
        "blocks.0"
    )
    weight = tensors["fc.weight"]
    real = features.numpy() @ weight.T + tensors["fc.bias"]
    slack = features.abs().sum(1).max().item() * np.abs(weight).max() / 254
    slack += np.abs(weight).sum(1).max() * 2.0**folded.classifier.feature_shift / size[0] / size[1]
    assert np.abs(real - trace["fc"].residual.numpy() * folded.classifier.lsb).max() < slack


def check(real: np.ndarray, maps, lsb: float, slack: float) -> None:
    low, high = fixed.limits(fixed.RESIDUAL_BITS)
    expected = np.clip(real, low * lsb, high * lsb)
    assert np.abs(expected - maps.residual.numpy() * lsb).max() <= 0.5 * lsb + slack + 1e-9
