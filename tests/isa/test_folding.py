"""The fold of a whole network against plain float arithmetic on the same tensors."""

import dataclasses

import numpy as np
import pytest

from isa import fixed
from isa.fixed import FixedPointError
from isa.folding import fold_network
from isa.network import BN_EPSILON, NetworkError, Quantisation
from tests.networks import SMALL_NETWORKS, random_checkpoint, small_network

networks = pytest.mark.parametrize("network", SMALL_NETWORKS, ids=lambda n: n.name)


def bn(tensors, name, x):
    """BN in its textbook form, on channels last."""
    mean, var = tensors[f"{name}.bn.running_mean"], tensors[f"{name}.bn.running_var"]
    normal = (x - mean) / np.sqrt(var + BN_EPSILON)
    return normal * tensors[f"{name}.bn.weight"] + tensors[f"{name}.bn.bias"]


def sums(conv, acc, residual=None):
    """t of a folded convolution in real units."""
    t = fixed.post_process_sum(acc, residual, conv.folded.params, conv.folded.shifts)
    return t * conv.lsb / 64


def margin(conv):
    """Real value of the largest error of t: half an LSB, and those of m, n and acc >> a."""
    params, shifts = conv.folded.params, conv.folded.shifts
    acc18 = int(fixed.round_shift(np.array(conv.acc_bound), shifts.a))
    of_acc = np.abs(params.m) / 2.0 ** (shifts.s + 1) if shifts.a else 0
    lsbs = 0.5 + (acc18 + 2) / 2.0 ** (shifts.s + 1) + of_acc
    return lsbs * conv.lsb / 64 * (1 + 1e-6) + 1e-9


@networks
def test_stem(network):
    info, tensors = random_checkpoint(network, 3)
    stem = fold_network(info, tensors).stem
    weights = stem.weights
    assert (stem.name, weights.shape) == ("stem", tensors["stem.conv.weight"].shape)
    assert np.abs(weights).max() == 127
    # The float weights that the integers stand for, within half a step.
    folded_std = tensors["stem.conv.weight"] / np.reshape(network.std, (1, -1, 1, 1))
    steps = np.abs(folded_std).reshape(len(weights), -1).max(axis=1).reshape(-1, 1, 1, 1) / 127
    assert np.abs(weights * steps - folded_std).max() <= 0.5001 * steps.max()
    # A patch of pixels through both.
    patch = np.random.default_rng(1).integers(0, 256, (50, *weights.shape[1:]))
    acc = (patch[:, None] * weights).sum(axis=(2, 3, 4))
    assert np.abs(acc).max() <= stem.acc_bound
    mean = np.reshape(network.mean, (-1, 1, 1))
    real = ((patch / 255 - mean)[:, None] * (weights * steps)).sum(axis=(2, 3, 4))
    expected = bn(tensors, "stem", real)
    assert (np.abs(sums(stem, acc) - expected) <= margin(stem)).all()
    assert stem.border.tolist() == [int(255 * m + 0.5) for m in network.mean]
    assert stem.lsb == info.quantisation.lsb("stem")


@networks
def test_stem_bound_is_reached_and_never_passed(network):
    stem = fold_network(*random_checkpoint(network, 4)).stem
    flat = stem.weights.reshape(len(stem.weights), -1)
    extremes = [
        max(sum(255 * v for v in row if v > 0), -sum(255 * v for v in row if v < 0))
        for row in flat.tolist()
    ]
    assert stem.acc_bound == max(extremes)


@networks
def test_blocks(network):
    info, tensors = random_checkpoint(network, 5)
    folded = fold_network(info, tensors)
    rng = np.random.default_rng(2)
    source = "stem"
    assert [f.block for f in folded.blocks] == list(network.blocks())
    for index, part in enumerate(folded.blocks):
        block, conv, name = part.block, part.conv, part.block.name
        assert conv.name == name
        assert conv.weights.tolist() == (tensors[f"{name}.conv.weight"] >= 0).astype(int).tolist()
        assert conv.acc_bound == 9 * block.in_channels
        assert (part.shortcut is not None) == (block.stride == 2)
        if part.shortcut is not None:
            check_shortcut(info, tensors, part.shortcut, source, rng)
            source = part.shortcut.name
        acc = rng.integers(-conv.acc_bound, conv.acc_bound + 1, (40, block.out_channels))
        residual = rng.integers(-256, 256, acc.shape)
        real = bn(tensors, name, acc * tensors[f"{name}.conv.alpha"])
        real = real + residual * info.quantisation.lsb(source) + tensors[f"{name}.bias1"]
        assert (np.abs(sums(conv, acc, residual) - real) <= margin(conv)).all()
        # PReLU, bias2 and the next block's threshold
        params, unit = conv.folded.params, conv.lsb / 64
        np.testing.assert_allclose(params.slope / 4096, tensors[f"{name}.prelu"], atol=1.3e-4)
        np.testing.assert_allclose(params.bias2 * unit, tensors[f"{name}.bias2"], atol=unit * 0.51)
        last = index + 1 == len(folded.blocks)
        bias0 = 0 * params.n if last else tensors[f"blocks.{index + 1}.bias0"]
        assert (params.threshold * unit + bias0 >= -1e-9).all()
        assert ((params.threshold - 1) * unit + bias0 < 1e-9).all()
        source = name


def check_shortcut(info, tensors, shortcut, source, rng):
    assert shortcut.weights.min() >= -127
    weight = tensors[f"{shortcut.name}.conv.weight"][:, :, 0, 0]
    steps = np.abs(weight).max(axis=1, keepdims=True) / 127
    integers = shortcut.weights[:, :, 0, 0]
    assert np.abs(integers * steps - weight).max() <= 0.5001 * steps.max()
    x = rng.integers(-256, 256, (30, weight.shape[1]))
    acc = x @ integers.T
    assert np.abs(acc).max() <= shortcut.acc_bound
    assert shortcut.acc_bound == np.abs(integers).sum(axis=1).max() * 256
    real = bn(tensors, shortcut.name, x * info.quantisation.lsb(source) @ (integers * steps).T)
    assert (np.abs(sums(shortcut, acc) - real) <= margin(shortcut)).all()


def test_stem_threshold_is_that_of_the_first_block():
    info, tensors = random_checkpoint(small_network("plain"), 6)
    stem = fold_network(info, tensors).stem
    unit = stem.lsb / 64
    expected = np.ceil(-tensors["blocks.0.bias0"] / unit)
    assert stem.folded.params.threshold.tolist() == expected.tolist()


# 256 pixels: the largest sum that needs no shift is that of 127.
SHIFTED = dataclasses.replace(small_network("plain"), name="shifted-sum", input_size=(16, 16))


@pytest.mark.parametrize("network", [*SMALL_NETWORKS, SHIFTED], ids=lambda n: n.name)
def test_classifier(network):
    info, tensors = random_checkpoint(network, 7)
    folded = fold_network(info, tensors)
    fc, last = folded.classifier, folded.blocks[-1].conv
    height, width = network.final_size
    maps = np.random.default_rng(3).integers(-256, 256, (height, width, network.widths[-1]))
    features = fixed.global_sum(maps, fc.feature_shift)
    assert np.abs(features).max() <= 32768
    acc = fc.weights @ features
    assert np.abs(acc).max() <= fc.acc_bound < 1 << 31
    logits = fixed.logits(acc, fc.folded.params, fc.folded.shifts) * fc.lsb
    means = maps.mean(axis=(0, 1)) * last.lsb
    expected = tensors["fc.weight"] @ means + tensors["fc.bias"]
    # int8 weights are off by half a step each, shifted sums by half an LSB, the rest by far less.
    steps = np.abs(tensors["fc.weight"]).max(axis=1) / 127
    bound = 0.5 * steps * np.abs(means).sum() + 0.01 * steps * np.abs(means).max() + 4 * fc.lsb
    of_sums = 2.0**fc.feature_shift / (2 * height * width) * last.lsb if fc.feature_shift else 0
    bound += of_sums * np.abs(tensors["fc.weight"]).sum(axis=1)
    assert (np.abs(logits - expected) <= bound).all()


def test_a_map_of_256_pixels_needs_a_shifted_sum():
    fc = fold_network(*random_checkpoint(SHIFTED, 1)).classifier
    assert fc.feature_shift == fixed.feature_shift(256) == 2
    assert fold_network(*random_checkpoint(small_network("plain"))).classifier.feature_shift == 0


def test_the_same_tensors_give_the_same_integers():
    info, tensors = random_checkpoint(small_network("three-stages"))
    single = {name: value.astype(np.float32) for name, value in tensors.items()}
    double = {name: value.astype(np.float64) for name, value in single.items()}
    for one, two in zip(
        fold_network(info, single).blocks, fold_network(info, double).blocks, strict=True
    ):
        for name, value in vars(one.conv.folded.params).items():
            np.testing.assert_array_equal(value, getattr(two.conv.folded.params, name))


def test_without_scales():
    info, tensors = random_checkpoint(small_network("plain"))
    with pytest.raises(NetworkError) as error:
        fold_network(dataclasses.replace(info, quantisation=None), tensors)
    assert str(error.value) == "Checkpoint must be calibrated before it can be folded"


def test_what_does_not_fit_names_the_layer():
    info, tensors = random_checkpoint(small_network("three-stages"))
    for name in ("stem", "blocks.1.shortcut", "blocks.2"):
        wrong = tensors | {f"{name}.bn.bias": 1e12 + 0 * tensors[f"{name}.bn.bias"]}
        start = f"^Layer {name}: Gain and offset must fit 16 and 32 bits at some shift, not "
        with pytest.raises(FixedPointError, match=start):
            fold_network(info, wrong)
    exponents = dict(info.quantisation.exponents) | {"blocks.1": -40, "blocks.1.shortcut": 40}
    wrong = dataclasses.replace(info, quantisation=Quantisation(1e-3, exponents))
    with pytest.raises(FixedPointError, match=r"^Layer blocks\.1: .* beside a shortcut of 2\*\*86"):
        fold_network(wrong, tensors)
