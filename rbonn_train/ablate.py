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
from rbonn_train.loop import Trainer
from rbonn_train.phases import FIRST_SUFFIX
from rbonn_train.state import Interrupts, read_state
from rbonn_train.teacher import load_teacher, teacher_digest

ADVICE = "the same command goes on"

Sets = tuple[Dataset | FileSet, Dataset | FileSet]
"""For training and for testing."""


def fingerprints(spec: Spec, sets: Sets) -> dict[str, str]:
    """By cell, what changes with the images, their labels, and what is in a teacher's file."""
    images = "-".join(f"{dataset.digest():08x}" for dataset in sets)
    teachers = {name: teacher_digest(recipe.teacher) for name, recipe in spec.cells.items()}
    return {n: images if t is None else f"{images}-{t:08x}" for n, t in teachers.items()}


def run_cell(
    spec: Spec,
    cell: Cell,
    sets: Sets,
    folder: Path,
    inputs: str,
    *,
    keep: bool = False,
    **options: Any,
) -> Row:
    """Trains a cell, or finishes it, in ``folder``; returns its row. What it wrote is removed, or
    kept in a folder of the cell's name and seed. ``inputs``: its part of
    :func:`fingerprints`."""
    work = folder / f"{spec.digest(cell)}-{inputs}"
    kept = folder / f"{spec.first_digest(cell)}-{inputs}{FIRST_SUFFIX}"
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
        "inputs": inputs,
    }
    if keep:
        place = folder / f"{cell.name}, seed {cell.seed}".replace("/", "-")
        if place.exists():
            shutil.rmtree(place)
        work.rename(place)
    else:
        shutil.rmtree(work)
    return row


def _write(
    spec: Spec, source: Path, results: Path, rows: Sequence[Row], others: Sequence[Row]
) -> None:
    """The table of all rows, and beside it page (.md) and plot (.svg) of the grid's."""
    write_results(results, [*rows, *others])
    plot = results.with_suffix(".svg")
    write_atomically(plot, picture(spec, rows).encode())
    page = document(spec, source, rows, plot.name)
    write_atomically(results.with_suffix(".md"), page.encode())


def run_grid(
    source: Path, results: Path, folder: Path, sets: Sets, **options: Any
) -> Iterator[tuple[Row, int]]:
    """Runs what is missing; ``results`` (CSV), their page and their plot are written at the start
    and after each cell. Yields each new row and how many are still missing. Rows that are not of
    this grid as it is now stay in ``results``, after its own: a changed file loses nothing.

    Raises SpecError, CheckpointError for a teacher, and KeyboardInterrupt on Ctrl-C or SIGTERM,
    the run's state saved.
    """
    spec = load_spec(source)
    for teacher in {recipe.teacher for recipe in spec.cells.values()}:
        if teacher is not None:  # said now, not hours later
            load_teacher(teacher, spec.network)
    inputs = fingerprints(spec, sets)
    known = read_results(results)
    rows = finished(spec, known, inputs)
    done = {row["digest"] for row in rows}
    current = [(row["digest"], row["inputs"]) for row in rows]
    others = [row for row in known if (row["digest"], row["inputs"]) not in current]
    missing = [cell for cell in spec.runs() if spec.digest(cell) not in done]
    interrupts = Interrupts()
    _write(spec, source, results, rows, others)
    for number, cell in enumerate(missing):
        made = inputs[cell.name]
        row = run_cell(spec, cell, sets, folder, made, interrupts=interrupts, **options)
        rows = finished(spec, [*rows, row], inputs)
        _write(spec, source, results, rows, others)
        yield row, len(missing) - number - 1
        if interrupts.requested and cell is not missing[-1]:  # while the last epoch was tested
            raise KeyboardInterrupt(f"interrupted; {ADVICE}")
