"""What a run writes for others: the checkpoint, its metrics, and a report beside it."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from isa.checkpoint import write_atomically, write_json_atomically
from rbonn_train.checkpoint import save_model
from rbonn_train.deployed import fold
from rbonn_train.integer import IntegerNetwork
from rbonn_train.network import BinaryNetwork
from rbonn_train.page import render
from rbonn_train.source import Source
from rbonn_train.teacher import save_real


class Judge:
    """Images with labels that a network is measured on."""

    def __init__(self, source: Source, device: torch.device) -> None:
        self.source, self.device = source, device

    def accuracy(self, model: BinaryNetwork) -> float:
        """The share that the module, as it is, classifies as labelled."""
        return self._share(lambda images: model.logits(images.to(self.device)).cpu())

    def _share(self, logits: Callable[[Tensor], Tensor]) -> float:
        correct = 0
        for images, labels in self.source.pieces():
            correct += int((logits(images).argmax(1) == labels).sum())
        return round(correct / len(self.source.labels), 5)

    def metrics(self, model: BinaryNetwork) -> dict[str, Any]:
        """Accuracy without rounding, with rounding simulated, in integers."""
        quantisation = model.quantisation
        simulated = self.accuracy(model)
        model.quantise(None)
        plain = self.accuracy(model)
        model.quantise(quantisation)
        integers = IntegerNetwork(fold(model))
        return {
            "images": len(self.source.labels),
            "accuracy_float": plain,
            "accuracy_simulated": simulated,
            "accuracy_integer": self._share(lambda x: integers(x.permute(0, 2, 3, 1).numpy())),
        }


def write_real(
    path: Path, model: BinaryNetwork, training: Mapping[str, Any], metrics: Mapping[str, Any]
) -> None:
    """Writes a teacher, and beside it as JSON all that is known of its training."""
    save_real(path, model)
    network = dataclasses.asdict(model.network)
    report = {"network": network, **training, "metrics": metrics}
    write_json_atomically(path.with_suffix(".json"), report)


def write_results(
    checkpoint: Path,
    model: BinaryNetwork,
    training: Mapping[str, Any],
    metrics: Mapping[str, Any],
    layers: Sequence[Mapping[str, Any]],
) -> None:
    """Writes a calibrated model, CHECKPOINT.json with all that is known of its training, and that
    as a page, CHECKPOINT.html. ``layers``: what each epoch did to each binary layer."""
    save_model(checkpoint, model, training, metrics)
    network = dataclasses.asdict(model.network)
    report = {"network": network, **training, "metrics": metrics, "layers": layers}
    write_json_atomically(checkpoint.with_suffix(".json"), report)
    write_atomically(checkpoint.with_suffix(".html"), render(report, model).encode())
