"""The bit-exact integer network in PyTorch: what the accelerator computes, without its schedule.

Every parameter comes from :func:`isa.folding.fold_network`; formats and rounding are those of
:mod:`isa.fixed`, in int64 tensors. Convolutions of integers run in floating point where that is
exact: float32 where no sum can reach 2**24 (on CUDA 2**14), else float64.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from isa import fixed
from isa.fixed import Folded
from isa.folding import FoldedConv, FoldedNetwork
from rbonn_train.data import batch_size

FLOAT32_EXACT = 1 << 24
CUDA_FLOAT32_EXACT = 1 << 14  # fast algorithms of cuDNN round on the way, below half up to here
BATCH = 100


@dataclass(frozen=True)
class LayerMaps:
    """A layer's output: ``residual`` int64 and ``bits`` (0 or 1; None where no sign follows), both
    N x H x W x C. For ``fc``, ``residual`` holds the logits, N x classes."""

    residual: Tensor
    bits: Tensor | None


class _PostProcess:
    """Everything after a convolution, per channel; see :func:`isa.fixed.post_process`."""

    def __init__(self, folded: Folded, device: torch.device | str) -> None:
        self.shifts = folded.shifts
        names = ("m", "n", "slope", "bias2", "threshold")
        values = [getattr(folded.params, name).astype(np.int64) for name in names]
        tensors = [torch.from_numpy(v).to(device).view(1, -1, 1, 1) for v in values]
        self.m, self.n, self.slope, self.bias2, self.threshold = tensors

    def sum(self, acc: Tensor, residual: Tensor | None) -> Tensor:
        """round(p >> s), unsaturated; N x C x H x W."""
        p = saturate(round_shift(acc, self.shifts.a), fixed.ACC18_BITS) * self.m + self.n
        if residual is not None:
            p += residual << self.shifts.k
        return round_shift(p, self.shifts.s)

    def y(self, acc: Tensor, residual: Tensor | None) -> Tensor:
        """The value whose rounding is the residual and whose comparison is the sign bit."""
        t = saturate(self.sum(acc, residual), fixed.T_BITS)
        negative = saturate(round_shift(t * self.slope, fixed.SLOPE_FRACTION), fixed.T_BITS)
        return saturate(torch.where(t < 0, negative, t) + self.bias2, fixed.T_BITS)

    def bits(self, y: Tensor) -> Tensor:
        return (y >= self.threshold).to(torch.int64)


class IntegerNetwork:
    """Integer inference on a ``device``. Calls take uint8 images N x H x W x C, as in an image
    file."""

    def __init__(self, folded: FoldedNetwork, device: torch.device | str = "cpu") -> None:
        self.folded, self.device = folded, device
        convs = {folded.stem.name: folded.stem.folded}
        for block in folded.blocks:
            if block.shortcut is not None:
                convs[block.shortcut.name] = block.shortcut.folded
            convs[block.conv.name] = block.conv.folded
        self.post = {name: _PostProcess(value, device) for name, value in convs.items()}
        self.classifier = _PostProcess(folded.classifier.folded, device)

    def __call__(self, images: np.ndarray) -> Tensor:
        """Logits, int64 N x classes; their real value is ``folded.classifier.lsb`` times this."""
        batch = batch_size(self.folded.network, BATCH)
        parts = [self._last(images[i : i + batch]) for i in range(0, len(images), batch)]
        return torch.cat(parts)

    def _last(self, images: np.ndarray) -> Tensor:
        *_, (_, maps) = self.layers(images)
        return maps.residual

    def trace(self, images: np.ndarray) -> dict[str, LayerMaps]:
        """Every layer's maps in order of computation: ``stem`` (after its max-pool),
        ``blocks.i.pool`` and ``blocks.i.shortcut`` where the block downsamples, ``blocks.i``,
        ``fc``."""
        return dict(self.layers(images))

    @torch.no_grad()
    def layers(self, images: np.ndarray) -> Iterator[tuple[str, LayerMaps]]:
        """The items of :meth:`trace`, one by one."""
        pixels = torch.tensor(images.transpose(0, 3, 1, 2), device=self.device)
        y = self._stem(pixels.to(torch.int64))
        residual, bits = _residual(y), self.post["stem"].bits(y)
        yield "stem", _maps(residual, bits)
        for block in self.folded.blocks:
            name, operand = block.conv.name, residual
            if block.shortcut is not None:
                operand = average_2x2(residual)
                yield f"{name}.pool", _maps(operand, None)
                acc = exact_conv(operand, block.shortcut, stride=1, padding=0)
                operand = _residual(self.post[block.shortcut.name].y(acc, None))
                yield block.shortcut.name, _maps(operand, None)
            # Zero padding of +-1: a border pixel contributes nothing.
            acc = exact_conv(
                2 * bits - 1, block.conv, stride=block.block.stride, padding=1, binary=True
            )
            y = self.post[name].y(acc, operand)
            residual, bits = _residual(y), self.post[name].bits(y)
            yield name, _maps(residual, bits)
        yield "fc", LayerMaps(self._classify(residual), None)

    def _stem(self, images: Tensor) -> Tensor:
        """y of the stem, after the max-pool. The pool's residual is a maximum and its sign bit an
        OR: both follow from the maximum of y, as rounding and comparison are monotonous."""
        stem, form = self.folded.stem, self.folded.network.stem
        border = torch.from_numpy(stem.border).to(self.device).view(1, -1, 1, 1)
        padded = functional.pad(images - border, [form.padding] * 4) + border
        y = self.post["stem"].y(exact_conv(padded, stem, stride=form.stride, padding=0), None)
        if form.pool:  # exact in float32: 18 bits
            y = functional.max_pool2d(y.float(), 3, 2, padding=1).to(torch.int64)
        return y

    def _classify(self, residual: Tensor) -> Tensor:
        layer = self.folded.classifier
        features = round_shift(residual.sum(dim=(2, 3)), layer.feature_shift)
        weights = torch.from_numpy(layer.weights).to(self.device).double()
        acc = (features.double() @ weights.T).round().to(torch.int64)  # below 2**31
        logits = saturate(self.classifier.sum(acc[:, :, None, None], None), fixed.LOGIT_BITS)
        return logits[:, :, 0, 0]


def round_shift(x: Tensor, shift: int) -> Tensor:
    """x / 2**shift, rounded half up."""
    return x if shift == 0 else (x + (1 << (shift - 1))) >> shift


def saturate(x: Tensor, bits: int) -> Tensor:
    return x.clamp(*fixed.limits(bits))


def average_2x2(x: Tensor) -> Tensor:
    """N x C x H x W -> N x C x H/2 x W/2, rounded half up."""
    n, c, h, w = x.shape
    return round_shift(x.view(n, c, h // 2, 2, w // 2, 2).sum(dim=(3, 5)), 2)


def exact_conv(
    x: Tensor, layer: FoldedConv, *, stride: int, padding: int, binary: bool = False
) -> Tensor:
    """Convolution of int64 tensors. ``binary``: the weights are bits, 1 = +1 and 0 = -1."""
    exact = FLOAT32_EXACT if x.device.type == "cpu" else CUDA_FLOAT32_EXACT
    dtype = torch.float32 if layer.acc_bound < exact else torch.float64
    integers = 2 * layer.weights - 1 if binary else layer.weights
    weights = torch.from_numpy(integers).to(x.device, dtype)
    with torch.autocast(x.device.type, enabled=False):
        acc = functional.conv2d(x.to(dtype), weights, stride=stride, padding=padding)
    return acc.round().to(torch.int64)


def _residual(y: Tensor) -> Tensor:
    return saturate(round_shift(y, fixed.GUARD_BITS), fixed.RESIDUAL_BITS)


def _maps(residual: Tensor, bits: Tensor | None) -> LayerMaps:
    order = (0, 2, 3, 1)
    return LayerMaps(residual.permute(order), None if bits is None else bits.permute(order))
