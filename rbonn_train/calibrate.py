"""Scales of the residual stream: for a network trained elsewhere, and the best after training."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
from torch import Tensor

from isa.checkpoint import compact, read_checkpoint, write_checkpoint
from isa.network import Quantisation
from rbonn_train.checkpoint import load_model
from rbonn_train.data import batch_size, check_images, load_npz, to_tensor
from rbonn_train.network import BinaryNetwork
from rbonn_train.quant import PERCENTILE

BATCH = 250
CALIBRATION_IMAGES = 2000
# Training images that the last statistics of BN and the last scales come from.
STATISTICS_IMAGES = 20_000
SCALES_IMAGES = 7000
PERCENTILES = (99.5, 99.8, 99.9, 99.95, 99.99)


def calibrate(
    checkpoint: Path, images: Path | np.ndarray, out: Path, *, percentile: float = PERCENTILE
) -> Path:
    """Writes ``checkpoint`` with the scales that ``images`` call for to ``out``, and returns it.

    ``images``: uint8 N x H x W x C, or an npz file of such; a few hundred typical ones. Existing
    scales are replaced; metrics are dropped, as they no longer hold. Weights stay as they are.
    """
    info, tensors = read_checkpoint(checkpoint, calibrated=False)
    values = images if isinstance(images, np.ndarray) else load_npz(images)[0]
    check_images(values, info.network)
    if not len(values):
        raise ValueError("Images for calibration must be at least one, not none")
    quantisation = scales(load_model(info, tensors), to_tensor(values), percentile)
    info = dataclasses.replace(info, quantisation=quantisation, metrics={})
    write_checkpoint(out, info, {name: compact(value) for name, value in tensors.items()})
    return out


def scales(model: BinaryNetwork, images: Tensor, percentile: float) -> Quantisation:
    """Scales for the ranges that ``images``, N x C x H x W, cause in a model."""
    return model.calibrate(images.split(batch_size(model.network, BATCH)), percentile)


def settle(model: BinaryNetwork, sample: Callable[[int], Tensor]) -> Quantisation:
    """Estimates BN's statistics anew, with the rounding that the model has, and returns the best
    scales then. ``sample`` gives so many training images, N x C x H x W."""
    model.estimate_statistics(sample(STATISTICS_IMAGES))
    return best_scales(model, sample(SCALES_IMAGES))


def best_scales(model: BinaryNetwork, images: Tensor) -> Quantisation:
    """Among the model's present scales and those of :data:`PERCENTILES`, the scales under which its
    logits differ least (in the mean square) from those without rounding. ``images``: unlabelled
    training images, N x C x H x W; the first :data:`CALIBRATION_IMAGES` give the ranges."""
    present = model.quantisation
    first = images[:CALIBRATION_IMAGES]
    candidates = [scales(model, first, percentile) for percentile in PERCENTILES]
    if present is not None:
        candidates.insert(0, present)
    model.quantise(None)
    exact = model.logits(images)
    errors = []
    for candidate in candidates:
        model.quantise(candidate)
        errors.append((model.logits(images) - exact).square().mean().item())
    model.quantise(present)
    return candidates[int(np.argmin(errors))]
