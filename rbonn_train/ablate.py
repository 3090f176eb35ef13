"""A grid of recipes and seeds, one short run each, and the page of what came out.

Finished cells are rows of a CSV file and are skipped, unless what they stand for has changed; an
interrupted cell goes on where it stopped. Cells that share step 1 compute it once.
"""

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from isa.checkpoint import read_checkpoint, write_atomically
from rbonn_train.comparison import document, picture
from rbonn_train.config import ModelConfig
from rbonn_train.data import Dataset
from rbonn_train.files import FileSet
from rbonn_train.grid import Cell, Row, Spec, finished, load_spec, read_results, write_results
from rbonn_train.loop import FIRST_SUFFIX, Trainer
from rbonn_train.state import read_state

ADVICE = "the same command goes on"

Sets = tuple[Dataset | FileSet, Dataset | FileSet]
"""For training and for testing."""


def run_cell(
    spec: Spec, cell: Cell, sets: Sets, folder: Path, *, keep: bool = False, **options: Any
) -> Row:
    """Trains a cell, or finishes it, in ``folder``; returns its row. What it wrote is removed, or
    kept in a folder of the cell's name and seed."""
    work = folder / spec.digest(cell)
    kept = folder / f"{spec.first_digest(cell)}{FIRST_SUFFIX}"
    first = kept if kept.exists() else None
    config = ModelConfig(spec.network, cell.recipe)
    trainer = Trainer(config, *sets, cell.seed, work, first=first, advice=ADVICE, **options)
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
    if keep:
        place = folder / f"{cell.name}, seed {cell.seed}".replace("/", "-")
        if place.exists():
            shutil.rmtree(place)
        work.rename(place)
    else:
        shutil.rmtree(work)
    return row


def write_page(spec: Spec, source: Path, results: Path, rows: Sequence[Row]) -> None:
    """The page (.md) and the plot (.svg) of ``results``, beside it."""
    plot = results.with_suffix(".svg")
    write_atomically(plot, picture(spec, rows).encode())
    page = document(spec, source, rows, plot.name)
    write_atomically(results.with_suffix(".md"), page.encode())


def run_grid(
    source: Path, results: Path, folder: Path, sets: Sets, **options: Any
) -> Iterator[tuple[Row, int]]:
    """Runs what is missing; ``results`` (CSV), their page and their plot are written at the start
    and after each cell. Yields each new row and how many are still missing."""
    spec = load_spec(source)
    rows = finished(spec, read_results(results))
    done = {row["digest"] for row in rows}
    missing = [cell for cell in spec.runs() if spec.digest(cell) not in done]
    write_results(results, rows)
    write_page(spec, source, results, rows)
    for number, cell in enumerate(missing):
        rows = finished(spec, [*rows, run_cell(spec, cell, sets, folder, **options)])
        write_results(results, rows)
        write_page(spec, source, results, rows)
        yield (
            next(row for row in rows if row["digest"] == spec.digest(cell)),
            len(missing) - number - 1,
        )
