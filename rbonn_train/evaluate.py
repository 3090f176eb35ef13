"""Inference from a checkpoint, in floating point or in the accelerator's integers."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from isa.checkpoint import FloatArray, read_checkpoint
from isa.folding import fold_network
from isa.network import CheckpointInfo, Network
from rbonn_train.checkpoint import load_model
from rbonn_train.data import (
    CLASSES,
    DataError,
    Dataset,
    Images,
    check_images,
    fit_images,
    load_split,
    to_tensor,
)
from rbonn_train.integer import IntegerNetwork, LayerMaps
from rbonn_train.network import BinaryNetwork

ARITHMETICS = ("float", "integer")
BATCH = 250

Logits = Callable[[Images], Tensor]
"""From uint8 images N x H x W x C to N x classes."""


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
    return accuracy(info, tensors, _test_set(info.network, data), arith, progress=progress)


def rounding(
    checkpoint: Path, data: Path | None = None, *, progress: bool = False
) -> dict[str, Any]:
    """What rounding does to the classes of the whole test set in the folder ``data``.

    ``images``; the accuracies ``float``, ``simulated`` (in PyTorch's float32) and ``integer``; and
    for ``float_to_integer`` and ``simulated_to_integer`` how many images are ``changed`` in their
    class, ``lost`` and ``won`` for the right one. Raises as :func:`evaluate`.
    """
    info, tensors = read_checkpoint(checkpoint)
    test = _test_set(info.network, data)
    model, integers = load_model(info, tensors), IntegerNetwork(fold_network(info, tensors))

    def classes(name: str, logits: Logits) -> np.ndarray:
        return _classes(logits, test.images, f"{info.network.name}, {name}", progress=progress)

    found = {"float": classes("float", _module_logits(model))}
    model.quantise(info.quantisation)
    found["simulated"] = classes("simulated", _module_logits(model))
    found["integer"] = classes("integer", integers)
    right = {name: chosen == test.labels for name, chosen in found.items()}

    def change(a: str, b: str) -> dict[str, int]:
        masks = {
            "changed": found[a] != found[b],
            "lost": right[a] & ~right[b],
            "won": ~right[a] & right[b],
        }
        return {name: int(mask.sum()) for name, mask in masks.items()}

    return {
        "images": len(test),
        **{name: round(float(hits.mean()), 6) for name, hits in right.items()},
        "float_to_integer": change("float", "integer"),
        "simulated_to_integer": change("simulated", "integer"),
    }


def _test_set(network: Network, data: Path | None) -> Dataset:
    if network.classes != CLASSES:
        raise DataError(
            f"Network {network.name} must have the {CLASSES} classes of Fashion-MNIST, not "
            f"{network.classes}: measure it with `rbonn run` on labelled --images of its own"
        )
    test = load_split("test", data)
    return Dataset(fit_images(test.images, network), test.labels)


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
        logits = _module_logits(load_model(info, tensors))
    else:
        logits = IntegerNetwork(fold_network(info, tensors))
    title = f"{info.network.name}, {arith}"
    right = _classes(logits, dataset.images, title, progress=progress) == dataset.labels
    return {"accuracy": round(float(right.mean()), 6), "images": len(dataset)}


def _module_logits(model: BinaryNetwork) -> Logits:
    return lambda images: model.logits(to_tensor(images))


def _classes(logits: Logits, images: Images, title: str, *, progress: bool) -> np.ndarray:
    """The class of each image; a progress bar with a title."""
    starts = tqdm(range(0, len(images), BATCH), title, disable=not progress)
    found = [logits(images[start : start + BATCH]).numpy().argmax(axis=1) for start in starts]
    return np.concatenate(found)


def check_arith(arith: str) -> None:
    if arith not in ARITHMETICS:
        raise ValueError(f"Arithmetic must be one of {', '.join(ARITHMETICS)}, not {arith!r}")


@torch.no_grad()
def _float_layers(model: BinaryNetwork, images: np.ndarray) -> dict[str, LayerMaps]:
    maps = model.residuals(to_tensor(images))
    layers = {name: LayerMaps(value.permute(0, 2, 3, 1), None) for name, value in maps}
    logits: Tensor = model.classify(maps[-1][1])
    return layers | {"fc": LayerMaps(logits, None)}
