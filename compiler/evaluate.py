"""Plain evaluation of a folded network and of a program: what every level must compute.

An outcome maps the name of a layer to what it leaves behind: residuals (H, W, C), ``<name>.bits``
(H, W, C), of the mean the features (C,), of the classifier the logits (classes,).
"""

import numpy as np
import numpy.typing as npt

from compiler.ir import Layer, Program, Region, Size, ceil_div
from compiler.tile import uncut
from isa import fixed
from isa.fixed import IntArray
from isa.folding import FoldedNetwork
from isa.layer import LayerKind

Outcome = dict[str, IntArray]
NEVER_WRITTEN = -(1 << 40)  # spoils every sum that it gets into


def convolve(x: IntArray, weights: IntArray, stride: int, border: npt.ArrayLike = 0) -> IntArray:
    """x: (H, W, C), padded by kernel // 2 with ``border``; weights: (out, C, kernel, kernel)."""
    height, width, channels = x.shape
    kernel = weights.shape[2]
    pad = kernel // 2
    padded = np.empty((height + 2 * pad, width + 2 * pad, channels), np.float64)
    padded[:] = border
    padded[pad : pad + height, pad : pad + width] = x
    acc = np.zeros(1)
    for row in range(kernel):
        for column in range(kernel):
            window = padded[row : row + height : stride, column : column + width : stride]
            # In float64, which is exact for these integers, because numpy is fast there.
            acc = acc + window @ weights[:, :, row, column].T.astype(np.float64)
    return acc.astype(np.int64)


def max_pool(x: IntArray) -> IntArray:
    """3x3 stride 2 over (H, W, C), borders ignored; H and W even."""
    height, width, _ = x.shape
    padded = np.pad(x, ((1, 0), (1, 0), (0, 0)), constant_values=np.iinfo(np.int64).min)
    windows = [padded[r : r + height : 2, c : c + width : 2] for r in range(3) for c in range(3)]
    return np.asarray(np.max(windows, axis=0))


def evaluate_folded(folded: FoldedNetwork, frame: npt.NDArray[np.uint8]) -> Outcome:
    """``frame``: (H, W, C) uint8."""
    stem = folded.stem
    acc = convolve(frame.astype(np.int64), stem.weights, folded.network.stem.stride, stem.border)
    x, bits = fixed.post_process(acc, None, stem.folded.params, stem.folded.shifts)
    if folded.network.stem.pool:
        x, bits = max_pool(x), max_pool(bits)
    outcome = {"stem": x, "stem.bits": bits}
    for block in folded.blocks:
        name = block.block.name
        if (shortcut := block.shortcut) is not None:
            x = outcome[f"{name}.pool"] = fixed.average_2x2(x)
            acc = convolve(x, shortcut.weights, 1)
            x, _ = fixed.post_process(acc, None, shortcut.folded.params, shortcut.folded.shifts)
            outcome[shortcut.name] = x
        conv = block.conv
        acc = convolve(2 * bits - 1, 2 * conv.weights - 1, block.block.stride)
        x, bits = fixed.post_process(acc, x, conv.folded.params, conv.folded.shifts)
        outcome[name] = x
        if block is not folded.blocks[-1]:
            outcome[f"{name}.bits"] = bits
    fc = folded.classifier
    features = outcome["mean"] = fixed.global_sum(x, fc.feature_shift)
    acc = (features * fc.weights).sum(axis=1)
    outcome[fc.name] = fixed.logits(acc, fc.folded.params, fc.folded.shifts)
    return outcome


class _Maps:
    """Residual map, bit maps and features: in memory where they have been placed there already,
    else as arrays."""

    def __init__(self, program: Program) -> None:
        geometry = program.geometry
        self.residuals = np.full((geometry.residual_words, geometry.post_lanes), NEVER_WRITTEN)
        self.bits = np.full((geometry.bit_words, geometry.word_bits), NEVER_WRITTEN)
        self.arrays: dict[str, IntArray] = {}

    def store(self, name: str, region: Region | None, value: IntArray) -> None:
        if region is None:
            self.arrays[name] = value
            return
        memory: IntArray = getattr(self, name)
        words = ceil_div(value.shape[2], memory.shape[1])
        padded = np.pad(value, ((0, 0), (0, 0), (0, words * memory.shape[1] - value.shape[2])))
        addresses = region.addresses(value.shape[:2], words)
        memory[addresses] = padded.reshape(*addresses.shape, -1)

    def load(self, name: str, region: Region | None, size: Size, channels: int) -> IntArray:
        if region is None:
            return self.arrays[name]
        memory: IntArray = getattr(self, name)
        addresses = region.addresses(size, ceil_div(channels, memory.shape[1]))
        return memory[addresses].reshape(*size, -1)[:, :, :channels]


def evaluate_program(program: Program, frame: npt.NDArray[np.uint8]) -> Outcome:
    """Evaluates as much of the program as the passes have decided on: maps go through the memories
    once they are placed, weights are read back from the tiles once they are cut."""
    maps, outcome = _Maps(program), Outcome()
    for layer in program.layers:
        if layer.tiles is not None:
            layer = uncut(layer, program.geometry)
        _run(layer, maps, outcome, frame)
    return outcome


def _run(layer: Layer, maps: _Maps, outcome: Outcome, frame: npt.NDArray[np.uint8]) -> None:
    if layer.kind is LayerKind.MEAN:
        x = maps.load("residuals", layer.source, layer.in_size, layer.in_channels)
        outcome[layer.name] = maps.arrays["features"] = fixed.global_sum(x, layer.feature_shift)
        return
    if layer.kind is LayerKind.POOL:
        x = maps.load("residuals", layer.source, layer.in_size, layer.in_channels)
        outcome[layer.name] = fixed.average_2x2(x)
        maps.store("residuals", layer.destination, outcome[layer.name])
        return
    assert layer.weights is not None
    assert layer.params is not None
    residual = None
    match layer.kind:
        case LayerKind.STEM:
            assert layer.border is not None
            acc = convolve(frame.astype(np.int64), layer.weights, layer.stride, layer.border)
        case LayerKind.BINARY:
            x = maps.load("bits", layer.source, layer.in_size, layer.in_channels)
            acc = convolve(2 * x - 1, 2 * layer.weights - 1, layer.stride)
            residual = maps.load("residuals", layer.destination, layer.out_size, layer.out_channels)
        case LayerKind.POINTWISE:
            x = maps.load("residuals", layer.source, layer.in_size, layer.in_channels)
            acc = convolve(x, layer.weights, 1)
        case _:
            acc = (maps.arrays["features"] * layer.weights[:, :, 0, 0]).sum(axis=1)
            outcome[layer.name] = fixed.logits(acc, layer.params, layer.shifts)
            return
    x, bits = fixed.post_process(acc, residual, layer.params, layer.shifts)
    if layer.pooled:
        x, bits = max_pool(x), max_pool(bits)
    outcome[layer.name] = x
    maps.store("residuals", layer.destination, x)
    if layer.write_bits:
        outcome[f"{layer.name}.bits"] = bits
        maps.store("bits", layer.bits, bits)


def verification_frame(shape: tuple[int, int, int]) -> npt.NDArray[np.uint8]:
    """The frame that verification uses: noise on the left, a ramp on the right."""
    height, width, _ = shape
    frame = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    ramp = np.add.outer(np.linspace(0, 128, height), np.linspace(0, 127, width))
    frame[:, width // 2 :] = ramp[:, width // 2 :, None]
    return frame
