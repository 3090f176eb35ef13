"""Seeded weights with realistic statistics, for networks without a trained checkpoint.

They classify nothing. They serve to measure time and to compare levels bit by bit: no residual is
dead, and none saturates.
"""

from pathlib import Path

import torch
from torch import Tensor, nn

from isa.checkpoint import write_checkpoint
from isa.network import UNTRAINED, CheckpointInfo, Network
from rbonn_train.checkpoint import export_tensors
from rbonn_train.methods import layer_maker
from rbonn_train.methods.base import ScaledConv2d
from rbonn_train.network import BinaryNetwork

IMAGES = 4  # smooth noise; enough for statistics over thousands of pixels a channel
IMAGES_OF_A_PIXEL = 64  # where the last map has a single pixel


def write_untrained(path: Path, network: Network, seed: int = 0) -> Path:
    """Writes a calibrated checkpoint of ``network`` with seeded weights, and returns its path."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = BinaryNetwork(network, layer_maker("plain"))
        _draw(model)
        images = _images(network)
        # Of one image alone a map of a single pixel has no variance.
        batch = len(images) if network.final_size == (1, 1) else 1
        model.estimate_statistics(images, batch)
        _balance(model, images)
        model.estimate_statistics(images, batch)
        quantisation = model.calibrate(images.split(1))
    info = CheckpointInfo(network, quantisation, training={UNTRAINED: seed})
    write_checkpoint(path, info, export_tensors(model))
    return path


@torch.no_grad()
def _draw(model: BinaryNetwork) -> None:
    """What training would have learned beside the weights; a few gammas are negative."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            sign = 1 - 2 * (torch.rand_like(module.weight) < 0.03).float()
            module.weight.copy_((0.5 + torch.rand_like(module.weight)) * sign)
            module.bias.normal_(0, 0.2)
        elif isinstance(module, ScaledConv2d):
            module.weight.normal_()
            module.set_alpha(0.01 + 0.02 * torch.rand(len(module.weight)))
    for block in model.binary_blocks():
        for bias in (block.bias0, block.bias1, block.bias2):
            bias.normal_(0, 0.2)
        block.prelu.uniform_(-0.05, 0.5)


@torch.no_grad()
def _balance(model: BinaryNetwork, images: Tensor) -> None:
    """Moves each block's first bias so that about half of the bits are set, as training does: what
    comes out of a max-pool is mostly positive."""
    maps = [x for _, x in model.residuals(images)]
    for block, x in zip(model.binary_blocks(), maps, strict=False):
        block.bias0.sub_(x.mean(dim=(0, 2, 3)))


def _images(network: Network) -> Tensor:
    """Images N x C x H x W, uint8: noise at three sizes, so that neighbours resemble each other."""
    height, width = network.input_size
    count = IMAGES_OF_A_PIXEL if network.final_size == (1, 1) else IMAGES
    total = torch.zeros(count, network.input_channels, height, width)
    for size in (4, 16, 64):
        noise = torch.randn(count, network.input_channels, size, size)
        total += nn.functional.interpolate(noise, (height, width), mode="bilinear")
    return (128 + 40 * total).clamp(0, 255).to(torch.uint8)
