"""A grid of recipes and seeds, one short run each, and the table of what came out.

Finished cells are rows of a CSV file and are skipped, unless what they stand for has changed; an
interrupted cell goes on where it stopped. Cells that share step 1 compute it once.
"""

import csv
import dataclasses
import io
import json
import shutil
import statistics
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from isa.checkpoint import read_checkpoint, write_atomically
from isa.network import Network, NetworkError
from rbonn_train.config import ModelConfig, config_from_dict
from rbonn_train.data import Dataset
from rbonn_train.files import FileSet
from rbonn_train.loop import FIRST_SUFFIX, Trainer
from rbonn_train.methods import REAL
from rbonn_train.recipe import Recipe, RecipeError, Step
from rbonn_train.state import read_state

KEYS = {"description", "network", "recipe", "limit", "seeds", "cells"}
COLUMNS = ("cell", "seed", "accuracy_float", "accuracy_integer", "train_accuracy", "digest")


class SpecError(ValueError):
    """A grid's file, or its results, that break the rules of this module."""


@dataclass(frozen=True)
class Cell:
    """One run of the grid."""

    name: str
    seed: int
    recipe: Recipe


@dataclass(frozen=True)
class Spec:
    """A grid: every recipe of ``cells`` with every seed, on the first ``limit`` images."""

    name: str
    description: str
    network: Network
    limit: int | None
    seeds: tuple[int, ...]
    cells: Mapping[str, Recipe]

    def runs(self) -> Iterator[Cell]:
        """Seed by seed, so that a table of few seeds exists early."""
        for seed in self.seeds:
            for name, recipe in self.cells.items():
                yield Cell(name, seed, recipe)

    def digest(self, cell: Cell) -> str:
        """Changes with anything that the result of a cell depends on."""
        return _digest(self.network, cell.recipe, self.limit, cell.seed)

    def first_digest(self, cell: Cell) -> str:
        """Changes with anything that its step 1 depends on."""
        recipe = dataclasses.replace(
            cell.recipe, method="none", options={}, u_rate=0.0, binary_weights=Step(1),
            quantised_epochs=1, percentile=100.0,
        )  # fmt: skip
        return _digest(self.network, recipe, self.limit, cell.seed)


def _digest(network: Network, recipe: Recipe, limit: int | None, seed: int) -> str:
    values = [_told(network), _told(recipe), limit, seed]
    return f"{zlib.crc32(json.dumps(values, sort_keys=True).encode()):08x}"


def _told(value: Any) -> Any:
    """A dataclass as plain data, without what has its default: results stay valid when a new key
    appears."""
    if not dataclasses.is_dataclass(value):
        return dict(value) if isinstance(value, Mapping) else value
    default = {item.name: item.default for item in dataclasses.fields(value)}
    pairs = ((name, getattr(value, name)) for name in default)
    return {name: _told(own) for name, own in pairs if own != default[name]}


def load_spec(path: Path) -> Spec:
    """The grid in a YAML file. Raises SpecError."""
    if not path.is_file():
        raise SpecError(f"Grid must be an existing .yaml file, not {path}")
    try:
        raw = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SpecError(f"Grid {path} must be YAML: {error}") from error
    if not isinstance(raw, dict) or not KEYS - {"description", "limit"} <= set(raw) <= KEYS:
        raise SpecError(f"Grid {path} must have the keys {', '.join(sorted(KEYS))}")
    cells, seeds = raw["cells"], raw["seeds"]
    if not isinstance(cells, dict) or not cells:
        raise SpecError(f"Grid {path} must have at least one cell, not {cells!r}")
    if not isinstance(seeds, list) or not seeds or any(type(seed) is not int for seed in seeds):
        raise SpecError(f"Grid {path} must have a list of integers as seeds, not {seeds!r}")
    try:
        network, base = config_from_dict(path.stem, raw)
    except (NetworkError, RecipeError, TypeError) as error:
        raise SpecError(f"Grid {path}: {error}") from error
    recipes = {}
    for name, changes in cells.items():
        try:
            recipes[str(name)] = base.changed(changes or {})
            if recipes[str(name)].method == REAL:
                raise RecipeError("a network without anything binary has no place in the table")
        except RecipeError as error:
            raise SpecError(f"Grid {path}, cell {name}: {error}") from error
    description = str(raw.get("description", path.stem))
    return Spec(path.stem, description, network, raw.get("limit"), tuple(seeds), recipes)


Row = dict[str, str]
Sets = tuple[Dataset | FileSet, Dataset | FileSet]
"""For training and for testing."""


def read_results(path: Path) -> list[Row]:
    """The rows of a results file; none if it does not exist. Raises SpecError."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        reader = csv.DictReader(file)
        rows = list(reader)
    if tuple(reader.fieldnames or ()) != COLUMNS or any(None in row.values() for row in rows):
        raise SpecError(f"Results {path} must be a CSV file of the columns {', '.join(COLUMNS)}")
    return rows


def finished(spec: Spec, rows: Sequence[Row]) -> list[Row]:
    """Those rows that still are the grid's, in its order."""
    known = {row["digest"]: row for row in rows}
    digests = {spec.digest(cell): cell.name for cell in spec.runs()}
    return [{**known[d], "cell": name} for d, name in digests.items() if d in known]


def write_results(path: Path, rows: Sequence[Row]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(path, text.getvalue().encode())


def table(spec: Spec, rows: Sequence[Row]) -> str:
    """Mean and deviation of every cell, as Markdown."""

    def entry(values: Sequence[float]) -> str:
        spread = f" ± {100 * statistics.stdev(values):.2f}" if len(values) > 1 else ""
        return f"{100 * statistics.fmean(values):.2f}{spread}"

    names = ("accuracy_integer", "accuracy_float", "train_accuracy")
    lines = [
        "| recipe | runs | test, integer % | test, float % | training % |",
        "|---|---:|---:|---:|---:|",
    ]
    for cell in spec.cells:
        own = [row for row in rows if row["cell"] == cell]
        entries = [entry([float(row[n]) for row in own]) if own else "–" for n in names]
        lines.append(f"| {cell} | {len(own)} | {' | '.join(entries)} |")
    return "\n".join(lines) + "\n"


def document(spec: Spec, source: Path, rows: Sequence[Row]) -> str:
    """The page of a grid."""
    network, recipe = spec.network, next(iter(spec.cells.values()))
    steps = recipe.binary_activations.epochs, recipe.binary_weights.epochs
    images = "the whole training set" if spec.limit is None else f"{spec.limit:,} images"
    return (
        f"# {spec.description}\n\n"
        f"Written by `rbonn ablate {source}`; do not edit. Network: "
        f"{network.input_size[0]}x{network.input_size[1]} pixels, stages of "
        f"{', '.join(map(str, network.widths))} channels with "
        f"{', '.join(map(str, network.blocks_per_stage))} blocks. Each run: {steps[0]} epochs with "
        f"binary activations, {steps[1]} with binary weights, on {images}. Mean ± standard "
        f"deviation over seeds; {len(rows)} of {len(spec.cells) * len(spec.seeds)} runs done.\n\n"
        f"{table(spec, rows)}"
    )


def run_cell(spec: Spec, cell: Cell, sets: Sets, folder: Path, **options: Any) -> Row:
    """Trains a cell, or finishes it, in ``folder``; returns its row."""
    work = folder / spec.digest(cell)
    kept = folder / f"{spec.first_digest(cell)}{FIRST_SUFFIX}"
    first = kept if kept.exists() else None
    config = ModelConfig(spec.network, cell.recipe)
    trainer = Trainer(config, *sets, cell.seed, work, first=first, **options)
    if trainer.state_path.exists():
        trainer.restore(read_state(trainer.state_path))
    checkpoint = trainer.run()
    made = checkpoint.with_suffix(FIRST_SUFFIX)
    if made.exists():
        made.replace(kept)
    info, _ = read_checkpoint(checkpoint)
    row = {
        "cell": cell.name,
        "seed": str(cell.seed),
        "accuracy_float": f"{info.metrics['accuracy_float']:.4f}",
        "accuracy_integer": f"{info.metrics['accuracy_integer']:.4f}",
        "train_accuracy": f"{info.training['curve'][-1]['train_accuracy']:.4f}",
        "digest": spec.digest(cell),
    }
    shutil.rmtree(work)
    return row


def run_grid(
    source: Path, results: Path, folder: Path, sets: Sets, **options: Any
) -> Iterator[tuple[Row, int]]:
    """Runs what is missing; after each cell, ``results`` (CSV) and its page (.md) are written.
    Yields each new row and how many are still missing."""
    spec = load_spec(source)
    rows = finished(spec, read_results(results))
    done = {row["digest"] for row in rows}
    missing = [cell for cell in spec.runs() if spec.digest(cell) not in done]
    page = results.with_suffix(".md")
    for number, cell in enumerate(missing):
        row = run_cell(spec, cell, sets, folder, **options)
        rows = finished(spec, [*rows, row])
        write_results(results, rows)
        write_atomically(page, document(spec, source, rows).encode())
        yield row, len(missing) - number - 1
    if not missing:
        write_results(results, rows)
        write_atomically(page, document(spec, source, rows).encode())
