"""The page of a grid: its table, what differs measurably from what, and a plot.

Cells are compared seed by seed: runs of one seed share step 1 and the order of the images, so the
mean of their differences is known better than either accuracy. Student's t gives its interval.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from rbonn_train.grid import Row, Spec

# Student's t, 95 % of both sides, by degrees of freedom from 1; more than nine count as nine.
STUDENT = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)
MEASURE = "accuracy_integer"
FLOAT = "accuracy_float"
COLUMNS = {MEASURE: "test, integer %", FLOAT: "test, float %", "train_accuracy": "training %"}
COST = "integer − float"
BETTER, WORSE, EQUAL, OPEN = "better", "worse", "not measurable", "open: two seeds at least"

WIDTH, LEFT, RIGHT, ROW, TOP, BOTTOM = 860, 230, 30, 24, 34, 40
STYLE = (
    "text{font:13px sans-serif;fill:#222}.grid{stroke:#ddd}.mean{stroke:#b3261e;stroke-width:3}"
    ".run{fill:#1f5fa8;fill-opacity:.6}"
)


def interval(differences: Sequence[float]) -> tuple[float, float]:
    """Mean of at least two differences, and half the width of its 95 % interval."""
    count = len(differences)
    student = STUDENT[min(count - 1, len(STUDENT)) - 1]
    half = student * statistics.stdev(differences) / math.sqrt(count)
    return round(statistics.fmean(differences), 6) + 0.0, half  # never -0


def differences(rows: Sequence[Row], cell: str, reference: str) -> list[float]:
    """In points of accuracy, a value for each seed that both cells have."""
    own, other = (
        {row["seed"]: float(row[MEASURE]) for row in rows if row["cell"] == name}
        for name in (cell, reference)
    )
    return [100 * (own[seed] - other[seed]) for seed in own if seed in other]


def costs(rows: Sequence[Row]) -> list[float]:
    """What integers cost each run, in points: negative where they lose."""
    return [100 * (float(row[MEASURE]) - float(row[FLOAT])) for row in rows]


def verdict(values: Sequence[float]) -> str:
    """Whether the interval of the differences lies above, below or around 0."""
    if len(values) < 2:
        return OPEN
    mean, half = interval(values)
    if abs(mean) <= half:
        return EQUAL
    return BETTER if mean > 0 else WORSE


def table(spec: Spec, rows: Sequence[Row]) -> str:
    """Mean and deviation of every cell, and what integers cost it, in points, as Markdown."""
    lines = [f"| recipe | runs | {' | '.join([*COLUMNS.values(), COST])} |"]
    lines.append("|---|---:|---:|---:|---:|---:|")
    for cell in spec.cells:
        own = [row for row in rows if row["cell"] == cell]
        entries = ["–"] * (len(COLUMNS) + 1)
        if own:
            points = ([100 * float(row[name]) for row in own] for name in COLUMNS)
            entries = [*map(_with_deviation, points), _with_deviation(costs(own), "+")]
        lines.append(f"| {cell} | {len(own)} | {' | '.join(entries)} |")
    return "\n".join(lines) + "\n"


def _with_deviation(values: Sequence[float], sign: str = "") -> str:
    spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{round(statistics.fmean(values), 2) + 0.0:{sign}.2f}{spread}"  # never -0


def compared(spec: Spec, rows: Sequence[Row]) -> str:
    """What the grid compares, as Markdown: differences, and what they say."""
    lines = ["| recipe | beside | seeds | points | |", "|---|---|---:|---:|---|"]
    found: dict[str, list[str]] = {BETTER: [], WORSE: [], EQUAL: []}
    halves = []
    for reference, cells in spec.comparisons.items():
        for cell in cells:
            values, points = differences(rows, cell, reference), "–"
            word = verdict(values)
            if len(values) > 1:
                mean, half = interval(values)
                points = f"{mean:+.2f} ± {half:.2f}"
                halves.append(half)
                found[word].append(f"{cell} ({mean:+.2f} beside {reference})")
            lines.append(f"| {cell} | {reference} | {len(values)} | {points} | {word} |")
    return "\n".join(lines) + f"\n\n{_reading(found, halves)}\n"


def _reading(found: Mapping[str, Sequence[str]], halves: Sequence[float]) -> str:
    if not halves:
        return "No comparison has two seeds yet: nothing can be said."
    starts = {BETTER: "Measurably better: ", WORSE: "Measurably worse: ", EQUAL: "Not measurable: "}
    said = [f"{start}{'; '.join(found[word]) or 'none'}." for word, start in starts.items()]
    return "\n\n".join([
        f"Half of the intervals are narrower than ± {statistics.median(halves):.2f} points: a "
        f"difference smaller than that may exist, but this grid does not show it. One in twenty "
        f"comparisons leaves its interval by chance.",
        *said,
    ])  # fmt: skip


def document(spec: Spec, source: Path, rows: Sequence[Row], plot: str) -> str:
    """The page of a grid, whose plot is in the file ``plot`` beside it."""
    network, recipes = spec.network, spec.cells.values()
    steps = {(r.binary_activations.epochs, r.binary_weights.epochs) for r in recipes}
    epochs = " or ".join(
        f"{first} epochs with binary activations, {second} with binary weights"
        for first, second in sorted(steps)
    )
    images = "the whole training set" if spec.limit is None else f"{spec.limit:,} images"
    values = "Mean ± standard deviation over seeds" if len(spec.seeds) > 1 else "One seed"
    overall = _with_deviation(costs(rows), "+") if rows else "–"
    page = (
        f"# {spec.description}\n\n"
        f"Written by `rbonn ablate {source}`; do not edit. Network: "
        f"{network.input_size[0]}x{network.input_size[1]} pixels, stages of "
        f"{', '.join(map(str, network.widths))} channels with "
        f"{', '.join(map(str, network.blocks_per_stage))} blocks. Each run: {epochs}, "
        f"on {images}. {values}, "
        f"{COST} in points; "
        f"{len(rows)} of {len(spec.cells) * len(spec.seeds)} runs done.\n\n"
        f"{table(spec, rows)}\n"
        f"Over all runs, {COST} is {overall} points.\n\n"
        f"![Accuracy of every run]({plot})\n"
    )
    if len(spec.seeds) == 1:
        return page
    return (
        f"{page}\n## Differences\n\n"
        f"Integer accuracy on the test set, minus that of the recipe beside it with the same seed: "
        f"mean and 95 % interval (Student's t).\n\n"
        f"{compared(spec, rows)}"
    )


def picture(spec: Spec, rows: Sequence[Row]) -> str:
    """A row for each cell, a dot for each run, a bar at the mean, as an SVG file."""
    values = [100 * float(row[MEASURE]) for row in rows] or [0.0]
    low, high = math.floor(min(values)), math.floor(max(values)) + 1
    bottom = TOP + ROW * len(spec.cells)

    def across(value: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (value - low) / (high - low)

    body = [f"<style>{STYLE}</style>", '<rect width="100%" height="100%" fill="#fff"/>']
    for value in range(low, high + 1, max(1, (high - low) // 10)):
        x = f"{across(value):.1f}"
        body.append(f'<line x1="{x}" x2="{x}" y1="{TOP}" y2="{bottom}" class="grid"/>')
        body.append(f'<text x="{x}" y="{bottom + 18}" text-anchor="middle">{value}</text>')
    for number, cell in enumerate(spec.cells):
        y = TOP + ROW * number + ROW // 2
        body.append(f'<text x="{LEFT - 12}" y="{y + 4}" text-anchor="end">{escape(cell)}</text>')
        own = [100 * float(row[MEASURE]) for row in rows if row["cell"] == cell]
        body += [f'<circle cx="{across(v):.1f}" cy="{y}" r="4" class="run"/>' for v in own]
        if own:
            x = f"{across(statistics.fmean(own)):.1f}"
            body.append(f'<line x1="{x}" x2="{x}" y1="{y - 9}" y2="{y + 9}" class="mean"/>')
    title = f"{escape(spec.description)}: integer accuracy on the test set, %"
    body.append(f'<text x="12" y="20">{title}</text>')
    height = bottom + BOTTOM
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        f'width="{WIDTH}" height="{height}">\n' + "\n".join(body) + "\n</svg>\n"
    )
