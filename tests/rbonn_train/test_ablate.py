"""The grid: cells once each, resumed where they stopped, and the table."""

import csv
import dataclasses
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from isa.checkpoint import CheckpointError, read_checkpoint
from rbonn_train.ablate import run_grid
from rbonn_train.comparison import document, picture
from rbonn_train.config import load_model_yaml
from rbonn_train.data import Dataset
from rbonn_train.grid import SpecError, finished, load_spec, read_results
from rbonn_train.loop import Trainer
from rbonn_train.network import BinaryNetwork
from rbonn_train.phases import Phase
from rbonn_train.recipe import Recipe
from rbonn_train.runs import resume
from rbonn_train.state import StateError
from rbonn_train.teacher import save_real

DOCS = Path(__file__).parents[2] / "docs"
SPEC = """
description: A small grid
network: {input_size: [8, 8], input_channels: 1, classes: 4, widths: [8], blocks_per_stage: [1],
          mean: [0.3], std: [0.35]}
recipe: {binary_activations: {epochs: 1, learning_rate: 0.02},
         binary_weights: {epochs: 1, learning_rate: 0.02}, quantised_epochs: 1, batch: 64}
seeds: [4, 5]
cells:
  first: {method: plain}
  "second, strong": {method: paper, options: {penalty: 0.1}}
"""


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    path = tmp_path / "grid.yaml"
    path.write_text(SPEC)
    return path


def run(spec: Path, dataset: Dataset, name: str = "out", **options: Any) -> list[tuple[str, int]]:
    folder = spec.parent / name
    options["progress"] = False
    found = run_grid(spec, folder / "grid.csv", folder, (dataset, dataset), **options)
    return [(row["cell"], left) for row, left in found]


def results(spec: Path, name: str = "out") -> str:
    return (spec.parent / name / "grid.csv").read_text()


def test_cells_run_once_and_share_step_1(
    spec: Path, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    phases: list[str] = []
    real = Trainer._finish_epoch

    def finish(self: Trainer, phase: Phase) -> None:
        phases.append(phase.title)
        real(self, phase)

    monkeypatch.setattr(Trainer, "_finish_epoch", finish)
    assert run(spec, dataset) == [
        ("first", 3), ("second, strong", 2), ("first", 1), ("second, strong", 0),
    ]  # fmt: skip
    assert phases == ["step 1", "step 2", "step 2"] * 2
    rows = read_results(spec.parent / "out" / "grid.csv")
    assert [(row["cell"], row["seed"]) for row in rows] == [
        ("first", "4"), ("second, strong", "4"), ("first", "5"), ("second, strong", "5"),
    ]  # fmt: skip
    assert all(0.25 < float(row["accuracy_integer"]) <= 1 for row in rows)
    assert run(spec, dataset) == []
    page = (spec.parent / "out" / "grid.md").read_text()
    assert page.startswith("# A small grid\n")
    assert "4 of 4 runs done" in page
    assert "| second, strong | 2 | " in page
    assert "![Accuracy of every run](grid.svg)" in page
    assert (spec.parent / "out" / "grid.svg").read_text().count('class="run"') == 4


def test_a_changed_cell_runs_again(spec: Path, dataset: Dataset) -> None:
    run(spec, dataset)
    before = results(spec).splitlines()
    spec.write_text(SPEC.replace("penalty: 0.1", "penalty: 0.2").replace("first:", "one:"))
    assert run(spec, dataset) == [("second, strong", 1), ("second, strong", 0)]
    after = results(spec).splitlines()
    assert after[1] == before[1].replace("first", "one")  # a name alone is no other cell
    assert after[2] != before[2]
    assert after[5:] == [before[2], before[4]]  # what is not the grid's any more is not lost
    assert "4 of 4 runs done" in (spec.parent / "out" / "grid.md").read_text()
    spec.write_text(SPEC.replace("first:", "one:"))
    assert run(spec, dataset) == []
    assert results(spec).splitlines()[1:5] == [after[1], before[2], after[3], before[4]]


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ("quantised_epochs: 0", True),
        ("exact_epochs: 1", True),
        ("percentile: 99.0", True),
        ("binary_weights: {epochs: 3}", True),
        ("u_rate: 0.5", True),
        ("binary_activations: {epochs: 2}", False),
        ("flip: false", False),
    ],
)
def test_cells_that_differ_in_step_2_alone_share_step_1(
    change: str, same: bool, spec: Path
) -> None:
    spec.write_text(SPEC.replace("{method: plain}", f"{{method: plain, {change}}}"))
    loaded = load_spec(spec)
    changed, other, *_ = loaded.runs()
    assert (loaded.first_digest(changed) == loaded.first_digest(other)) is same


def test_other_images_or_another_teacher_run_again(spec: Path, dataset: Dataset) -> None:
    spec.write_text(SPEC.replace("[4, 5]", "[4]").split('  "second')[0])
    assert len(run(spec, dataset)) == 1
    assert len(run(spec, Dataset(dataset.images[::-1].copy(), dataset.labels[::-1].copy()))) == 1
    assert run(spec, dataset) == []
    teacher = spec.parent / "t.real.safetensors"
    spec.write_text(spec.read_text().replace("plain", f"plain, teacher: {teacher}"))
    with pytest.raises(CheckpointError, match="Teacher must be an existing file"):
        run(spec, dataset)
    for seed in (1, 2):
        torch.manual_seed(seed)
        save_real(teacher, BinaryNetwork(load_spec(spec).network, real=True))
        assert len(run(spec, dataset)) == 1
        assert run(spec, dataset) == []


def test_a_stop_in_a_cells_last_test_stops_the_grid(
    spec: Path, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Trainer._settle

    def settle(self: Trainer, model: BinaryNetwork) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        real(self, model)

    monkeypatch.setattr(Trainer, "_settle", settle)
    for done in (1, 2, 3):
        with pytest.raises(KeyboardInterrupt, match="interrupted; the same command goes on"):
            run(spec, dataset)
        assert len(read_results(spec.parent / "out" / "grid.csv")) == done
    assert len(run(spec, dataset)) == 1


def test_runs_are_kept_where_asked(spec: Path, dataset: Dataset) -> None:
    spec.write_text(SPEC.replace("second, strong", "second/strong"))
    out = spec.parent / "out"
    (out / "first, seed 4").mkdir(parents=True)  # as of an earlier grid of that name
    run(spec, dataset, keep=True)
    rows = read_results(out / "grid.csv")
    for row in rows:
        folder = out / f"{row['cell'].replace('/', '-')}, seed {row['seed']}"
        info, _ = read_checkpoint(folder / "grid.safetensors")
        assert info.metrics["accuracy_integer"] == pytest.approx(
            float(row["accuracy_integer"]), abs=1e-4
        )
        assert (folder / "grid.html").exists()
    assert len(rows) == sum(path.is_dir() for path in out.iterdir()) == 4


def test_an_interrupted_cell_goes_on(
    spec: Path, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(spec, dataset, "whole")
    real, calls = Trainer._step, 0

    def step(self: Trainer, *args: Any) -> bool:
        nonlocal calls
        calls += 1
        if calls % 9 == 2:  # four batches an epoch
            self.interrupts.requested = True
        return real(self, *args)

    monkeypatch.setattr(Trainer, "_step", step)
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt) as stop:
            run(spec, dataset)
        assert str(stop.value) == "interrupted; the same command goes on"
        (path,) = (spec.parent / "out").glob("*/grid.state.pt")
        with pytest.raises(StateError) as error:
            resume(path.parent)
        assert str(error.value) == (
            f"Training state {path} must be of `rbonn train`, not of a cell of a grid: repeat "
            f"`rbonn ablate` to go on"
        )
    run(spec, dataset)
    assert calls == 6 * 4  # no batch twice
    assert results(spec) == results(spec, "whole")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("seeds: [4, 5]", "seeds: 4", "must have a list of integers as seeds, not 4"),
        ("seeds:", "seed:", "must have the keys cells, comparisons, description, limit, network, "),
        ("method: plain", "method: x", r"cell first: method must be one of .*, not 'x'"),
        ("method: plain", "method: real", "cell first: a network without anything binary has no"),
        ("penalty: 0.1", "gamma: 1", "cell second, strong: Options of method paper must be among"),
        ("classes: 4", "klasses: 4", "Network keys must be among"),
        ("seeds:", "limit: many\nseeds:", "must have a number of images as limit, not 'many'"),
        ("seeds:", "limit: 0\nseeds:", "must have a number of images as limit, not 0"),
        (
            "method: plain",
            "method: paper, options: {penalty: 0.1}",
            "strong: it must differ from c",
        ),
        ("network:", "network: [", "must be YAML"),
        ("{method: plain}", "plain", "cell first: must hold keys and values, not 'plain'"),
        ("recipe: {", "recipe: 3\nx: {", "must have the keys cells"),
        ("[4, 5]", "[4, 4]", r"must have different seeds from 0 to 4294967295, not \[4, 4\]"),
        ("[4, 5]", "[-1]", r"must have different seeds from 0 to 4294967295, not \[-1\]"),
        ("cells:", "comparisons: {first: second}\ncells:", "must have lists of cells, by cell, as"),
        ("cells:", "comparisons: {first: [x]}\ncells:", "must compare its cells, not 'x'"),
        ("cells:", "comparisons: {x: [first]}\ncells:", "must compare its cells, not 'x'"),
    ],
)
def test_broken_grids(spec: Path, old: str, new: str, message: str) -> None:
    assert old in SPEC
    spec.write_text(SPEC.replace(old, new))
    with pytest.raises(SpecError, match=message):
        load_spec(spec)


def test_missing_grids_and_broken_results(spec: Path) -> None:
    with pytest.raises(SpecError, match=r"Grid must be an existing \.yaml file, not nowhere\.yaml"):
        load_spec(Path("nowhere.yaml"))
    path = spec.with_suffix(".csv")
    assert read_results(path) == []
    path.write_text("a,b\n1,2\n")
    with pytest.raises(SpecError, match="must be a CSV file of the columns cell, seed, "):
        read_results(path)


def test_the_ablation_that_ships() -> None:
    spec = load_spec(DOCS / "ablation.yaml")
    assert len(spec.seeds) == 3
    assert max(spec.network.widths) <= 16
    for recipe in spec.cells.values():
        assert recipe.binary_activations.epochs + recipe.binary_weights.epochs >= 10


def test_a_grid_of_the_model_that_ships() -> None:
    spec, model = load_spec(DOCS / "fmnist-s.yaml"), load_model_yaml("fmnist-s")
    assert spec.network == model.network
    assert spec.cells["RBONN, released"] == model.recipe


@pytest.mark.parametrize("name", ["ablation", "fmnist-s"])
def test_pages_that_ship_are_of_their_rows(name: str) -> None:
    spec = load_spec(DOCS / f"{name}.yaml")
    rows = finished(spec, read_results(DOCS / f"{name}.csv"))
    assert len(rows) == len(spec.seeds) * len(spec.cells)
    page = document(spec, Path(f"docs/{name}.yaml"), rows, f"{name}.svg")
    assert (DOCS / f"{name}.md").read_text() == page
    assert (DOCS / f"{name}.svg").read_text() == picture(spec, rows)
    with (DOCS / f"{name}.csv").open(newline="") as file:
        assert list(csv.DictReader(file)) == rows


def test_the_page_tells_how_long_each_run_is(spec: Path) -> None:
    one = "1 epochs with binary activations, 1 with binary weights"
    for more, told in (("", one), (", binary_weights: {epochs: 2}", f"{one} or {one[:-21]}2")):
        spec.write_text(SPEC.replace("{method: plain}", f"{{method: plain{more}}}"))
        assert f"Each run: {told}" in document(load_spec(spec), spec, [], "grid.svg")


def test_one_seed_tells_no_differences(spec: Path) -> None:
    for seeds, told in (("[4, 5]", True), ("[4]", False)):
        spec.write_text(SPEC.replace("[4, 5]", seeds))
        page = document(load_spec(spec), spec, [], "grid.svg")
        assert ("## Differences" in page) == told
        assert ("over seeds" in page) == told


@dataclasses.dataclass(frozen=True)
class WithNewKey(Recipe):
    """The recipe of a later version."""

    dropout: float = 0.0


def test_results_stay_valid_when_recipes_get_a_new_key(spec: Path) -> None:
    loaded = load_spec(spec)
    cell = next(loaded.runs())
    values = {item.name: getattr(cell.recipe, item.name) for item in dataclasses.fields(Recipe)}
    for dropout in (0.0, 0.5):
        later = dataclasses.replace(cell, recipe=WithNewKey(**values, dropout=dropout))
        assert (loaded.digest(later) == loaded.digest(cell)) == (dropout == 0)
        assert (loaded.first_digest(later) == loaded.first_digest(cell)) == (dropout == 0)
