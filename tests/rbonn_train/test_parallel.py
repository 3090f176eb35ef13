"""Two processes equal one on the same batches; what they are told when they cannot share."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from rbonn_train.config import ModelConfig
from rbonn_train.data import Dataset
from rbonn_train.loop import Trainer
from rbonn_train.methods.base import BinaryConv2d
from rbonn_train.parallel import ParallelError, World
from tests.rbonn_train import process

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The folders of what one process and of what two have trained."""
    one, two = (tmp_path_factory.mktemp(name) for name in ("one", "two"))
    process.train(one)
    subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2",
         "-m", "tests.rbonn_train.process", str(two)],
        cwd=ROOT, check=True, timeout=300, capture_output=True,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    return one, two


@pytest.mark.parametrize("mode", [*process.MODES, *(f"{mode}, exact" for mode in process.EXACT)])
def test_two_processes_equal_one(pairs: tuple[Path, Path], mode: str) -> None:
    one, two = (torch.load(folder / f"{mode}.pt", weights_only=True) for folder in pairs)
    assert list(one) == list(two)
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-8, atol=1e-10, msg=name)
    if mode.partition(",")[0] in process.RECURRENT:  # it was at work
        assert one["blocks.1.conv.previous"].abs().sum() > 0
        assert one["blocks.1.conv.u"].unique().numel() > 1
    reports = [json.loads((folder / mode / "pair.json").read_text()) for folder in pairs]
    one_image = 1 / reports[0]["metrics"]["images"]  # rounding may tie otherwise
    assert reports[1]["metrics"] == pytest.approx(reports[0]["metrics"], abs=1.1 * one_image)
    assert reports[0]["layers"] == reports[1]["layers"]
    for ours, theirs in zip(*(report["curve"] for report in reports), strict=True):
        assert ours["test_accuracy"] == pytest.approx(theirs["test_accuracy"], abs=1.1 * one_image)
        assert ours["loss"] == pytest.approx(theirs["loss"], abs=2e-5)  # rounded to 1e-5


def test_parts_of_a_batch() -> None:
    assert World().part(5) == slice(0, 5)
    assert World(1, 2).part(6) == slice(3, 6)
    with pytest.raises(ParallelError) as error:
        World(1, 2).part(5)
    assert str(error.value) == "Batch must be a multiple of the 2 processes, not 5 images"


def test_a_batch_that_cannot_be_shared_is_refused_before_training(
    config: ModelConfig, dataset: Dataset, tmp_path: Path
) -> None:
    with pytest.raises(ParallelError, match="multiple of the 3 processes, not 32 images"):
        Trainer(config, dataset, dataset, 0, tmp_path, progress=False, world=World(0, 3))


def test_one_process_alone_changes_nothing() -> None:
    model = nn.Sequential(nn.BatchNorm2d(2))
    assert World().wrap(model) is model
    assert type(model[0]) is nn.BatchNorm2d
    assert World().sums(1, 2.5, True) == [1, 2.5, 1]
    assert not BinaryConv2d(1, 1).own_gradients
