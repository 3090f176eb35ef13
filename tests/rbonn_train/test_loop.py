"""Training: that it learns, what it writes, and how it stops."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from isa.checkpoint import read_checkpoint
from rbonn_train import loop
from rbonn_train.binary import Mode, RBONNConv2d, after_backward, after_step
from rbonn_train.data import Dataset, to_tensor
from rbonn_train.evaluate import accuracy
from rbonn_train.loop import Trainer, TrainingError, binary_from_real, make_optimizer
from rbonn_train.network import BinaryNetwork
from rbonn_train.recipe import ModelConfig, Step


def trainer(config: ModelConfig, dataset: Dataset, out: Path, seed: int = 0) -> Trainer:
    return Trainer(config, dataset, dataset, seed, out, progress=False)


@pytest.mark.parametrize("mode", list(Mode))
def test_a_few_steps_lower_the_loss(mode: Mode, config: ModelConfig, dataset: Dataset) -> None:
    model = BinaryNetwork(config.network, mode)
    optimizer = make_optimizer(model, Step(1, 5e-3), 0.1)
    images, labels = to_tensor(dataset.images), torch.from_numpy(dataset.labels)
    losses = []
    for _ in range(25):
        loss = functional.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        after_backward(model)
        optimizer.step()
        after_step(model)
        losses.append(loss.item())
    assert losses[-1] < 0.6 * losses[0]
    assert losses[-1] < losses[12] < losses[0]


def test_a_run_learns_and_reports(config: ModelConfig, dataset: Dataset, tmp_path: Path) -> None:
    path = trainer(config, dataset, tmp_path, seed=5).run()
    assert path == tmp_path / "corners.safetensors"
    info, tensors = read_checkpoint(path)
    report = json.loads(path.with_suffix(".json").read_text())
    assert report["seed"] == info.training["seed"] == 5
    assert report["metrics"] == info.metrics
    assert report["recipe"]["batch"] == 32
    assert report["network"]["widths"] == [8, 16]
    curve = report["curve"]
    assert [(point["step"], point["epoch"]) for point in curve] == [
        ("step 1", 1), ("step 1", 2), ("step 2", 1), ("step 2", 2), ("step 2", 3),
    ]  # fmt: skip
    assert [point["quantised"] for point in curve] == [False, False, False, True, True]
    metrics = info.metrics
    assert metrics["images"] == 256
    assert metrics["accuracy_integer"] > 0.9
    assert abs(metrics["accuracy_simulated"] - curve[-1]["test_accuracy"]) < 0.02
    assert abs(metrics["accuracy_integer"] - metrics["accuracy_simulated"]) < 0.02
    for arith in ("float", "integer"):
        again = accuracy(info, tensors, dataset, arith)["accuracy"]
        assert again == pytest.approx(metrics[f"accuracy_{arith}"], abs=1e-4)
    assert tmp_path.joinpath("corners.step1.safetensors").is_file()


def test_a_seed_fixes_the_run(config: ModelConfig, dataset: Dataset, tmp_path: Path) -> None:
    files = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        path = trainer(config, dataset, tmp_path / name, seed).run()
        files.append(read_checkpoint(path)[1])
    first, same, other = files
    assert all(np.array_equal(first[name], same[name]) for name in first)
    assert not np.array_equal(first["fc.weight"], other["fc.weight"])


def test_a_lost_loss_stops_with_its_place(
    config: ModelConfig, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = functional.cross_entropy, 0

    def breaks(*args: torch.Tensor, **options: float) -> torch.Tensor:
        nonlocal calls
        calls += 1
        return real(*args, **options) * (torch.nan if calls == 3 * 8 + 3 else 1)

    monkeypatch.setattr(loop.nn.functional, "cross_entropy", breaks)
    with pytest.raises(TrainingError) as error:
        trainer(config, dataset, tmp_path).run()
    path = tmp_path / "corners.safetensors"
    assert str(error.value) == (
        f"Loss must be finite, not nan in step 2 2/3, batch 2; last good checkpoint: {path}"
    )
    read_checkpoint(path)
    calls = 3 * 8
    with pytest.raises(TrainingError, match=r"not nan in step 1 1/2, batch 2; none was saved"):
        trainer(config, dataset, tmp_path / "new").run()


def test_step_2_starts_from_step_1(config: ModelConfig) -> None:
    first = BinaryNetwork(config.network, None)
    recipe = dataclasses.replace(config.recipe, method="paper", penalty=0.5, tau=0.7)
    second = binary_from_real(first, recipe)
    for name, value in first.state_dict().items():
        assert torch.equal(second.state_dict()[name], value), name
    for block in second.binary_blocks():
        layer = block.conv
        assert isinstance(layer, RBONNConv2d)
        assert (layer.mode, layer.penalty, layer.tau) == (Mode.PAPER, 0.5, 0.7)
        torch.testing.assert_close(layer.alpha, layer.weight.abs().mean(dim=(1, 2, 3)))


def test_groups_of_the_optimizer(config: ModelConfig) -> None:
    model = BinaryNetwork(config.network, Mode.RELEASED)
    groups = make_optimizer(model, Step(1, 0.02, 1e-5), 0.1).param_groups
    names = {parameter: name for name, parameter in model.named_parameters()}
    weights, u, others = ([names[p] for p in group["params"]] for group in groups)
    assert u == ["blocks.0.conv.u", "blocks.1.conv.u"]
    assert set(weights) == {
        "stem.conv.weight",
        "blocks.0.conv.weight",
        "blocks.1.conv.weight",
        "blocks.1.shortcut.conv.weight",
        "fc.weight",
    }
    assert len(weights) + len(u) + len(others) == len(names)
    assert [group["lr"] for group in groups] == [0.02, pytest.approx(0.002), 0.02]
    assert [group["weight_decay"] for group in groups] == [1e-5, 0, 0]


def test_train_reads_the_data_and_shares_the_epochs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)

    def load(split: str, data: Path | None) -> Dataset:
        assert data == tmp_path
        count = {"train": 300, "test": 60}[split]
        images = rng.integers(0, 256, (count, 28, 28, 1), np.uint8)
        return Dataset(images, rng.integers(0, 10, count))

    monkeypatch.setattr(loop, "load_split", load)
    path = loop.train("tiny", epochs=2, seed=7, out=tmp_path, data=tmp_path, progress=False)
    info, _ = read_checkpoint(path)
    assert info.metrics["images"] == 60
    assert info.training["seed"] == 7
    assert [point["epoch"] for point in info.training["curve"]] == [1, 1]
    path = loop.train("tiny", epochs=1, out=tmp_path, data=tmp_path, progress=False)
    assert [point["step"] for point in read_checkpoint(path)[0].training["curve"]] == ["step 2"]
