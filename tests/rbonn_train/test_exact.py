"""Exact epochs in a run: what is trained is what is written and runs, and how they fail."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from isa.checkpoint import read_checkpoint
from isa.folding import fold_network
from isa.network import Quantisation
from rbonn_train import calibrate
from rbonn_train.config import ModelConfig
from rbonn_train.data import Dataset, to_tensor
from rbonn_train.deployed import Arithmetic
from rbonn_train.diagnose import TrainingError
from rbonn_train.integer import IntegerNetwork
from rbonn_train.loop import Trainer
from rbonn_train.network import BinaryNetwork

TOO_LARGE = "Layer blocks.1: Gain and offset must fit 16 and 32 bits at some shift, not "
NOT_FINITE = "tensor blocks.1.bn.weight must be finite"


def trainer(config: ModelConfig, dataset: Dataset, out: Path) -> Trainer:
    return Trainer(config, dataset, dataset, 0, out, progress=False)


@pytest.mark.parametrize("method", ["released", "bop2"])
def test_exact_epochs_train_what_runs(
    method: str, config: ModelConfig, dataset: Dataset, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    recipe = dataclasses.replace(config.recipe, method=method, exact_epochs=2)
    run = trainer(dataclasses.replace(config, recipe=recipe), dataset, tmp_path)
    settled: list[tuple[int, Quantisation | None, dict[str, Tensor]]] = []
    real = Trainer._settle

    def settle(self: Trainer, model: BinaryNetwork) -> None:
        real(self, model)
        tensors = {name: value.clone() for name, value in model.state_dict().items()}
        settled.append((self.at.epoch, model.quantisation, tensors))

    monkeypatch.setattr(Trainer, "_settle", settle)
    modes: list[tuple[Arithmetic, bool]] = []
    step = Trainer._step

    def watch(self: Trainer, *args: Any) -> bool:
        modes.append((self.module.arithmetic, self.model.training))
        return step(self, *args)

    monkeypatch.setattr(Trainer, "_step", watch)
    info, tensors = read_checkpoint(run.run())
    pair = [(Arithmetic.FLOAT, False), (Arithmetic.INTEGER, False)]
    assert modes == 3 * 8 * [(Arithmetic.MODULE, True)] + 2 * 4 * pair
    # Statistics and scales are those that both epochs began with; the weights are not.
    ((epoch, scales, before),) = settled
    assert epoch == 1
    assert info.quantisation == scales
    for name, value in run.model.state_dict().items():
        if name.endswith((".running_mean", ".running_var")):
            assert torch.equal(value, before[name])
    assert not torch.equal(run.model.fc.weight, before["fc.weight"])
    assert not torch.equal(run.model.stem.bn.weight, before["stem.bn.weight"])
    # What the trained module computes is what the checkpoint's integers are.
    integers = IntegerNetwork(fold_network(info, tensors))
    with torch.no_grad():
        assert run.module.arithmetic is Arithmetic.INTEGER
        logits = run.module(to_tensor(dataset.images))
    assert torch.equal(logits, integers(dataset.images) * integers.folded.classifier.lsb)
    assert info.metrics["accuracy_integer"] > 0.8


def test_an_odd_number_of_batches_has_its_turns(
    config: ModelConfig, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = dataclasses.replace(config.recipe, batch=256, exact_epochs=2)
    run = trainer(dataclasses.replace(config, recipe=recipe), dataset, tmp_path)
    step, seen = Trainer._step, []

    def watch(self: Trainer, *args: Any) -> bool:
        seen.append(self.module.arithmetic)
        return step(self, *args)

    monkeypatch.setattr(Trainer, "_step", watch)
    run.run()
    assert set(seen[3:]) == {Arithmetic.FLOAT, Arithmetic.INTEGER}


def test_statistics_are_settled_with_rounding(
    config: ModelConfig, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the first rounded epoch is exact, too: with the scales of the recipe's percentile."""
    real, found = BinaryNetwork.estimate_statistics, []

    def estimate(self: BinaryNetwork, images: Tensor) -> None:
        found.append(self.quantisation)
        real(self, images)

    monkeypatch.setattr(BinaryNetwork, "estimate_statistics", estimate)
    for percentile in (90.0, 99.95):
        recipe = dataclasses.replace(config.recipe, exact_epochs=2, percentile=percentile)
        run = trainer(dataclasses.replace(config, recipe=recipe), dataset, tmp_path)
        run.run()
    low, high = found
    assert low is not None
    assert high is not None
    assert low.lsb("stem") < high.lsb("stem")


def test_the_average_of_exact_epochs_has_statistics_of_its_own(
    config: ModelConfig, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibrate, "best_scales", lambda model, images: model.quantisation)
    recipe = dataclasses.replace(config.recipe, exact_epochs=1, ema=0.9)
    run = trainer(dataclasses.replace(config, recipe=recipe), dataset, tmp_path)
    run.run()
    mean = run.result.stem.bn.running_mean.clone()
    assert not torch.equal(mean, run.model.stem.bn.running_mean)
    run.result.estimate_statistics(to_tensor(dataset.images))
    assert torch.equal(mean, run.result.stem.bn.running_mean)


@pytest.mark.parametrize("ema", [0.0, 0.9])
@pytest.mark.parametrize(
    ("value", "batch", "after", "told"),
    [
        (1e30, 3 * 8 + 4, False, f"in step 2 2/3, batch 3: {TOO_LARGE}"),
        (torch.nan, 3 * 8 + 4, False, f"in step 2 2/3, batch 3: {NOT_FINITE}"),
        (1e7, 4 * 8, True, f"after step 2 2/3: {TOO_LARGE}"),
        (1e7, 5 * 8, True, f"after step 2 3/3: {TOO_LARGE}"),
    ],
)
def test_integers_that_hold_the_network_no_more(
    value: float, batch: int, after: bool, told: str, ema: float, config: ModelConfig,
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Before a batch of an exact epoch or after its last one; what was written before stays."""
    recipe = dataclasses.replace(config.recipe, exact_epochs=2, ema=ema)
    run = trainer(dataclasses.replace(config, recipe=recipe), dataset, tmp_path)
    real, calls = Trainer._step, 0

    def breaks(self: Trainer, *args: Any) -> bool:
        nonlocal calls
        calls += 1
        stop = after and real(self, *args)
        if calls == batch:
            for model in (self.model, self.result):
                with torch.no_grad():
                    model.get_parameter("blocks.1.bn.weight")[3] = value
        return stop if after else real(self, *args)

    monkeypatch.setattr(Trainer, "_step", breaks)
    with pytest.raises(TrainingError) as error:
        run.run()
    path = tmp_path / "corners.safetensors"
    assert str(error.value).startswith(f"Network must fit the accelerator's integers {told}")
    assert str(error.value).endswith(f"; last good checkpoint: {path}")
    fold_network(*read_checkpoint(path))


def test_a_network_that_does_not_fit_as_it_is_settled(
    config: ModelConfig, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = trainer(config, dataset, tmp_path)
    real = Trainer._settle

    def settle(self: Trainer, model: BinaryNetwork) -> None:
        real(self, model)
        with torch.no_grad():
            model.get_parameter("blocks.1.bn.weight")[3] = 1e7

    monkeypatch.setattr(Trainer, "_settle", settle)
    with pytest.raises(TrainingError) as error:
        run.run()
    start = f"Network must fit the accelerator's integers after step 2 3/3: {TOO_LARGE}"
    assert str(error.value).startswith(start)
    fold_network(*read_checkpoint(tmp_path / "corners.safetensors"))
