"""The file of a grid of recipes and seeds, its runs, and the file of their results."""

import csv
import dataclasses
import io
import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from isa.checkpoint import write_atomically
from isa.network import Network, NetworkError
from rbonn_train.config import config_from_dict
from rbonn_train.methods import REAL
from rbonn_train.recipe import Recipe, RecipeError, Step
from rbonn_train.state import LARGEST_SEED

KEYS = {"description", "network", "recipe", "limit", "seeds", "cells", "comparisons"}
OPTIONAL = {"description", "limit", "comparisons"}
COLUMNS = (
    "cell", "seed", "accuracy_float", "accuracy_integer", "train_accuracy", "digest", "inputs",
)  # fmt: skip


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
    """A grid: every recipe of ``cells`` with every seed, on the first ``limit`` images.
    ``comparisons``: names of cells, by that of the cell that they are compared with."""

    name: str
    description: str
    network: Network
    limit: int | None
    seeds: tuple[int, ...]
    cells: Mapping[str, Recipe]
    comparisons: Mapping[str, tuple[str, ...]]

    def runs(self) -> Iterator[Cell]:
        """Seed by seed, so that a table of few seeds exists early."""
        for seed in self.seeds:
            for name, recipe in self.cells.items():
                yield Cell(name, seed, recipe)

    def digest(self, cell: Cell) -> str:
        """Changes with anything in the file that the result of a cell depends on."""
        return _digest(self.network, cell.recipe, self.limit, cell.seed)

    def first_digest(self, cell: Cell) -> str:
        """Changes with anything in the file that its step 1 depends on."""
        recipe = dataclasses.replace(
            cell.recipe, method="none", options={}, u_rate=0.0, binary_weights=Step(1),
            quantised_epochs=1, exact_epochs=0, percentile=100.0,
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
    if not isinstance(raw, dict) or not KEYS - OPTIONAL <= set(raw) <= KEYS:
        raise SpecError(f"Grid {path} must have the keys {', '.join(sorted(KEYS))}")
    cells, seeds = raw["cells"], raw["seeds"]
    if not isinstance(cells, dict) or not cells:
        raise SpecError(f"Grid {path} must have at least one cell, not {cells!r}")
    if not isinstance(seeds, list) or not seeds or any(type(seed) is not int for seed in seeds):
        raise SpecError(f"Grid {path} must have a list of integers as seeds, not {seeds!r}")
    if len(set(seeds)) < len(seeds) or not all(0 <= seed <= LARGEST_SEED for seed in seeds):
        raise SpecError(
            f"Grid {path} must have different seeds from 0 to {LARGEST_SEED}, not {seeds!r}"
        )
    try:
        network, base = config_from_dict(path.stem, raw)
    except (NetworkError, RecipeError, TypeError) as error:
        raise SpecError(f"Grid {path}: {error}") from error
    recipes: dict[str, Recipe] = {}
    for name, changes in cells.items():
        if not isinstance(changes, dict | None):
            raise SpecError(f"Grid {path}, cell {name}: must hold keys and values, not {changes!r}")
        try:
            recipes[str(name)] = base.changed(changes or {})
            if recipes[str(name)].method == REAL:
                raise RecipeError("a network without anything binary has no place in the table")
            for other, recipe in recipes.items():
                if str(name) != other and recipes[str(name)] == recipe:
                    raise RecipeError(f"it must differ from cell {other}")
        except RecipeError as error:
            raise SpecError(f"Grid {path}, cell {name}: {error}") from error
    description = str(raw.get("description", path.stem))
    comparisons = _comparisons(path, raw.get("comparisons"), list(recipes))
    limit = raw.get("limit")
    if limit is not None and (type(limit) is not int or limit < 1):
        raise SpecError(f"Grid {path} must have a number of images as limit, not {limit!r}")
    return Spec(path.stem, description, network, limit, tuple(seeds), recipes, comparisons)


def _comparisons(path: Path, raw: Any, cells: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """All cells with the first one, where the file does not say."""
    if raw is None:
        return {cells[0]: tuple(cells[1:])}
    if not isinstance(raw, dict) or not all(isinstance(names, list) for names in raw.values()):
        raise SpecError(f"Grid {path} must have lists of cells, by cell, as comparisons")
    for name in (name for reference, names in raw.items() for name in (reference, *names)):
        if name not in cells:
            raise SpecError(f"Grid {path} must compare its cells, not {name!r}")
    return {reference: tuple(names) for reference, names in raw.items()}


Row = dict[str, str]


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


def finished(spec: Spec, rows: Sequence[Row], inputs: Mapping[str, str] | None = None) -> list[Row]:
    """Those rows that still are the grid's, in its order. ``inputs``: what stands for images and
    teacher, by cell; None where those of the rows will do."""
    found = []
    for cell in spec.runs():
        for row in rows:
            same = inputs is None or row["inputs"] == inputs[cell.name]
            if same and row["digest"] == spec.digest(cell):
                found.append({**row, "cell": cell.name})
                break
    return found


def write_results(path: Path, rows: Sequence[Row]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(path, text.getvalue().encode())
