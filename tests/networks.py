"""Small random networks with realistic statistics, shared by the tests of every floor.

The tensors come from a float forward pass over random images: BN statistics are those of the
activations, scales cover the residuals' range; gammas and PReLU slopes of both signs occur.
"""

import dataclasses
import math
from pathlib import Path

import numpy as np
import numpy.typing as npt
import yaml

from isa.checkpoint import check_checkpoint
from isa.fixed import RESIDUAL_BITS, border_values, limits
from isa.network import BN_EPSILON, CheckpointInfo, Network, Quantisation, Stem

Array = npt.NDArray[np.float64]

SMALL_NETWORKS = (
    Network("plain", (8, 8), 1, 3, (8,), (2,), (0.3,), (0.35,)),
    Network("odd-channels", (8, 8), 3, 10, (12, 24), (1, 2), (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)),
    Network("three-stages", (16, 16), 1, 5, (8, 16, 32), (1, 1, 1), (0.28,), (0.35,)),
    Network("not-square", (8, 16), 2, 7, (5, 9, 18), (1, 2, 1), (0.1, 0.9), (0.3, 0.2)),
    Network("big-stem", (16, 16), 3, 4, (6, 12), (1, 1), (0.4,) * 3, (0.3,) * 3, Stem(7, 2, True)),
    Network("strided-stem", (16, 8), 4, 2, (7,), (1,), (0.5,) * 4, (0.2,) * 4, Stem(7, 2)),
    Network("pooled-stem", (8, 8), 1, 16, (9, 18), (1, 1), (0.2,), (0.4,), Stem(3, 1, True)),
    Network("long-frame", (32, 32), 3, 3, (4,), (1,), (0.5,) * 3, (0.3,) * 3, Stem(7, 2, True)),
    Network("one-tile", (16, 16), 2, 10, (4, 8), (1, 1), (0.4,) * 2, (0.3,) * 2),
    Network("one-pixel", (4, 4), 1, 3, (4, 8, 16), (2, 1, 1), (0.5,), (0.5,)),
)
"""All of them fit every geometry. Between them: channel counts that fill no word, 1 to 4 input
channels, every stem, one to three stages, maps down to a single pixel, and a frame of 3,072 bytes
that is longer than the input rings of `tiny` and `ulx3s-25f`."""

DEEP = Network(
    "deep", (16, 16), 3, 16, (16, 32, 64), (1, 1, 5), (0.5,) * 3, (0.3,) * 3, Stem(3, 1, True)
)
"""Its last layers have four pixels: on `ulx3s-25f` their weights take longer to come than to use,
and the stem of the next frame is computed meanwhile."""


def small_network(name: str) -> Network:
    return next(network for network in SMALL_NETWORKS if network.name == name)


def random_frames(network: Network, count: int, seed: int = 0) -> npt.NDArray[np.uint8]:
    """Images N x H x W x C: noise, smooth gradients, and among the first all-zero and all-255."""
    rng = np.random.default_rng([seed, 1])
    height, width = network.input_size
    shape = (count, height, width, network.input_channels)
    frames = rng.integers(0, 256, shape, np.uint8)
    ramp = np.add.outer(np.linspace(0, 128, height), np.linspace(0, 127, width))
    frames[::3] = ramp[:, :, None].astype(np.uint8)
    frames[::3] ^= rng.integers(0, 64, frames[::3].shape, np.uint8)
    frames[1:2], frames[4:5] = 0, 255
    return frames


def random_checkpoint(
    network: Network, seed: int = 0
) -> tuple[CheckpointInfo, dict[str, npt.NDArray[np.float64]]]:
    """A calibrated checkpoint with random weights, checked."""
    maker = _Maker(network, np.random.default_rng([seed, 2]))
    x = (random_frames(network, 6, seed) / 255 - network.mean) / network.std
    maker.forward(x)
    quantisation = _quantisation(maker.ranges)
    info = CheckpointInfo(network, quantisation, training={"seed": seed})
    check_checkpoint(info, maker.tensors)
    return info, maker.tensors


def write_model(path: Path, network: Network) -> str:
    """Writes a model file for ``network``, named as the file is, and returns its path."""
    described = dataclasses.asdict(network)
    del described["name"]
    recipe = {"binary_activations": {"epochs": 1}, "binary_weights": {"epochs": 2}}
    path.write_text(yaml.safe_dump({"network": described, "recipe": recipe}))
    return str(path)


class _Maker:
    """Draws the tensors layer by layer while images pass through."""

    def __init__(self, network: Network, rng: np.random.Generator) -> None:
        self.network, self.rng = network, rng
        self.tensors: dict[str, Array] = {}
        self.ranges: dict[str, float] = {}

    def forward(self, x: Array) -> None:
        network, stem = self.network, self.network.stem
        weight = self._draw("stem.conv.weight", (network.widths[0], x.shape[3], *[stem.kernel] * 2))
        border = (border_values(network.mean) / 255 - network.mean) / network.std
        y = self._bn("stem.bn", convolve(x, weight, stem.stride, border))
        if stem.pool:
            y = max_pool(y)
        self._watch("stem", y)
        for block in network.blocks():
            cin, cout, name = block.in_channels, block.out_channels, block.name
            bias0 = self._draw(f"{name}.bias0", (cin,), 0.3)
            signs = np.where(y + bias0 >= 0, 1.0, -1.0)
            weight = self._draw(f"{name}.conv.weight", (cout, cin, 3, 3))
            alpha = np.abs(self._draw(f"{name}.conv.alpha", (cout,), 0.02)) + 0.01
            self.tensors[f"{name}.conv.alpha"] = alpha
            out = convolve(signs, np.where(weight >= 0, 1.0, -1.0), block.stride, np.zeros(cin))
            out = self._bn(f"{name}.bn", out * alpha)
            if block.downsamples:
                n, h, w, _ = y.shape
                y = y.reshape(n, h // 2, 2, w // 2, 2, cin).mean(axis=(2, 4))
                weight = self._draw(f"{name}.shortcut.conv.weight", (cout, cin, 1, 1))
                y = self._bn(f"{name}.shortcut.bn", y @ weight[:, :, 0, 0].T)
                self._watch(f"{name}.shortcut", y)
            out = out + y + self._draw(f"{name}.bias1", (cout,), 0.2)
            # One slope in five is negative, one a little above 1.
            slope = self._draw(f"{name}.prelu", (cout,), 0.15)
            slope += self.rng.choice([0.25, 0.25, 0.25, -0.2, 1.05], cout)
            y = np.where(out < 0, out * slope, out) + self._draw(f"{name}.bias2", (cout,), 0.2)
            self._watch(name, y)
        self._draw("fc.weight", (network.classes, network.widths[-1]))
        self._draw("fc.bias", (network.classes,))

    def _draw(self, name: str, shape: tuple[int, ...], deviation: float = 1.0) -> Array:
        self.tensors[name] = self.rng.normal(0, deviation, shape)
        return self.tensors[name]

    def _bn(self, name: str, x: Array) -> Array:
        channels = x.shape[-1]
        sign = self.rng.choice([1.0, 1.0, 1.0, -1.0], channels)  # gamma may be negative
        gamma = sign * self.rng.uniform(0.3, 1.2, channels)
        beta, mean, var = (
            self._draw(f"{name}.bias", (channels,), 0.3),
            x.mean((0, 1, 2)),
            x.var((0, 1, 2)),
        )
        self.tensors |= {
            f"{name}.weight": gamma,
            f"{name}.running_mean": mean,
            f"{name}.running_var": var,
        }
        return (x - mean) / np.sqrt(var + BN_EPSILON) * gamma + beta

    def _watch(self, name: str, x: Array) -> None:
        self.ranges[name] = float(np.percentile(np.abs(x), 99.5))


def _quantisation(ranges: dict[str, float]) -> Quantisation:
    """Powers of two around the stem's scale that cover the ranges: a few values saturate."""
    lsbs = {name: max(value, 1e-3) / limits(RESIDUAL_BITS)[1] for name, value in ranges.items()}
    scale = lsbs["stem"]
    return Quantisation(scale, {n: math.ceil(math.log2(v / scale)) for n, v in lsbs.items()})


def convolve(x: Array, weight: Array, stride: int, border: npt.ArrayLike) -> Array:
    """x: (N, H, W, C); weight: (out, C, k, k); padded by k // 2 with one ``border`` per channel."""
    n, height, width, channels = x.shape
    kernel = weight.shape[2]
    pad = kernel // 2
    padded = np.empty((n, height + 2 * pad, width + 2 * pad, channels), x.dtype)
    padded[:] = border
    padded[:, pad : pad + height, pad : pad + width] = x
    out = 0
    for row in range(kernel):
        for column in range(kernel):
            window = padded[:, row : row + height : stride, column : column + width : stride]
            out = out + window @ weight[:, :, row, column].T
    return np.asarray(out)


def max_pool(x: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
    """3x3 stride 2 over (N, H, W, C), borders ignored."""
    n, height, width, channels = x.shape
    low = np.finfo(x.dtype).min if np.issubdtype(x.dtype, np.floating) else np.iinfo(x.dtype).min
    padded = np.full((n, height + 1, width + 1, channels), low, x.dtype)
    padded[:, 1:, 1:] = x
    windows = [
        padded[:, row : row + height : 2, column : column + width : 2]
        for row in range(3)
        for column in range(3)
    ]
    return np.max(windows, axis=0)
