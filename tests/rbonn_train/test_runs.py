"""Runs as the command line asks for them."""

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from host import cli
from isa.checkpoint import read_checkpoint
from rbonn_train import runs
from rbonn_train.data import Dataset, load_split
from rbonn_train.loop import Trainer
from rbonn_train.recipe import RecipeError
from rbonn_train.state import StateError


@pytest.fixture(autouse=True)
def _data(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """300 random images for training, 60 for testing."""

    def load(split: str, data: Path | None) -> Dataset:
        assert data is not None
        assert data.resolve() == tmp_path
        count = {"train": 300, "test": 60}[split]
        rng = np.random.default_rng(count)
        images = rng.integers(0, 256, (count, 28, 28, 1), np.uint8)
        return Dataset(images, np.arange(count) % 10)

    monkeypatch.setattr(runs, "load_split", load)


def command(tmp_path: Path, out: str, *more: str) -> list[str]:
    return [
        "train", "--model", "tiny", "--data", str(tmp_path), "--out", str(tmp_path / out), *more,
    ]  # fmt: skip


@pytest.mark.parametrize("environment", [{}, {"RANK": "0"}, {"RANK": "1"}], ids=str)
def test_of_several_processes_the_first_says_where_the_checkpoint_is(
    environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    path = tmp_path / "x.safetensors"
    for name in ("train", "resume"):
        monkeypatch.setattr(runs, name, lambda *_, **__: path)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
        monkeypatch.setenv("WORLD_SIZE", "2")
    expected = "" if environment.get("RANK") == "1" else f"checkpoint: {path}\n"
    assert cli.main(command(tmp_path, "a")) == 0
    assert capsys.readouterr().out == expected
    assert cli.main(["train", "--resume", str(tmp_path)]) == 0
    assert capsys.readouterr().out == expected


def test_options_change_the_recipe_in_order() -> None:
    config = runs.configure(
        "tiny",
        recipe="adambnn",
        settings=["clip=2", "binary_activations.epochs=3", "binary_weights.epochs=6"],
        epochs=18,
    )
    assert config.network.name == "tiny"
    assert config.recipe.method == "reactnet"
    assert (config.recipe.clip, config.recipe.binary_weights.epochs) == (2.0, 12)
    assert config.recipe.binary_activations.weight_decay == 5e-6
    assert runs.configure("tiny", recipe="adambnn", method="xnor").recipe.method == "xnor"


def test_a_run_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--method", "xnor", "--set", "clip=1", "--epochs", "2", "--seed", "7"]
    assert cli.main(command(tmp_path, "a", *arguments, "--limit", "200")) == 0
    path = tmp_path / "a" / "tiny.safetensors"
    assert f"checkpoint: {path}" in capsys.readouterr().out
    info, _ = read_checkpoint(path)
    assert info.metrics["images"] == 60
    assert (info.training["seed"], info.training["recipe"]["method"]) == (7, "xnor")
    assert info.training["recipe"]["clip"] == 1
    assert [point["epoch"] for point in info.training["curve"]] == [1, 1]
    assert cli.main(command(tmp_path, "a", "--epochs", "1")) == 0
    curve = read_checkpoint(path)[0].training["curve"]
    assert [point["step"] for point in curve] == ["step 2"]


def test_an_interrupted_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(command(tmp_path, "whole", "--epochs", "2", "--seed", "7")) == 0
    real = Trainer._step

    def stops(self: Trainer, images: torch.Tensor, labels: torch.Tensor, place: str) -> bool:
        if place == "step 2 1/1, batch 0":
            os.kill(os.getpid(), signal.SIGINT)
        return real(self, images, labels, place)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_step", stops)
        assert cli.main(command(tmp_path, "parts", "--epochs", "2", "--seed", "7")) == 130
    folder = tmp_path / "parts"
    captured = capsys.readouterr()
    assert captured.err.splitlines()[-1] == (
        f"rbonn: error: interrupted; go on with `rbonn train --resume {folder}`"
    )
    assert cli.main(command(tmp_path, "parts")) == 1
    assert f"Folder {folder} holds an interrupted run: go on with" in capsys.readouterr().err
    assert cli.main(["train", "--resume", str(folder), "--seed", "8"]) == 1
    assert "--seed is fixed in a run that is resumed" in capsys.readouterr().err
    monkeypatch.setattr(
        runs,
        "environment",
        lambda *_: {"torch": "0", "threads": 1, "device": "cuda", "processes": 1},
    )
    assert cli.main(["train", "--resume", str(folder)]) == 0
    out = capsys.readouterr().out
    assert f"{folder}/tiny.state.pt: going on with step 2, epoch 1, batch 1" in out
    assert f"note: torch is 0, was {torch.__version__}: weights will differ" in out
    assert "note: device is cuda, was cpu: weights will differ" in out
    assert "note: processes" not in out
    ours, theirs = (
        read_checkpoint(tmp_path / name / "tiny.safetensors")[1] for name in ("whole", "parts")
    )
    assert all(np.array_equal(ours[name], theirs[name]) for name in ours)
    with pytest.raises(StateError, match="must hold an interrupted run"):
        runs.resume(folder)


def test_a_run_goes_on_in_another_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its data and its teacher were named relative to where it began."""
    (tmp_path / "a").mkdir()
    monkeypatch.chdir(tmp_path / "a")
    begin = ["train", "--model", "tiny", "--data", "..", "--out", "out", "--epochs", "2"]
    assert cli.main([*begin, "--method", "real"]) == 0
    real = Trainer._step

    def stops(self: Trainer, *args: Any) -> bool:
        self.interrupts.requested = True
        return real(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_step", stops)
        assert cli.main([*begin, "--set", "teacher=out/tiny.real.safetensors"]) == 130
    monkeypatch.chdir(tmp_path)
    assert cli.main(["train", "--resume", "a/out"]) == 0, capsys.readouterr().err
    info, _ = read_checkpoint(tmp_path / "a" / "out" / "tiny.safetensors")
    assert info.training["recipe"]["teacher"] == "tiny.real.safetensors"  # no folder of ours


@pytest.mark.parametrize("folder", ["nowhere", ""])
def test_a_folder_without_data_names_every_layout(
    folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(runs, "load_split", load_split)
    data = tmp_path / folder
    assert cli.main(["train", "--model", "tiny", "--data", str(data)]) == 1
    assert capsys.readouterr().err == (
        f"rbonn: error: Fashion-MNIST must be in {data}, but train-images-idx3-ubyte[.gz] is "
        f"missing there; install it with `apt-get install dataset-fashion-mnist`, or name a folder "
        f"of its files with --data DIR or RBONN_DATA=DIR; for images of other data sets, DIR must "
        f"have folders train/CLASS and test/CLASS of them, or shards train/*.tar and test/*.tar\n"
    )


def test_wrong_usage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "file"
    file.write_text("")
    for arguments, message in (
        (["train"], "Give either --model or --resume"),
        (["train", "--model", "tiny", "--set", "x=1"], "Keys of a recipe must be among"),
        (
            ["train", "--model", "tiny", "--recipe", "best"],
            "Recipe must be one of adambnn, imagenet",
        ),
        (["train", "--model", "tiny", "--device", "tpu"], "Device must be one of cpu, cuda, not"),
        (
            ["train", "--model", "tiny", "--out", str(file)],
            f"Folder of a run must be a folder, not the file {file}",
        ),
        (
            ["train", "--model", "tiny", "--recipe", "rbonn", "--data", str(tmp_path)],
            "This recipe needs a teacher: --set teacher=FILE, which `rbonn train --method real`",
        ),
        (
            ["train", "--model", "tiny", "--data", str(tmp_path), "--set", "shift=12"],
            "shift must be below the images' 12 pixels, not 12",
        ),
        (["train", "--resume", str(tmp_path)], f"Folder {tmp_path} must hold an interrupted run"),
    ):
        assert cli.main(arguments) == 1
        assert f"rbonn: error: {message}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--seed", "-1", "must be 0 to 4294967295, not '-1'"),
        ("--seed", "4294967296", "must be 0 to 4294967295, not '4294967296'"),
        ("--save-every", "nan", "must be a number of minutes above 0, not 'nan'"),
        ("--save-every", "0", "must be a number of minutes above 0, not '0'"),
    ],
)
def test_numbers_out_of_range(
    option: str, value: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["train", "--model", "tiny", option, value]) != 0
    assert message in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="the error is of computers without")
def test_no_cuda() -> None:
    with pytest.raises(RecipeError, match="Device must be cpu here: torch finds no CUDA device"):
        runs.check_device("cuda")
