"""Training: that it learns, what it writes, and how it stops."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from isa.checkpoint import read_checkpoint
from isa.network import Quantisation
from rbonn_train import calibrate
from rbonn_train.calibrate import best_scales
from rbonn_train.checkpoint import export_tensors, load_model
from rbonn_train.config import ModelConfig
from rbonn_train.data import DataError, Dataset, to_tensor
from rbonn_train.diagnose import TrainingError
from rbonn_train.evaluate import accuracy
from rbonn_train.loop import Trainer
from rbonn_train.methods import METHODS, layer_maker
from rbonn_train.methods.base import binary_layers
from rbonn_train.methods.rbonn import RELEASED_U, Mode, RBONNConv2d
from rbonn_train.network import BinaryNetwork
from rbonn_train.optim import make_optimizer, update
from rbonn_train.phases import binary_from_real
from rbonn_train.recipe import Step


def trainer(config: ModelConfig, dataset: Dataset, out: Path, seed: int = 0) -> Trainer:
    return Trainer(config, dataset, dataset, seed, out, progress=False)


@pytest.mark.parametrize("method", METHODS)
def test_a_few_steps_lower_the_loss(method: str, config: ModelConfig, dataset: Dataset) -> None:
    model = BinaryNetwork(config.network, layer_maker(method))
    optimizer = make_optimizer(model, Step(1, 5e-3), 0.1)
    images, labels = to_tensor(dataset.images), torch.from_numpy(dataset.labels)
    losses = []
    for _ in range(25):
        loss = functional.cross_entropy(model(images), labels)
        update(model, optimizer, loss)
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
    assert abs(metrics["accuracy_simulated"] - curve[-1]["test_accuracy"]) < 0.05
    assert abs(metrics["accuracy_integer"] - metrics["accuracy_simulated"]) < 0.02
    for arith in ("float", "integer"):
        again = accuracy(info, tensors, dataset, arith)["accuracy"]
        assert again == pytest.approx(metrics[f"accuracy_{arith}"], abs=1e-4)
    assert {file.name.removeprefix("corners.") for file in tmp_path.iterdir()} == {
        "safetensors", "json", "html", "csv", "step1.safetensors", "tensorboard",
    }  # fmt: skip


@pytest.mark.parametrize(
    "changes",
    [
        {"precision": "bfloat16"},
        {"ema": 0.9},
        {"clip": 0.1, "label_smoothing": 0.1},
        {"binary_activations": Step(0), "method": "bop"},
    ],
    ids=str,
)
def test_recipes_learn(
    changes: dict[str, object], config: ModelConfig, dataset: Dataset, tmp_path: Path
) -> None:
    plain = read_checkpoint(trainer(config, dataset, tmp_path / "plain").run())[1]
    changed = dataclasses.replace(config, recipe=dataclasses.replace(config.recipe, **changes))
    info, tensors = read_checkpoint(trainer(changed, dataset, tmp_path).run())
    assert info.metrics["accuracy_integer"] > 0.8
    assert not np.array_equal(tensors["fc.weight"], plain["fc.weight"])


def test_without_simulated_rounding_scales_are_calibrated(
    config: ModelConfig, dataset: Dataset, tmp_path: Path
) -> None:
    recipe = dataclasses.replace(config.recipe, quantised_epochs=0)
    run = trainer(dataclasses.replace(config, recipe=recipe), dataset, tmp_path)
    info, _ = read_checkpoint(run.run())  # refuses one without scales
    assert not any(epoch["quantised"] for epoch in run.at.curve)
    assert info.metrics["accuracy_integer"] > 0.8


def test_clipping_bounds_gradients(config: ModelConfig, dataset: Dataset, tmp_path: Path) -> None:
    recipe = dataclasses.replace(config.recipe, clip=1e-3)
    run = trainer(dataclasses.replace(config, recipe=recipe), dataset, tmp_path)
    run.model.train()
    run._step(to_tensor(dataset.images[:32]), torch.from_numpy(dataset.labels[:32]), "here")
    grads = [p.grad.flatten() for p in run.model.parameters() if p.grad is not None]
    assert torch.cat(grads).norm().item() == pytest.approx(1e-3, rel=1e-2)


def test_a_seed_fixes_the_run(config: ModelConfig, dataset: Dataset, tmp_path: Path) -> None:
    files = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        path = trainer(config, dataset, tmp_path / name, seed).run()
        files.append(read_checkpoint(path)[1])
    first, same, other = files
    assert all(np.array_equal(first[name], same[name]) for name in first)
    assert not np.array_equal(first["fc.weight"], other["fc.weight"])


def test_a_lost_loss_stops_with_its_place_and_layer(
    config: ModelConfig, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = trainer(config, dataset, tmp_path)
    real, calls = Trainer._step, 0

    def breaks(self: Trainer, *args: Any) -> bool:
        nonlocal calls
        if (calls := calls + 1) == 3 * 8 + 3:
            with torch.no_grad():
                self.model.get_parameter("blocks.1.bn.weight")[3] = torch.nan
        return real(self, *args)

    monkeypatch.setattr(Trainer, "_step", breaks)
    with pytest.raises(TrainingError) as error:
        run.run()
    path = tmp_path / "corners.safetensors"
    assert str(error.value) == (
        f"Loss must be finite, not nan in step 2 2/3, batch 2, at tensor blocks.1.bn.weight; "
        f"last good checkpoint: {path}"
    )
    read_checkpoint(path)
    calls = 3 * 8
    with pytest.raises(TrainingError, match=r"not nan in step 1 1/2, batch 2, .*; none was saved"):
        trainer(config, dataset, tmp_path / "new").run()


@pytest.mark.parametrize("ema", [0.0, 0.9])
@pytest.mark.parametrize(
    ("method", "epoch", "place", "kept"),
    [
        ("released", 2, "step 1 2/2", "corners.safetensors stays as it was"),
        ("released", 4, "step 2 2/3", "last good checkpoint: corners.safetensors"),
        ("released", 5, "step 2 3/3", "last good checkpoint: corners.safetensors"),
        ("real", 5, "real 5/5", "corners.real.safetensors stays as it was"),
    ],
)
def test_nothing_broken_by_the_last_batch_of_an_epoch_is_written(
    method: str, epoch: int, place: str, kept: str, ema: float, config: ModelConfig,
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    recipe = dataclasses.replace(config.recipe, method=method, ema=ema)
    config = dataclasses.replace(config, recipe=recipe)
    trainer(config, dataset, tmp_path).run()
    real, calls = Trainer._step, 0
    before: dict[str, bytes] = {}

    def breaks(self: Trainer, *args: Any) -> bool:
        nonlocal calls
        stop = real(self, *args)
        if (calls := calls + 1) == 8 * epoch:
            with torch.no_grad():
                self.model.get_parameter("blocks.1.bn.weight")[3] = torch.nan
            before.update({path.name: path.read_bytes() for path in tmp_path.glob("corners.*")})
        return stop

    monkeypatch.setattr(Trainer, "_step", breaks)
    with pytest.raises(TrainingError) as error:
        trainer(config, dataset, tmp_path).run()
    assert str(error.value).replace(f"{tmp_path}/", "") == (
        f"Network must be finite, not NaN or infinite after {place}, at tensor "
        f"blocks.1.bn.weight; {kept}"
    )
    assert {path.name: path.read_bytes() for path in tmp_path.glob("corners.*")} == before
    expected = {"real": "corners.real.safetensors"}.get(method, "corners.step1.safetensors")
    assert expected in before


@pytest.mark.parametrize("method", ["released", "real"])
def test_weights_that_are_finite_but_overflow(
    method: str, config: ModelConfig, dataset: Dataset, tmp_path: Path
) -> None:
    """No loss shows what the only batch of an epoch did."""
    steps = Step(0, 1e25), Step(2, 1e25)
    recipe = dataclasses.replace(
        config.recipe, binary_activations=steps[0], binary_weights=steps[1], batch=256,
        method=method,
    )  # fmt: skip
    with pytest.raises(TrainingError) as error:
        trainer(dataclasses.replace(config, recipe=recipe), dataset, tmp_path).run()
    place = {"real": "real", "released": "step 2"}[method]
    assert str(error.value) == (
        f"Network must be finite, not NaN or infinite after {place} 1/2, at layer stem.bn; none "
        f"was saved"
    )
    made = {path.name for path in tmp_path.iterdir()}
    assert made <= {"corners.step1.safetensors"}


@pytest.mark.parametrize(("u_rate", "moves"), [(0.0, False), (1.0, True)])
def test_u_learns_at_its_own_rate(
    u_rate: float, moves: bool, config: ModelConfig, dataset: Dataset, tmp_path: Path
) -> None:
    recipe = dataclasses.replace(
        config.recipe, binary_activations=Step(0), binary_weights=Step(1, 2e-2),
        quantised_epochs=0, u_rate=u_rate,
    )  # fmt: skip
    run = trainer(dataclasses.replace(config, recipe=recipe), dataset, tmp_path)
    run.run()
    for layer in binary_layers(run.model):
        assert isinstance(layer, RBONNConv2d)
        assert bool((layer.u != RELEASED_U).any()) is moves


def test_layers_know_how_much_of_the_step_lies_behind(
    config: ModelConfig, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bop's gamma falls from epoch to epoch of step 2, in every layer."""
    recipe = dataclasses.replace(
        config.recipe, binary_activations=Step(1), binary_weights=Step(3), quantised_epochs=0,
        method="bop", options={"gamma": 0.1},
    )  # fmt: skip
    real, seen = Trainer._step, []

    def step(self: Trainer, *args: Any) -> bool:
        seen.append([layer.gamma for layer in binary_layers(self.model)])
        return real(self, *args)

    monkeypatch.setattr(Trainer, "_step", step)
    trainer(dataclasses.replace(config, recipe=recipe), dataset, tmp_path).run()
    gammas = [pytest.approx([gamma] * 2) for gamma in (0.1, 0.067, 0.034) for _ in range(8)]
    assert seen == [[]] * 8 + gammas  # step 1 has no such layers


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_the_best_scales_are_kept(
    ema: float, config: ModelConfig, dataset: Dataset, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    recipe = dataclasses.replace(config.recipe, binary_weights=Step(1), quantised_epochs=1, ema=ema)
    run = trainer(dataclasses.replace(config, recipe=recipe), dataset, tmp_path)
    marked: list[Quantisation] = []

    def best(model: BinaryNetwork, images: Tensor) -> Quantisation:
        assert model is run.result
        assert torch.equal(images, to_tensor(dataset.images))
        found = best_scales(model, images)
        marked.append(dataclasses.replace(found, scale=1.25 * found.scale))
        return marked[-1]

    monkeypatch.setattr(calibrate, "best_scales", best)
    info, _ = read_checkpoint(run.run())
    assert marked == [info.quantisation]


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_the_last_statistics_are_those_of_all_training_images(
    ema: float, config: ModelConfig, dataset: Dataset, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    # The scales under which they were estimated are the ones that the checkpoint has.
    monkeypatch.setattr(calibrate, "best_scales", lambda model, images: model.quantisation)
    recipe = dataclasses.replace(config.recipe, binary_weights=Step(1), quantised_epochs=1, ema=ema)
    run = trainer(dataclasses.replace(config, recipe=recipe), dataset, tmp_path)
    info, tensors = read_checkpoint(run.run())
    model = load_model(info, tensors)
    model.quantise(info.quantisation)
    model.estimate_statistics(to_tensor(dataset.images))
    expected = export_tensors(model)
    names = [name for name in tensors if name.endswith((".running_mean", ".running_var"))]
    assert len(names) == 2 * 4
    for name in names:
        np.testing.assert_allclose(tensors[name], expected[name], rtol=1e-3, atol=1e-3)


def test_labels_are_checked(config: ModelConfig, dataset: Dataset, tmp_path: Path) -> None:
    kept = dataset.labels != 2
    missing = Dataset(dataset.images[kept], dataset.labels[kept])
    with pytest.raises(DataError) as error:
        trainer(config, missing, tmp_path)
    assert str(error.value) == "Class 2 of the training set must have at least one image"
    Trainer(config, dataset, missing, 0, tmp_path, progress=False)  # a test set may miss one
    with pytest.raises(DataError, match="Labels of the training set must be 0 to 3, not 1 to 4"):
        trainer(config, Dataset(dataset.images, dataset.labels + 1), tmp_path)
    with pytest.raises(DataError, match="The training set must have at least one image"):
        trainer(config, dataset.take(0), tmp_path)


def test_step_2_starts_from_step_1(config: ModelConfig) -> None:
    first = BinaryNetwork(config.network)
    options = {"penalty": 0.5, "tau": 0.7}
    recipe = dataclasses.replace(config.recipe, method="paper", options=options)
    second = binary_from_real(first, recipe)
    for name, value in first.state_dict().items():
        assert torch.equal(second.state_dict()[name], value), name
    for layer in binary_layers(second):
        assert isinstance(layer, RBONNConv2d)
        assert (layer.mode, layer.penalty, layer.tau) == (Mode.PAPER, 0.5, 0.7)
        torch.testing.assert_close(layer.alpha, layer.weight.abs().mean(dim=(1, 2, 3)))
