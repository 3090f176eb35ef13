"""Inference from a checkpoint, in floating point or in the accelerator's integers."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from isa.checkpoint import FloatArray, read_checkpoint
from isa.folding import fold_network
from isa.network import CheckpointInfo
from rbonn_train.checkpoint import load_model
from rbonn_train.data import (
    CLASSES,
    DataError,
    Dataset,
    check_images,
    fit_images,
    load_split,
    to_tensor,
)
from rbonn_train.integer import IntegerNetwork, LayerMaps
from rbonn_train.network import BinaryNetwork

ARITHMETICS = ("float", "integer")
BATCH = 250


def predict(
    checkpoint: Path, images: np.ndarray, arith: str = "integer", *, layers: bool = False
) -> tuple[np.ndarray, dict[str, LayerMaps]]:
    """Logits N x classes of uint8 images N x H x W x C, and with ``layers`` every layer's maps.

    ``integer``: int64 logits in the accelerator's LSBs, maps of :meth:`IntegerNetwork.trace`.
    ``float``: the trained network without any rounding; float32 logits, and real residual maps
    without bits. Raises CheckpointError, DataError, ValueError.
    """
    check_arith(arith)
    info, tensors = read_checkpoint(checkpoint, calibrated=arith == "integer")
    check_images(images, info.network)
    if arith == "float":
        model = load_model(info, tensors)
        logits = model.logits(to_tensor(images)).numpy()
        return logits, _float_layers(model, images) if layers else {}
    network = IntegerNetwork(fold_network(info, tensors))
    if not layers:
        return network(images).numpy(), {}
    maps = network.trace(images)
    return maps["fc"].residual.numpy(), maps


def evaluate(
    checkpoint: Path, arith: str = "integer", data: Path | None = None, *, progress: bool = False
) -> dict[str, Any]:
    """``{"accuracy": ..., "images": ...}`` on the whole test set in the folder ``data``.

    Raises CheckpointError, and DataError for a network that tells other classes apart.
    """
    check_arith(arith)
    info, tensors = read_checkpoint(checkpoint, calibrated=arith == "integer")
    if info.network.classes != CLASSES:
        raise DataError(
            f"Network {info.network.name} must have the {CLASSES} classes of Fashion-MNIST, not "
            f"{info.network.classes}: measure it with `rbonn run` on labelled --images of its own"
        )
    test = load_split("test", data)
    images = fit_images(test.images, info.network)
    return accuracy(info, tensors, Dataset(images, test.labels), arith, progress=progress)


def accuracy(
    info: CheckpointInfo,
    tensors: dict[str, FloatArray],
    dataset: Dataset,
    arith: str,
    *,
    progress: bool = False,
) -> dict[str, Any]:
    """The share of ``dataset`` that the network classifies as labelled."""
    if arith == "float":
        model = load_model(info, tensors)
    else:
        network = IntegerNetwork(fold_network(info, tensors))
    correct = 0
    title = f"{info.network.name}, {arith}"
    for start in tqdm(range(0, len(dataset), BATCH), title, disable=not progress):
        images = dataset.images[start : start + BATCH]
        logits = model.logits(to_tensor(images)) if arith == "float" else network(images)
        classes = logits.numpy().argmax(axis=1)
        correct += int((classes == dataset.labels[start : start + BATCH]).sum())
    return {"accuracy": round(correct / len(dataset), 6), "images": len(dataset)}


def check_arith(arith: str) -> None:
    if arith not in ARITHMETICS:
        raise ValueError(f"Arithmetic must be one of {', '.join(ARITHMETICS)}, not {arith!r}")


@torch.no_grad()
def _float_layers(model: BinaryNetwork, images: np.ndarray) -> dict[str, LayerMaps]:
    maps = model.residuals(to_tensor(images))
    layers = {name: LayerMaps(value.permute(0, 2, 3, 1), None) for name, value in maps}
    logits: Tensor = model.classify(maps[-1][1])
    return layers | {"fc": LayerMaps(logits, None)}
