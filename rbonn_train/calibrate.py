"""Scales of the residual stream for a network that was trained elsewhere."""

import dataclasses
from pathlib import Path

import numpy as np

from rbonn_train.checkpoint import load_model, read_checkpoint, write_checkpoint
from rbonn_train.data import check_images, load_npz, to_tensor
from rbonn_train.quant import PERCENTILE

BATCH = 250


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
    model = load_model(info, tensors)
    quantisation = model.calibrate(to_tensor(values).split(BATCH), percentile)
    info = dataclasses.replace(info, quantisation=quantisation, metrics={})
    write_checkpoint(out, info, {name: compact(value) for name, value in tensors.items()})
    return out


def compact(value: np.ndarray) -> np.ndarray:
    """The same values in the smallest of int8, float32 and float64 that holds them exactly."""
    for dtype in (np.int8, np.float32):
        with np.errstate(invalid="ignore", over="ignore"):
            smaller = value.astype(dtype)
        if np.array_equal(smaller.astype(np.float64), value):
            return smaller
    return value
