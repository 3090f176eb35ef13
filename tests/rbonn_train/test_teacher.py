"""Teachers: their files, their distribution, and learning from them alone."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from torch.nn import functional

from isa.checkpoint import CheckpointError, read_checkpoint, write_checkpoint
from isa.network import Network
from rbonn_train.config import ModelConfig
from rbonn_train.data import Dataset
from rbonn_train.loop import Trainer
from rbonn_train.network import BinaryNetwork, RealConv2d
from rbonn_train.recipe import Recipe, Step
from rbonn_train.teacher import Objective, load_teacher, save_real
from tests.networks import random_checkpoint

IMAGES = torch.randint(0, 256, (6, 1, 8, 8), generator=torch.Generator().manual_seed(0)).float()
LABELS = torch.tensor([0, 1, 2, 3, 0, 1])


def recipe(**changes: object) -> Recipe:
    return Recipe(Step(1), Step(2), **changes)  # type: ignore[arg-type]


def test_a_real_network_comes_back(network: Network, tmp_path: Path) -> None:
    model = BinaryNetwork(network, real=True)
    model(IMAGES)
    save_real(tmp_path / "t.real.safetensors", model)
    teacher = load_teacher(str(tmp_path / "t.real.safetensors"), network)
    assert isinstance(teacher, BinaryNetwork)
    assert not teacher.training
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    assert torch.equal(teacher(IMAGES), model.eval()(IMAGES))
    binary = BinaryNetwork(network).eval()
    binary.load_state_dict(model.state_dict())
    assert not torch.equal(binary(IMAGES), teacher(IMAGES))  # nothing in it is binary
    assert all(isinstance(block.conv, RealConv2d) for block in teacher.binary_blocks())


def test_any_checkpoint_teaches(network: Network, tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    wide = dataclasses.replace(network, widths=(12, 24))
    write_checkpoint(path, *random_checkpoint(wide))
    assert load_teacher(str(path), network)(IMAGES).shape == (6, 4)


def test_teachers_that_do_not_fit(network: Network, tmp_path: Path) -> None:
    path = tmp_path / "t.safetensors"
    with pytest.raises(CheckpointError) as error:
        load_teacher(str(path), network)
    assert str(error.value) == (
        f"Teacher must be an existing file, or one of efficientnet-lite0, torchvision-resnet34, "
        f"not {path}"
    )
    save_real(path, BinaryNetwork(dataclasses.replace(network, classes=5), real=True))
    with pytest.raises(CheckpointError) as error:
        load_teacher(str(path), network)
    assert str(error.value) == f"Teacher {path} must have classes 4, not 5"
    for broken in (b"", path.read_bytes()[:-9]):
        path.write_bytes(broken)
        with pytest.raises(CheckpointError, match=f"Teacher {path} must be a network of ours"):
            load_teacher(str(path), network)


def test_the_distribution_loss(network: Network) -> None:
    teacher = BinaryNetwork(network, real=True).eval()
    logits = torch.randn(6, 4, requires_grad=True)
    with torch.no_grad():
        taught = teacher(IMAGES)

    def soft(heat: float) -> torch.Tensor:
        return -((taught / heat).softmax(1) * (logits / heat).log_softmax(1)).sum(1).mean()

    hard = functional.cross_entropy(logits, LABELS, label_smoothing=0.1)
    for options, expected in (
        ({}, soft(1)),
        ({"temperature": 3.0}, 9 * soft(3)),
        ({"teacher_weight": 0.25, "label_smoothing": 0.1}, 0.25 * soft(1) + 0.75 * hard),
    ):
        loss = Objective(recipe(**options), teacher)(logits, IMAGES, LABELS)
        torch.testing.assert_close(loss, expected)
    plain = Objective(recipe(label_smoothing=0.1), None)(logits, IMAGES, LABELS)
    torch.testing.assert_close(plain, hard)


def test_a_student_learns_from_a_teacher_alone(
    config: ModelConfig, dataset: Dataset, tmp_path: Path
) -> None:
    real = dataclasses.replace(config, recipe=dataclasses.replace(config.recipe, method="real"))
    path = Trainer(real, dataset, dataset, 0, tmp_path, progress=False).run()
    assert path == tmp_path / "corners.real.safetensors"
    report = json.loads(path.with_suffix(".json").read_text())
    assert (report["recipe"]["method"], report["seed"]) == ("real", 0)
    assert report["metrics"] == {"accuracy_float": report["curve"][-1]["test_accuracy"]}
    assert not (tmp_path / "corners.safetensors").exists()
    student = dataclasses.replace(
        config, recipe=dataclasses.replace(config.recipe, teacher=str(path))
    )
    # Labels that say nothing: all that is learned comes from the teacher.
    blind = Dataset(dataset.images, dataset.labels[torch.randperm(len(dataset)).numpy()])
    out = Trainer(student, blind, dataset, 0, tmp_path, progress=False).run()
    assert read_checkpoint(out)[0].metrics["accuracy_integer"] > 0.9
