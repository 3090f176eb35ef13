"""The measured numbers in README.md and docs/: written between markers, never by hand.

A block begins with `<!-- numbers:NAME -->` and ends with `<!-- /numbers -->`; NAME is a key of
BLOCKS. What has not been measured is said to be so.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from host.errors import UserError

Report = Mapping[str, Any]
Metrics = Mapping[str, Mapping[str, Any]]  # of the checkpoints that ship, by model

_BLOCK = re.compile(r"(<!-- numbers:(\S+) -->\n)(.*?)(<!-- /numbers -->)", re.DOTALL)
_MISSING = "*Not measured yet: `make bitstream`, then `make report`.*"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.2%}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|---" + "|---:" * (len(head) - 1) + "|"]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def results(reports: Sequence[Report], metrics: Metrics) -> str:
    """Speed and accuracy of every build."""
    if not reports:
        return _MISSING
    head = ["network, board", "routed", "runs at", "cycles a frame", "frames/s",
            "over the UART", "accuracy, float", "accuracy, on the FPGA"]  # fmt: skip
    rows = [
        [
            f"{r['model']}, {r['board']}",
            f"{r['fmax_mhz']:.1f} MHz",
            f"{r['clock_mhz']:.1f} MHz",
            f"{r['cycles_per_frame']:,}",
            f"{r['fps']:,.1f}",
            _over_the_line(r),
            *_accuracies(r),
        ]
        for r in reports
    ]
    return _table(head, rows)


def _over_the_line(report: Report) -> str:
    line = report.get("end_to_end")
    return "–" if line is None else f"{line['fps']:,.1f}"


def _accuracies(report: Report) -> list[str]:
    if report.get("untrained"):
        return ["untrained", "untrained"]
    return [_percent(report["accuracy_float"]), _percent(report["accuracy_integer"])]


def efficiency(reports: Sequence[Report], metrics: Metrics) -> str:
    """How busy the hardware is, and how good the estimate was."""
    if not reports:
        return _MISSING
    head = ["network, board", "XNOR array busy", "of its peak useful", "roofline",
            "estimate / simulated cycles"]  # fmt: skip
    rows = [
        [
            f"{r['model']}, {r['board']}",
            _percent(r["array_busy"]),
            _percent(r["mac_utilisation"]),
            _percent(r["roofline_ratio"]),
            f"{r['estimated_cycles']:,} / {r['cycles_per_frame']:,}",
        ]
        for r in reports
    ]
    return _table(head, rows)


def schedule(reports: Sequence[Report], metrics: Metrics) -> str:
    """What computing the next frame's stem meanwhile saves, and how busy is what binds."""
    if not reports:
        return _MISSING
    head = ["network, board", "layers in sequence", "as scheduled", "simulated", "critical path",
            "XNOR array busy where it binds", "stream used where it binds"]  # fmt: skip
    rows = [
        [
            f"{r['model']}, {r['board']}",
            f"{r['cycles_in_sequence']:,}",
            f"{r['estimated_cycles']:,}",
            f"{r['cycles_per_frame']:,}",
            f"{r['critical_path']:,}",
            _percent(r["array_busy_where_it_binds"]),
            _percent(r["stream_efficiency"]),
        ]
        for r in reports
        if r.get("cycles_in_sequence") is not None
    ]
    return _table(head, rows)


def resources(reports: Sequence[Report], metrics: Metrics) -> str:
    """What the FPGA is filled with."""
    if not reports:
        return _MISSING
    names = {"lut": "LUT4", "ff": "flip-flops", "ebr": "block RAM", "dsp": "multipliers"}
    rows = [
        [f"{r['model']}, {r['board']}"]
        + [
            f"{r[n]['used']:,} of {r[n]['available']:,} ({r[n]['used'] / r[n]['available']:.0%})"
            for n in names
        ]
        for r in reports
    ]
    return _table(["network, board", *names.values()], rows)


def accuracy(reports: Sequence[Report], metrics: Metrics) -> str:
    """What training measured on the whole test set, for the checkpoints that ship."""
    if not metrics:
        return "*No checkpoint ships yet: `make train`.*"
    rows = [
        [
            model,
            f"{m.get('images', 0):,}",
            _percent(m.get("accuracy_float")),
            _percent(m.get("accuracy_integer")),
        ]
        for model, m in metrics.items()
    ]
    return _table(["network", "test images", "float", "integer (bit-exact)"], rows)


BLOCKS: Mapping[str, Callable[[Sequence[Report], Metrics], str]] = {
    "results": results,
    "efficiency": efficiency,
    "schedule": schedule,
    "resources": resources,
    "accuracy": accuracy,
}


def fill(text: str, reports: Sequence[Report], metrics: Metrics) -> str:
    """``text`` with every block written anew. Raises UserError for an unknown block."""

    def block(match: re.Match[str]) -> str:
        name = match.group(2)
        if name not in BLOCKS:
            raise UserError(f"Block of numbers must be one of {', '.join(BLOCKS)}, not {name!r}")
        return f"{match.group(1)}{BLOCKS[name](reports, metrics)}\n{match.group(4)}"

    return _BLOCK.sub(block, text)


def shipped_metrics(models: Path) -> dict[str, Mapping[str, Any]]:
    """Metrics of the checkpoints that ship, by model; those that cannot be read are left out."""
    from isa.checkpoint import CheckpointError, read_checkpoint

    found = {}
    for path in sorted(models.glob("*.safetensors")):
        try:
            found[path.stem] = read_checkpoint(path, calibrated=False)[0].metrics
        except CheckpointError:
            continue
    return found


def update(root: Path, reports: Sequence[Report], metrics: Metrics) -> list[Path]:
    """Writes the blocks of README.md and docs/*.md anew; returns the files that changed."""
    from isa.checkpoint import write_atomically

    changed = []
    for path in [root / "README.md", *sorted((root / "docs").glob("*.md"))]:
        if not path.is_file():
            continue
        old = path.read_text()
        new = fill(old, reports, metrics)
        if new != old:
            write_atomically(path, new.encode())
            changed.append(path)
    return changed
