"""Two-step training, top to bottom.

Step 1 trains binary activations with real weights, step 2 RBONN weights that start from step 1.
In the last epochs of step 2 residuals and int8 weights are rounded as the accelerator does; after
them BN's statistics are estimated anew, rounding included, and the scales that change the logits
least, on training images, are kept. After each epoch of step 2 a calibrated checkpoint is written,
and beside it a report: configuration, seed, curve, metrics.
"""

import dataclasses
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save
from torch import nn
from tqdm import tqdm

from isa import fixed
from isa.checkpoint import write_atomically, write_json_atomically
from isa.network import CheckpointInfo, Quantisation
from rbonn_train.binary import Mode, RBONNConv2d, after_backward, after_step
from rbonn_train.calibrate import BATCH, CALIBRATION_IMAGES, best_scales
from rbonn_train.checkpoint import export_tensors, save_model
from rbonn_train.data import Dataset, augment, fit_images, load_split, to_tensor
from rbonn_train.evaluate import accuracy
from rbonn_train.network import BinaryNetwork
from rbonn_train.recipe import ModelConfig, Recipe, Step, load_model_yaml

# Training images that the last statistics of BN and the last scales come from.
STATISTICS_IMAGES = 20_000
SCALES_IMAGES = 7000


class TrainingError(RuntimeError):
    """Training that cannot go on."""


def train(
    model: str,
    *,
    epochs: int | None = None,
    seed: int = 0,
    out: Path | None = None,
    data: Path | None = None,
    progress: bool = True,
) -> Path:
    """Trains ``models/MODEL.yaml`` and returns the checkpoint, ``OUT/MODEL.safetensors``.

    ``epochs``: in all, shared between the steps as the recipe does; None: the recipe's own.
    ``out``: folder (default ``build/train``). ``data``: folder of the data set.
    """
    config = load_model_yaml(model)
    if epochs is not None:
        config = dataclasses.replace(config, recipe=config.recipe.with_epochs(epochs))
    datasets = []
    for split in ("train", "test"):
        dataset = load_split(split, data)
        datasets.append(Dataset(fit_images(dataset.images, config.network), dataset.labels))
    folder = out or Path("build/train")
    return Trainer(config, datasets[0], datasets[1], seed, folder, progress=progress).run()


class Trainer:
    """One run. ``train_set`` and ``test_set`` fit the network; see :func:`train`."""

    def __init__(
        self,
        config: ModelConfig,
        train_set: Dataset,
        test_set: Dataset,
        seed: int,
        out: Path,
        *,
        progress: bool = True,
    ) -> None:
        self.config, self.recipe, self.seed, self.progress = config, config.recipe, seed, progress
        self.images = to_tensor(train_set.images)
        self.labels = torch.from_numpy(train_set.labels)
        self.test_set = test_set
        self.test_images = to_tensor(test_set.images)
        self.test_labels = torch.from_numpy(test_set.labels)
        self.checkpoint = out / f"{config.network.name}.safetensors"
        self.curve: list[dict[str, Any]] = []
        self.random = torch.Generator().manual_seed(seed)
        self.border = torch.from_numpy(fixed.border_values(config.network.mean))
        self.saved = False

    def run(self) -> Path:
        """Both steps; the path of the checkpoint. Raises TrainingError where the loss is lost."""
        torch.manual_seed(self.seed)
        recipe = self.recipe
        first = BinaryNetwork(self.config.network, None)
        arrange(first)
        self._step("step 1", first, recipe.binary_activations, quantised=0)
        # Kept so that step 2 can be repeated without it.
        state = {name: value.contiguous() for name, value in first.state_dict().items()}
        write_atomically(self.checkpoint.with_suffix(".step1.safetensors"), save(state))
        second = binary_from_real(first, recipe)
        arrange(second)
        self._step("step 2", second, recipe.binary_weights, quantised=recipe.quantised_epochs)
        return self.checkpoint

    def _step(self, title: str, model: BinaryNetwork, step: Step, *, quantised: int) -> None:
        optimizer = make_optimizer(model, step, self.recipe.u_rate)
        iterations = max(1, step.epochs * self._batches())
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda i: 1 - i / iterations)
        for epoch in range(step.epochs):
            start = time.monotonic()
            if epoch >= step.epochs - quantised:
                model.quantise(self._calibrate(model))
            loss, correct = self._epoch(
                f"{title} {epoch + 1}/{step.epochs}", model, optimizer, schedule
            )
            self.curve.append(
                {
                    "step": title,
                    "epoch": epoch + 1,
                    "loss": round(loss, 5),
                    "train_accuracy": round(correct, 5),
                    "test_accuracy": self._test(model),
                    "quantised": model.quantisation is not None,
                    "seconds": round(time.monotonic() - start, 1),
                }
            )
            if self.progress:
                tqdm.write(f"{self.config.network.name} {self.curve[-1]}")
            if quantised and epoch + 1 == step.epochs:
                model.estimate_statistics(self.images[:STATISTICS_IMAGES])
                model.quantise(best_scales(model, self.images[:SCALES_IMAGES]))
            if quantised:
                self._save(model)

    def _epoch(
        self,
        title: str,
        model: BinaryNetwork,
        optimizer: torch.optim.Optimizer,
        schedule: torch.optim.lr_scheduler.LambdaLR,
    ) -> tuple[float, float]:
        """Mean loss and accuracy of one pass over the training set."""
        model.train()
        batches = torch.randperm(len(self.images), generator=self.random).split(self.recipe.batch)
        total, correct, seen = 0.0, 0, 0
        bar = tqdm(batches[: self._batches()], title, disable=not self.progress, mininterval=1.0)
        for number, index in enumerate(bar):
            recipe = self.recipe
            images = augment(
                self.images[index], self.border, recipe.flip, recipe.shift, self.random
            )
            labels = self.labels[index]
            logits = model(images.contiguous(memory_format=torch.channels_last))
            loss = nn.functional.cross_entropy(
                logits, labels, label_smoothing=recipe.label_smoothing
            )
            if not math.isfinite(loss.item()):
                kept = (
                    f"last good checkpoint: {self.checkpoint}" if self.saved else "none was saved"
                )
                raise TrainingError(
                    f"Loss must be finite, not {loss.item()} in {title}, batch {number}; {kept}"
                )
            optimizer.zero_grad()
            loss.backward()
            after_backward(model)
            optimizer.step()
            after_step(model)
            schedule.step()
            total += loss.item() * len(index)
            correct += int((logits.argmax(1) == labels).sum())
            seen += len(index)
            bar.set_postfix(loss=f"{total / seen:.3f}", accuracy=f"{correct / seen:.3f}")
        return total / seen, correct / seen

    def _calibrate(self, model: BinaryNetwork) -> Quantisation:
        sample = self.images[:CALIBRATION_IMAGES].split(BATCH)
        return model.calibrate(sample, self.recipe.percentile)

    def _batches(self) -> int:
        """Batches per epoch; the last, smaller one is left out unless it is the only one."""
        return max(1, len(self.images) // self.recipe.batch)

    def _save(self, model: BinaryNetwork) -> None:
        training = {
            "seed": self.seed,
            "recipe": dataclasses.asdict(self.recipe),
            "torch": torch.__version__,
            "curve": self.curve,
        }
        rounded = model.quantisation
        if rounded is None:  # an early epoch: usable, but not trained for its rounding
            model.quantise(self._calibrate(model))
        metrics = self._metrics(model)
        save_model(self.checkpoint, model, {**training, "curve": self.curve}, metrics)
        report = {
            "network": dataclasses.asdict(self.config.network),
            **training,
            "metrics": metrics,
        }
        write_json_atomically(self.checkpoint.with_suffix(".json"), report)
        model.quantise(rounded)
        self.saved = True

    def _metrics(self, model: BinaryNetwork) -> dict[str, Any]:
        """Accuracy on the test set: without rounding, with rounding simulated, in integers."""
        quantisation = model.quantisation
        simulated = self._test(model)
        model.quantise(None)
        plain = self._test(model)
        model.quantise(quantisation)
        info = CheckpointInfo(model.network, quantisation)
        tensors = {name: value.astype(np.float64) for name, value in export_tensors(model).items()}
        return {
            "images": len(self.test_labels),
            "accuracy_float": plain,
            "accuracy_simulated": simulated,
            "accuracy_integer": accuracy(info, tensors, self.test_set, "integer")["accuracy"],
        }

    def _test(self, model: BinaryNetwork) -> float:
        """Accuracy on the test set."""
        classes = model.logits(self.test_images).argmax(1)
        return round((classes == self.test_labels).double().mean().item(), 5)


def arrange(model: BinaryNetwork) -> None:
    """Lays the weights out as channels-last, which is a quarter faster on a CPU."""
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def binary_from_real(first: BinaryNetwork, recipe: Recipe) -> BinaryNetwork:
    """A network with RBONN weights that starts from the tensors of step 1."""
    mode = Mode(recipe.method)
    second = BinaryNetwork(first.network, mode, penalty=recipe.penalty, tau=recipe.tau)
    second.load_state_dict(first.state_dict(), strict=False)
    if mode is Mode.PAPER:
        for block in second.binary_blocks():
            assert isinstance(block.conv, RBONNConv2d)
            block.conv.reset_alpha()
    return second


def make_optimizer(model: nn.Module, step: Step, u_rate: float) -> torch.optim.Adam:
    """Adam in three groups: decayed weights, u at ``u_rate`` times the rate, and all others."""
    groups: dict[str, list[nn.Parameter]] = {"weight": [], "u": [], "other": []}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        if name.endswith(".conv.u"):
            groups["u"].append(parameter)
        elif name.endswith(("conv.weight", "fc.weight")):
            groups["weight"].append(parameter)
        else:
            groups["other"].append(parameter)
    rate = step.learning_rate
    options: list[dict[str, Any]] = [
        {"params": groups["weight"], "weight_decay": step.weight_decay},
        {"params": groups["u"], "lr": rate * u_rate},
        {"params": groups["other"]},
    ]
    return torch.optim.Adam(options, lr=rate)
