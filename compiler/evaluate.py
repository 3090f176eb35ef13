"""Plain evaluation of a folded network and of a program: what every level must compute.

An outcome maps the name of a layer to what it leaves behind: residuals (H, W, C), ``<name>.bits``
(H, W, C), of the mean the features (C,), of the classifier the logits (classes,).
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from compiler.ir import Layer, Program, Region, Size, ceil_div
from compiler.tile import uncut
from isa import fixed
from isa.fixed import IntArray
from isa.folding import FoldedNetwork
from isa.image import PacketType
from isa.layer import LayerKind

Outcome = dict[str, IntArray]
Frame = npt.NDArray[np.uint8]
NEVER_WRITTEN = -(1 << 40)  # spoils every sum that it gets into


def convolve(x: IntArray, weights: IntArray, stride: int, border: npt.ArrayLike = 0) -> IntArray:
    """x: (H, W, C), padded by kernel // 2 with ``border``; weights: (out, C, kernel, kernel)."""
    height, width, channels = x.shape
    kernel = weights.shape[2]
    pad = kernel // 2
    # In floats, which are exact for these integers, because numpy is fast there.
    largest = int(np.abs(weights).sum(axis=(1, 2, 3)).max()) * int(max(np.abs(x).max(), 255))
    number = np.float32 if largest < 1 << 24 else np.float64
    padded = np.empty((height + 2 * pad, width + 2 * pad, channels), number)
    padded[:] = border
    padded[pad : pad + height, pad : pad + width] = x
    # (H, W, C, kernel, kernel) as one matrix: many small products would cost more than the copy.
    windows = np.lib.stride_tricks.sliding_window_view(padded, (kernel, kernel), axis=(0, 1))
    windows = windows[::stride, ::stride]
    rows = windows.reshape(-1, weights[0].size) @ weights.reshape(len(weights), -1).T.astype(number)
    return rows.reshape(*windows.shape[:2], -1).astype(np.int64)


def max_pool(x: IntArray, above: IntArray | None = None) -> IntArray:
    """3x3 stride 2 over (H, W, C), borders ignored; H and W even. ``above``: the row before, if
    ``x`` are not the first rows."""
    height, width, _ = x.shape
    padded = np.pad(x, ((1, 0), (1, 0), (0, 0)), constant_values=np.iinfo(np.int64).min)
    if above is not None:
        padded[0, 1:] = above
    windows = [padded[r : r + height : 2, c : c + width : 2] for r in range(3) for c in range(3)]
    return np.asarray(np.max(windows, axis=0))


def numbered(packets: Iterable[PacketType]) -> list[tuple[int, int]]:
    """The order in which layers are computed, given what brings them: the number of each, and that
    of its frame. One frame, or, if stems are computed ahead, a second one whose own is."""
    known = list(enumerate(packets))
    order = [(index, int(packet is PacketType.AHEAD)) for index, packet in known]
    if any(frame for _, frame in order):
        order += [(index, 1) for index, packet in known if packet is PacketType.LAYER]
    return order


def join(outcome: Outcome, packet: PacketType, values: Mapping[str, IntArray]) -> None:
    """Adds what a layer, or a part of one, leaves behind: rows of stems ahead, else channels."""
    for name, value in values.items():
        if name in outcome:
            value = np.concatenate(
                [outcome[name], value], axis=0 if packet is PacketType.AHEAD else -1
            )
        outcome[name] = value


def evaluate_folded(folded: FoldedNetwork, frame: Frame) -> Outcome:
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


def evaluate_program(program: Program, frames: Sequence[Frame]) -> list[Outcome]:
    """Evaluates as much of the program as the passes have decided on: maps go through the memories
    once they are placed, weights are read back from the tiles once they are cut. As many frames as
    :func:`numbered` says, of those given."""
    maps = _Maps(program)
    order = numbered(layer.packet for layer in program.layers)
    outcomes: list[Outcome] = [{} for _ in range(1 + order[-1][1])]
    for index, frame in order:
        layer = program.layers[index]
        if layer.tiles is not None:
            layer = uncut(layer, program.geometry)
        join(outcomes[frame], layer.packet, _run(layer, maps, frames[frame]))
    return outcomes


def _run(layer: Layer, maps: _Maps, frame: Frame) -> Outcome:
    name = layer.name
    if layer.kind is LayerKind.MEAN:
        x = maps.load("residuals", layer.source, layer.in_size, layer.in_channels)
        maps.arrays["features"] = fixed.global_sum(x, layer.feature_shift)
        return {name: maps.arrays["features"]}
    if layer.kind is LayerKind.POOL:
        x = maps.load("residuals", layer.source, layer.in_size, layer.in_channels)
        x = fixed.average_2x2(x)
        maps.store("residuals", layer.destination, x)
        return {name: x}
    if layer.kind is LayerKind.STEM:
        if layer.begins:
            maps.arrays["stem"], maps.arrays["stem.bits"] = _stem(layer, frame)
        pool = 2 if layer.pooled else 1
        rows = slice(layer.first_row // pool, layer.first_row // pool + layer.map_size[0])
        x, bits = maps.arrays["stem"][rows], maps.arrays["stem.bits"][rows]
        maps.store("residuals", layer.destination, x)
        maps.store("bits", layer.bits, bits)
        return {name: x, f"{name}.bits": bits}
    assert layer.weights is not None
    assert layer.params is not None
    residual = None
    match layer.kind:
        case LayerKind.BINARY:
            x = maps.load("bits", layer.source, layer.in_size, layer.in_channels)
            acc = convolve(2 * x - 1, 2 * layer.weights - 1, layer.stride)
            residual = maps.load("residuals", layer.destination, layer.out_size, layer.out_channels)
        case LayerKind.POINTWISE:
            x = maps.load("residuals", layer.source, layer.in_size, layer.in_channels)
            acc = convolve(x, layer.weights, 1)
        case _:
            acc = (maps.arrays["features"] * layer.weights[:, :, 0, 0]).sum(axis=1)
            return {name: fixed.logits(acc, layer.params, layer.shifts)}
    x, bits = fixed.post_process(acc, residual, layer.params, layer.shifts)
    maps.store("residuals", layer.destination, x)
    if not layer.write_bits:
        return {name: x}
    maps.store("bits", layer.bits, bits)
    return {name: x, f"{name}.bits": bits}


def _stem(layer: Layer, frame: Frame) -> tuple[IntArray, IntArray]:
    """All rows of its maps."""
    assert layer.weights is not None
    assert layer.params is not None
    assert layer.border is not None
    acc = convolve(frame.astype(np.int64), layer.weights, layer.stride, layer.border)
    x, bits = fixed.post_process(acc, None, layer.params, layer.shifts)
    return (max_pool(x), max_pool(bits)) if layer.pooled else (x, bits)


def verification_frames(shape: tuple[int, int, int]) -> list[Frame]:
    """What verification uses: noise on the left, a ramp on the right; the same upside down."""
    height, width, _ = shape
    frame = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    ramp = np.add.outer(np.linspace(0, 128, height), np.linspace(0, 127, width))
    frame[:, width // 2 :] = ramp[:, width // 2 :, None]
    return [frame, frame[::-1]]
