"""What a run writes for others: the checkpoint, its metrics, and a report beside it."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from isa.checkpoint import write_json_atomically
from isa.network import CheckpointInfo
from rbonn_train.checkpoint import export_tensors, save_model
from rbonn_train.data import Dataset
from rbonn_train.evaluate import accuracy
from rbonn_train.network import BinaryNetwork


class Judge:
    """Images with labels that a network is measured on."""

    def __init__(self, dataset: Dataset, images: Tensor) -> None:
        self.dataset, self.images = dataset, images
        self.labels = torch.from_numpy(dataset.labels).to(images.device)

    def accuracy(self, model: BinaryNetwork) -> float:
        """The share that the module, as it is, classifies as labelled."""
        classes = model.logits(self.images).argmax(1)
        return round((classes == self.labels).double().mean().item(), 5)

    def metrics(self, model: BinaryNetwork) -> dict[str, Any]:
        """Accuracy without rounding, with rounding simulated, in integers."""
        quantisation = model.quantisation
        simulated = self.accuracy(model)
        model.quantise(None)
        plain = self.accuracy(model)
        model.quantise(quantisation)
        info = CheckpointInfo(model.network, quantisation)
        tensors = {name: value.astype(np.float64) for name, value in export_tensors(model).items()}
        return {
            "images": len(self.dataset),
            "accuracy_float": plain,
            "accuracy_simulated": simulated,
            "accuracy_integer": accuracy(info, tensors, self.dataset, "integer")["accuracy"],
        }


def write_results(
    checkpoint: Path,
    model: BinaryNetwork,
    training: Mapping[str, Any],
    metrics: Mapping[str, Any],
    layers: Sequence[Mapping[str, Any]],
) -> None:
    """Writes a calibrated model, and CHECKPOINT.json with all that is known of its training;
    ``layers``: what each epoch did to each binary layer."""
    save_model(checkpoint, model, training, metrics)
    network = dataclasses.asdict(model.network)
    report = {"network": network, **training, "metrics": metrics, "layers": layers}
    write_json_atomically(checkpoint.with_suffix(".json"), report)
