"""Training of the network that will run: the accelerator's integers in the forward pass.

The rounding that :mod:`rbonn_train.quant` simulates is not all of it: BN becomes multipliers and
thresholds of 16 and 18 bits. However little that moves a sum, where it turns a sign it moves
thousands of sums behind it, and one or two images in a hundred change their class. Here the forward
pass is :class:`rbonn_train.integer.IntegerNetwork`, and nothing is left to change.
"""

import enum
from typing import Any

import torch
from torch import Tensor, nn

from isa.fixed import FixedPointError
from isa.folding import FoldedNetwork, fold_network
from isa.network import CheckpointInfo
from rbonn_train.checkpoint import export_tensors
from rbonn_train.diagnose import broken_tensor
from rbonn_train.integer import IntegerNetwork
from rbonn_train.network import BinaryNetwork


class _Instead(torch.autograd.Function):
    """``value``, with the gradient of ``x``."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, value: Tensor) -> Tensor:
        return value.to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0], None


class Arithmetic(enum.Enum):
    """How :class:`Deployed` computes its model."""

    MODULE = "as it is, with simulated rounding or without"
    FLOAT = "without rounding"
    INTEGER = "in the accelerator's integers"


class Deployed(nn.Module):
    """``model``, computed in one of three ways.

    Input: uint8 images N x C x H x W; output: logits N x classes, in real units. ``INTEGER`` needs
    a calibrated model in evaluation mode, whose statistics of BN the integers contain. Its
    gradients are those of the model with simulated rounding, each layer's at the exact values of
    the one before.
    """

    def __init__(self, model: BinaryNetwork) -> None:
        super().__init__()
        self.model = model
        self.arithmetic = Arithmetic.MODULE

    def forward(self, images: Tensor) -> Tensor:
        match self.arithmetic:
            case Arithmetic.MODULE:
                return self.model(images)
            case Arithmetic.FLOAT:
                return self._unrounded(images)
            case Arithmetic.INTEGER:
                return self._exact(images)

    def _unrounded(self, images: Tensor) -> Tensor:
        quantisation = self.model.quantisation
        self.model.quantise(None)
        try:
            return self.model(images)
        finally:
            self.model.quantise(quantisation)

    def _exact(self, images: Tensor) -> Tensor:
        assert not self.model.training
        model, folded = self.model, fold(self.model)
        lsb, points = folded.quantisation.lsb, model.residual_points()
        network = IntegerNetwork(folded, images.device)
        layers = network.layers(images.permute(0, 2, 3, 1).cpu().numpy())

        def exact(x: Tensor, unit: float) -> tuple[Tensor, Tensor | None]:
            """The next layer's output in place of the module's ``x``, and the signs after it."""
            _, maps = next(layers)
            bits = None if maps.bits is None else maps.bits.permute(0, 3, 1, 2)
            integers = maps.residual if x.ndim == 2 else maps.residual.permute(0, 3, 1, 2)
            return _Instead.apply(x, integers * unit), bits

        y, source = model.stem(images), "stem"
        x, bits = exact(points[source](y), lsb(source))
        for block in model.binary_blocks():
            assert bits is not None
            signs = _Instead.apply(block.signs(y), 2 * bits - 1)
            if block.shortcut is not None:
                x, _ = exact(block.pooled(x, points[source]), lsb(source))
                x, _ = exact(block.shortcut(x), lsb(f"{block.name}.shortcut"))
            y, source = block.join(signs, x), block.name
            x, bits = exact(points[source](y), lsb(source))
        return exact(model.classify(x), folded.classifier.lsb)[0]


def fold(model: BinaryNetwork) -> FoldedNetwork:
    """The integers of a calibrated model. Raises FixedPointError, naming a tensor that is not
    finite, else as :func:`isa.folding.fold_network`."""
    if (name := broken_tensor(model)) is not None:
        raise FixedPointError(f"{name} must be finite")
    info = CheckpointInfo(model.network, model.quantisation)
    return fold_network(info, export_tensors(model))
