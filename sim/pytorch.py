"""Compares every layer of the golden model with the integer PyTorch network, without tolerance.

The golden model executes the encoded image, in parts and ahead of time as its schedule has it; the
PyTorch network knows layers only. Here the parts are put together again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from isa.fixed import IntArray
from isa.layer import LayerKind
from rbonn_train.integer import LayerMaps as ExpectedMaps
from sim.golden import GoldenFrame
from sim.trace import LayerMaps, golden_maps

#: Layers without a map of pixels; their results end up in the logits.
VECTORS = (LayerKind.MEAN, LayerKind.CLASSIFIER)
LOGITS = "fc"  # the name of their layer in PyTorch


@dataclass(frozen=True)
class MapsComparison:
    """Values compared, how many differ, and the first difference of every layer that has one."""

    compared: int
    mismatches: int
    differences: tuple[str, ...]


def map_layers(frames: Sequence[GoldenFrame]) -> list[list[LayerMaps]]:
    """The layers with maps that computed each frame, of ``frames`` that followed each other: a stem
    that was computed ahead, after other layers of the frame before, belongs to its own frame."""
    found: list[list[LayerMaps]] = []
    ahead: list[LayerMaps] = []
    for frame in frames:
        layers, ahead = ahead, []
        for layer in golden_maps(frame):
            if layer.kind is LayerKind.STEM and any(x.kind is not LayerKind.STEM for x in layers):
                ahead.append(layer)
            elif layer.kind not in VECTORS:
                layers.append(layer)
        found.append(layers)
    return found


def compare_maps(
    number: int, layers: Sequence[LayerMaps], expected: Mapping[str, ExpectedMaps]
) -> MapsComparison:
    """Compares residuals and bits of frame ``number``; bits of channels that do not exist must be
    0. ``expected``: of that frame alone, as `IntegerNetwork.trace` has them."""
    compared = mismatches = 0
    differences: list[str] = []
    left = list(layers)
    names = [name for name in expected if name != LOGITS]
    for name in names:
        maps = expected[name]
        residual = maps.residual[0].numpy()
        found, found_bits = _take(left, residual.shape)
        pairs = {"residual": (residual, found[..., : residual.shape[-1]])}
        if maps.bits is not None and name != names[-1]:  # whose signs nothing reads
            pairs["bit"] = _padded(maps.bits[0].numpy(), found_bits), found_bits
        for what, (want, got) in pairs.items():
            compared += want.size
            where = f"Frame {number}, {name}, {what}"
            if got.shape != want.shape:
                mismatches += want.size
                differences.append(f"{where}: {want.shape} in PyTorch, {got.shape} in the image")
                continue
            wrong = np.argwhere(want != got)
            mismatches += len(wrong)
            for row, column, channel in wrong[:1].tolist():
                differences.append(
                    f"{where} at pixel ({row}, {column}), channel {channel}: "
                    f"{want[row, column, channel]} in PyTorch, {got[row, column, channel]} in the "
                    f"golden model"
                )
    if left:
        mismatches += len(left)
        differences.append(f"Frame {number}: {len(left)} layers in the image alone")
    return MapsComparison(compared, mismatches, tuple(differences))


def _take(left: list[LayerMaps], shape: tuple[int, ...]) -> tuple[IntArray, IntArray]:
    """Residuals and bits of the next layer, (H, W, C) with padding channels, removed from ``left``.
    Its parts are joined: first until they have all channels, then until they have all rows."""
    rows: list[tuple[IntArray, IntArray]] = []
    while left and sum(len(residual) for residual, _ in rows) < shape[0]:
        residuals: list[IntArray] = []
        bits: list[IntArray] = []
        while left and sum(part.shape[-1] for part in residuals) < shape[-1]:
            layer = left.pop(0)
            assert layer.residual is not None
            residuals.append(layer.residual)
            bits.append(np.zeros((0, 0, 0), np.int64) if layer.bits is None else layer.bits)
        rows.append((np.concatenate(residuals, -1), np.concatenate(bits, -1)))
    if not rows:
        return np.zeros((0, 0, 0), np.int64), np.zeros((0, 0, 0), np.int64)
    return np.concatenate([part for part, _ in rows]), np.concatenate([part for _, part in rows])


def _padded(bits: IntArray, like: IntArray) -> IntArray:
    """``bits`` with as many more channels, all 0, as ``like`` has."""
    return np.pad(bits, ((0, 0), (0, 0), (0, max(0, like.shape[-1] - bits.shape[-1]))))
