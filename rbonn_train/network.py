"""The PyTorch module of an :class:`isa.network.Network`.

Names of parameters are those of :func:`isa.network.tensor_shapes`. Input: images as N x C x H x W,
uint8 (or floats 0..255). With quantisation on, the module simulates the accelerator: residuals are
rounded, signs see the value before rounding, real-valued layers use int8 weights.
"""

import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional

from isa import fixed
from isa.network import BN_EPSILON, Block, Network, Quantisation
from rbonn_train.data import batch_size
from rbonn_train.methods import LayerMaker
from rbonn_train.methods.base import sign
from rbonn_train.quant import (
    PERCENTILE,
    ResidualPoint,
    choose_scales,
    fake_quantise_weight,
)

BATCH = 250
STATISTICS_LEAST, STATISTICS_MOST = 64, 500  # images of a batch


class RealConv2d(nn.Conv2d):
    """3x3 convolution with real weights on binary inputs: step 1 of the recipe."""

    def __init__(self, in_channels: int, out_channels: int, *, stride: int = 1) -> None:
        super().__init__(in_channels, out_channels, 3, stride, padding=1, bias=False)


class Stem(nn.Module):
    """Normalisation, padding, convolution, BN and perhaps max-pool.

    Zeros are padded after normalisation: the mean of the pixels. The accelerator pads pixels before
    it, with the rounded mean; simulated with the other roundings.
    """

    border: Tensor
    mean: Tensor
    std: Tensor

    def __init__(self, network: Network) -> None:
        super().__init__()
        stem = network.stem
        self.padding, self.pool = stem.padding, stem.pool
        self.quantised = False
        for name, values in (
            ("border", fixed.border_values(network.mean)),
            ("mean", network.mean),
            ("std", network.std),
        ):
            tensor = torch.as_tensor(values, dtype=torch.get_default_dtype()).view(1, -1, 1, 1)
            self.register_buffer(name, tensor, persistent=False)
        self.conv = nn.Conv2d(
            network.input_channels, network.widths[0], stem.kernel, stem.stride, bias=False
        )
        self.bn = nn.BatchNorm2d(network.widths[0], eps=BN_EPSILON)

    def forward(self, images: Tensor) -> Tensor:
        weight, padding = self.conv.weight, [self.padding] * 4
        x = images.to(self.mean.dtype)
        if self.quantised:  # the accelerator's weights have 1/std folded in
            x = functional.pad(x - self.border, padding) + self.border
            weight = fake_quantise_weight(weight / self.std) * self.std
        x = (x / 255 - self.mean) / self.std
        if not self.quantised:
            x = functional.pad(x, padding)
        y = self.bn(functional.conv2d(x, weight, stride=self.conv.stride))
        return functional.max_pool2d(y, 3, 2, padding=1) if self.pool else y


class Shortcut(nn.Module):
    """1x1 convolution and BN of the averaged residual; its output is a residual of its own."""

    def __init__(self, block: Block) -> None:
        super().__init__()
        self.quantised = False
        self.conv = nn.Conv2d(block.in_channels, block.out_channels, 1, bias=False)
        self.bn = nn.BatchNorm2d(block.out_channels, eps=BN_EPSILON)
        self.point = ResidualPoint()

    def forward(self, x: Tensor) -> Tensor:
        weight = fake_quantise_weight(self.conv.weight) if self.quantised else self.conv.weight
        return self.point(self.bn(functional.conv2d(x, weight)))


class BinaryBlock(nn.Module):
    """x -> +bias0 -> sign -> binary conv -> BN -> + shortcut(x) -> +bias1 -> PReLU -> +bias2."""

    def __init__(
        self, block: Block, conv: nn.Module, activation: Callable[[Tensor], Tensor]
    ) -> None:
        super().__init__()
        self.name, self.activation = block.name, activation
        cin, cout = block.in_channels, block.out_channels
        self.bias0 = nn.Parameter(torch.zeros(cin))
        self.conv = conv
        self.bn = nn.BatchNorm2d(cout, eps=BN_EPSILON)
        self.shortcut = Shortcut(block) if block.downsamples else None
        self.bias1 = nn.Parameter(torch.zeros(cout))
        self.prelu = nn.Parameter(torch.full((cout,), 0.25))
        self.bias2 = nn.Parameter(torch.zeros(cout))

    def forward(self, y: Tensor, x: Tensor, point: ResidualPoint) -> Tensor:
        """``y``: before rounding, for the sign; ``x``: the residual, whose ``point`` made it."""
        signs = self.signs(y)
        if self.shortcut is not None:
            x = self.shortcut(self.pooled(x, point))
        return self.join(signs, x)

    def signs(self, y: Tensor) -> Tensor:
        """The convolution's input."""
        return self.activation(y + self.bias0.view(-1, 1, 1))

    def pooled(self, x: Tensor, point: ResidualPoint) -> Tensor:
        """The shortcut's input."""
        return point.average(functional.avg_pool2d(x, 2))

    def join(self, signs: Tensor, x: Tensor) -> Tensor:
        """The output, before rounding; ``x``: what the shortcut made of the residual."""
        out = self.bn(self.conv(signs)) + x + self.bias1.view(-1, 1, 1)
        return functional.prelu(out, self.prelu) + self.bias2.view(-1, 1, 1)


def _identity(x: Tensor) -> Tensor:
    return x


class BinaryNetwork(nn.Module):
    """A whole network. ``make`` None: real weights in the binary convolutions (step 1), and with
    ``real`` real activations too (a teacher)."""

    def __init__(
        self, network: Network, make: LayerMaker | None = None, *, real: bool = False
    ) -> None:
        super().__init__()
        self.network = network
        self.quantisation: Quantisation | None = None
        self.stem = Stem(network)
        blocks = []
        for block in network.blocks():
            sizes = block.in_channels, block.out_channels
            conv = (make or RealConv2d)(*sizes, stride=block.stride)
            blocks.append(BinaryBlock(block, conv, _identity if real else sign))
        self.blocks = nn.ModuleList(blocks)
        self.points = nn.ModuleList(ResidualPoint() for _ in range(len(blocks) + 1))
        self.fc = nn.Linear(network.widths[-1], network.classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits N x classes."""
        return self.classify(self.residuals(images)[-1][1])

    @torch.no_grad()
    def logits(self, images: Tensor) -> Tensor:
        """Logits N x classes in evaluation mode, without gradients."""
        training = self.training
        self.eval()
        batches = images.split(batch_size(self.network, BATCH))
        logits = torch.cat([self(part) for part in batches])
        self.train(training)
        return logits

    @torch.no_grad()
    def estimate_statistics(self, images: Tensor, batch: int | None = None) -> None:
        """Replaces BN's moving averages by averages over all ``images``, with the weights and the
        rounding of inference; moving averages remember only the last few batches of training.
        ``batch``: the most images at a time, if not as many as fit into memory."""
        training = self.training
        self.eval()
        layers = [module for module in self.modules() if isinstance(module, nn.BatchNorm2d)]
        momenta = [layer.momentum for layer in layers]
        for layer in layers:
            layer.reset_running_stats()
            layer.momentum = None  # cumulative
            layer.train()
        # Batches count alike, so they must be of one size; small ones miss what images differ in.
        most = batch or max(STATISTICS_LEAST, batch_size(self.network, STATISTICS_MOST))
        for part in images.tensor_split(math.ceil(len(images) / most)):
            self(part)
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
        self.train(training)

    def residuals(self, images: Tensor) -> list[tuple[str, Tensor]]:
        """Name and residual map (rounded, if quantisation is on) of stem and every block."""
        points, source = self.residual_points(), "stem"
        y = self.stem(images)
        x = points[source](y)
        maps = [(source, x)]
        for block in self.binary_blocks():
            y = block(y, x, points[source])
            source = block.name
            x = points[source](y)
            maps.append((source, x))
        return maps

    def classify(self, x: Tensor) -> Tensor:
        weight = self.fc.weight
        if self.quantisation is not None:
            weight = fake_quantise_weight(weight)
        return functional.linear(x.mean(dim=(2, 3)), weight, self.fc.bias)

    def binary_blocks(self) -> list[BinaryBlock]:
        """The blocks, in order."""
        return [block for block in self.blocks if isinstance(block, BinaryBlock)]

    def residual_points(self) -> dict[str, ResidualPoint]:
        """The points of :meth:`isa.network.Network.residual_names`, in that order."""
        watched = [module for module in self.points if isinstance(module, ResidualPoint)]
        points = {"stem": watched[0]}
        for block, after in zip(self.binary_blocks(), watched[1:], strict=True):
            if block.shortcut is not None:
                points[f"{block.name}.shortcut"] = block.shortcut.point
            points[block.name] = after
        return points

    def quantise(self, quantisation: Quantisation | None) -> None:
        """Turns the simulation of the accelerator's rounding on (or, with None, off)."""
        self.quantisation = quantisation
        for name, point in self.residual_points().items():
            point.lsb = None if quantisation is None else quantisation.lsb(name)
        for module in self.modules():
            if isinstance(module, Stem | Shortcut):
                module.quantised = quantisation is not None

    @torch.no_grad()
    def calibrate(self, batches: Iterable[Tensor], percentile: float = PERCENTILE) -> Quantisation:
        """Scales for the ranges that ``batches`` of images cause, in evaluation mode, unrounded."""
        before, training = self.quantisation, self.training
        self.quantise(None)
        self.eval()
        points = self.residual_points()
        for point in points.values():
            point.watching = True
        for images in batches:
            self(images)
        for point in points.values():
            point.watching = False
        self.train(training)
        self.quantise(before)
        return choose_scales({name: p.percentile(percentile) for name, p in points.items()})
