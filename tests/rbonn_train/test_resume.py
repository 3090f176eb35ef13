"""A run that was interrupted equals one that was not, bit for bit, wherever it stopped."""

import dataclasses
import itertools
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from isa.checkpoint import read_checkpoint
from rbonn_train import state
from rbonn_train.ablate import Sets
from rbonn_train.config import ModelConfig
from rbonn_train.data import Dataset
from rbonn_train.files import FileSet
from rbonn_train.loop import Trainer
from rbonn_train.network import BinaryNetwork
from rbonn_train.runs import load_data
from rbonn_train.state import StateError, read_state
from rbonn_train.teacher import save_real

ROOT = Path(__file__).parents[2]
BATCHES = 8  # an epoch; the run has 5 epochs


def trainer(config: ModelConfig, dataset: Dataset | Sets, out: Path) -> Trainer:
    """``dataset``: for training and for testing, or both of them."""
    sets = (dataset, dataset) if isinstance(dataset, Dataset) else dataset
    return Trainer(config, *sets, 3, out, progress=False)


def changed(config: ModelConfig, **changes: object) -> ModelConfig:
    return dataclasses.replace(config, recipe=dataclasses.replace(config.recipe, **changes))


def stop_after(patch: pytest.MonkeyPatch, batches: int) -> None:
    """The process gets a SIGTERM during the given batch, counted from 1."""
    real, calls = Trainer._step, 0

    def step(self: Trainer, *args: Any) -> bool:
        nonlocal calls
        if (calls := calls + 1) == batches:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(self, *args)

    patch.setattr(Trainer, "_step", step)


def assert_equal(a: Path, b: Path) -> None:
    (first, ours), (second, theirs) = read_checkpoint(a), read_checkpoint(b)
    assert first.quantisation == second.quantisation
    assert first.metrics == second.metrics
    for name, value in ours.items():
        assert np.array_equal(value, theirs[name]), name
    reports = [json.loads(path.with_suffix(".json").read_text()) for path in (a, b)]
    assert reports[0]["layers"] == reports[1]["layers"]
    curves = [[{**point, "seconds": 0} for point in i.training["curve"]] for i in (first, second)]
    assert curves[0] == curves[1]


def interrupted_equals_whole(
    config: ModelConfig, dataset: Dataset | Sets, folder: Path, stops: tuple[int, ...]
) -> None:
    whole = trainer(config, dataset, folder / "whole").run()
    out = folder / "parts"
    for stop in stops:
        run = trainer(config, dataset, out)
        if run.state_path.exists():
            run.restore(read_state(run.state_path))
        with pytest.MonkeyPatch.context() as patch:
            stop_after(patch, stop)
            with pytest.raises(KeyboardInterrupt) as caught:
                run.run()
        assert str(caught.value) == f"interrupted; go on with `rbonn train --resume {out}`"
        torch.manual_seed(99)  # nothing may depend on what the process did meanwhile
        np.random.seed(99)  # noqa: NPY002
    last = trainer(config, dataset, out)
    last.restore(read_state(last.state_path))
    assert_equal(whole, last.run())
    assert not last.state_path.exists()


@pytest.mark.parametrize("method", ["released", "paper", "recu", "bop2"])
def test_interrupted_in_the_middle_of_epochs(
    method: str, config: ModelConfig, dataset: Dataset, tmp_path: Path
) -> None:
    # Step 1 epoch 1, step 2 epoch 1, and in its last, quantised epoch.
    stops = (3, 2 * BATCHES + 5 - 3, 2 * BATCHES - 1)
    config = changed(config, method=method, flip=True, shift=1)
    interrupted_equals_whole(config, dataset, tmp_path, stops)


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_interrupted_in_exact_epochs(
    ema: float, config: ModelConfig, dataset: Dataset, tmp_path: Path
) -> None:
    # In both of them, and before the first.
    config = changed(config, exact_epochs=2, ema=ema)
    interrupted_equals_whole(config, dataset, tmp_path, (3 * BATCHES, 3, BATCHES))


def test_interrupted_at_the_ends_of_epochs_and_steps(
    config: ModelConfig, dataset: Dataset, tmp_path: Path
) -> None:
    interrupted_equals_whole(config, dataset, tmp_path, (BATCHES, BATCHES, 3 * BATCHES))


def test_interrupted_with_average_clipping_and_half_precision(
    config: ModelConfig, dataset: Dataset, tmp_path: Path
) -> None:
    config = changed(config, ema=0.9, clip=0.5, precision="bfloat16", label_smoothing=0.1)
    interrupted_equals_whole(config, dataset, tmp_path, (11, 23))


def test_interrupted_with_crops_of_images_in_files(
    config: ModelConfig, dataset: Dataset, tmp_path: Path
) -> None:
    for number, (image, label) in enumerate(zip(dataset.images, dataset.labels, strict=True)):
        for split in ("train", "test")[: 1 + (number < 32)]:
            path = tmp_path / "data" / split / str(label) / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image[:, :, 0]).save(path)
    config = changed(config, crop=0.5, flip=True)
    sets = load_data(config.network, tmp_path / "data", None, config.recipe)
    assert all(isinstance(part, FileSet) for part in sets)
    interrupted_equals_whole(config, sets, tmp_path, (3, 2 * BATCHES + 1))


def test_the_state_holds_what_it_must(
    config: ModelConfig, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = trainer(config, dataset, tmp_path)
    stop_after(monkeypatch, 2 * BATCHES + 3)
    with pytest.raises(KeyboardInterrupt):
        run.run()
    saved = read_state(run.state_path)
    assert saved["progress"]["batch"] == 3
    assert len(saved["progress"]["order"]) == len(dataset)
    assert saved["model"]["blocks.0.conv.previous"].abs().sum() > 0
    assert set(saved["random"]) == {"own", "torch", "cuda", "numpy", "python"}
    assert saved["optimizer"]["state"]
    assert saved["run"]["recipe"]["method"] == "released"


def test_the_state_is_written_in_time(
    config: ModelConfig, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[int] = []
    monkeypatch.setattr(Trainer, "save", lambda self: written.append(self.at.batch))
    for minutes, expected in ((0.0, 5 * BATCHES), (60.0, 0)):
        written.clear()
        run = Trainer(
            config, dataset, dataset, 3, tmp_path, progress=False, save_every=minutes
        )  # fmt: skip
        run.run()
        assert len(written) == expected


def test_another_data_set_is_refused(config: ModelConfig, dataset: Dataset, tmp_path: Path) -> None:
    run = trainer(config, dataset, tmp_path)
    run.save()
    other = Dataset(dataset.images.copy(), dataset.labels)
    other.images[3, 2, 1] ^= 1
    with pytest.raises(StateError, match="Data set must be the one that the run began with"):
        trainer(config, other, tmp_path).restore(read_state(run.state_path))


SCRIPT = """
import os, signal, sys
from host import cli
from rbonn_train.loop import Trainer
real, calls = Trainer._step, 0

def step(self, *args):
    global calls
    calls += 1
    if calls == int(sys.argv[1]):
        os.kill(os.getpid(), signal.SIGTERM)
    return real(self, *args)

Trainer._step = step
sys.exit(cli.main(sys.argv[2:]))
"""
MODEL = """
network: {input_size: [8, 8], input_channels: 1, classes: 2, widths: [8], blocks_per_stage: [1],
          mean: [0.3], std: [0.35]}
recipe: {binary_activations: {epochs: 2}, binary_weights: {epochs: 2}, batch: 4, shift: 1}
"""


@pytest.mark.full
def test_another_process_goes_on(tmp_path: Path) -> None:
    """From SIGTERM in the middle of an epoch, by the commands that a user gives."""
    rng = np.random.default_rng(0)
    for split, name, number in itertools.product(("train", "test"), "ab", range(8)):
        path = tmp_path / "data" / split / name / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (8, 8), np.uint8)).save(path)
    (tmp_path / "mini.yaml").write_text(MODEL)

    def run(stop: int, *arguments: str) -> int:
        command = [sys.executable, "-c", SCRIPT, str(stop), "train", *arguments]
        return subprocess.run(command, cwd=ROOT, timeout=120, capture_output=True).returncode

    begin = ["--model", str(tmp_path / "mini.yaml"), "--data", str(tmp_path / "data"), "--out"]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert run(0, *begin, str(whole)) == 0
    assert run(10, *begin, str(parts)) == 130  # the second of four batches of step 2
    assert run(3, "--resume", str(parts)) == 130
    assert run(0, "--resume", str(parts)) == 0
    ours, theirs = (read_checkpoint(folder / "mini.safetensors") for folder in (whole, parts))
    assert ours[1].keys() == theirs[1].keys()
    assert all(np.array_equal(value, theirs[1][name]) for name, value in ours[1].items())
    assert ours[0].metrics == theirs[0].metrics


def test_another_teacher_is_refused(config: ModelConfig, dataset: Dataset, tmp_path: Path) -> None:
    """A file of the same name that has been trained again in the meantime."""
    teacher = tmp_path / "t.real.safetensors"
    config = changed(config, teacher=str(teacher))
    for seed in (1, 2):
        torch.manual_seed(seed)
        save_real(teacher, BinaryNetwork(config.network, real=True))
        run = trainer(config, dataset, tmp_path)
        if seed == 1:
            run.save()
    with pytest.raises(StateError) as error:
        run.restore(read_state(run.state_path))
    assert str(error.value) == f"Teacher {teacher} must hold what it held when the run began"


def test_a_broken_model_does_not_replace_a_good_state(
    config: ModelConfig, dataset: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = trainer(config, dataset, tmp_path)
    run.save()
    before = run.state_path.read_bytes()
    with torch.no_grad():
        run.model.fc.bias[0] = torch.nan
    run.save()
    assert run.state_path.read_bytes() == before
    assert "not written: Tensor fc.bias must be finite to be saved" in capsys.readouterr().out


KILLED = """
import os, signal, sys
from pathlib import Path
import torch
import isa.checkpoint
from rbonn_train.state import write_state
path = Path(sys.argv[1])
write_state(path, {"model": {"a": torch.zeros(1000)}, "number": 1})
def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)
setattr(isa.checkpoint.os, sys.argv[2], die)
write_state(path, {"model": {"a": torch.ones(1000)}, "number": 2})
"""


@pytest.mark.parametrize("moment", ["fsync", "replace"])
def test_a_kill_while_writing_leaves_the_previous_state(moment: str, tmp_path: Path) -> None:
    path = tmp_path / f"x{state.SUFFIX}"
    run = subprocess.run([sys.executable, "-c", KILLED, path, moment], check=False)
    assert run.returncode == -signal.SIGKILL
    saved = read_state(path)
    assert saved["number"] == 1
    assert saved["model"]["a"].sum() == 0
