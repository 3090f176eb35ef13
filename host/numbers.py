"""The measured numbers in README.md and docs/: written between markers, never by hand.

A block begins with `<!-- numbers:NAME -->` and ends with `<!-- /numbers -->`; NAME is a key of
BLOCKS. What has not been measured is said to be so.
"""

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from host.errors import UserError

Report = Mapping[str, Any]
Metrics = Mapping[str, Mapping[str, Any]]  # of the checkpoints that ship, by model


@dataclass(frozen=True)
class Figures:
    """All that is published: reports of builds, metrics, and what `rbonn bench` measured."""

    reports: Sequence[Report] = ()
    metrics: Metrics = field(default_factory=dict)
    benches: Sequence[Mapping[str, Any]] = ()

    def of(self, what: str) -> list[Mapping[str, Any]]:
        """What `rbonn bench WHAT` measured."""
        return [bench for bench in self.benches if bench["what"] == what]


BENCHES = "bench"  # folder within the build's, a file for each thing measured
_BLOCK = re.compile(r"(<!-- numbers:(\S+) -->\n)(.*?)(<!-- /numbers -->)", re.DOTALL)
_UNMEASURED = "*Not measured yet: `rbonn bench {}`, then `rbonn report`.*"
_MISSING = "*Not measured yet: `make bitstream`, then `make report`.*"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.2%}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|---" + "|---:" * (len(head) - 1) + "|"]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def results(figures: Figures) -> str:
    """Speed and accuracy of every build."""
    if not figures.reports:
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
        for r in figures.reports
    ]
    return _table(head, rows)


def _over_the_line(report: Report) -> str:
    line = report.get("end_to_end")
    return "–" if line is None else f"{line['fps']:,.1f}"


def _accuracies(report: Report) -> list[str]:
    if report.get("untrained"):
        return ["untrained", "untrained"]
    return [_percent(report["accuracy_float"]), _percent(report["accuracy_integer"])]


def efficiency(figures: Figures) -> str:
    """How busy the hardware is, and how good the estimate was."""
    if not figures.reports:
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
        for r in figures.reports
    ]
    return _table(head, rows)


def schedule(figures: Figures) -> str:
    """What computing the next frame's stem meanwhile saves, and how busy is what binds."""
    if not figures.reports:
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
        for r in figures.reports
        if r.get("cycles_in_sequence") is not None
    ]
    return _table(head, rows)


def resources(figures: Figures) -> str:
    """What the FPGA is filled with."""
    if not figures.reports:
        return _MISSING
    names = {"lut": "LUT4", "ff": "flip-flops", "ebr": "block RAM", "dsp": "multipliers"}
    rows = [
        [f"{r['model']}, {r['board']}"]
        + [
            f"{r[n]['used']:,} of {r[n]['available']:,} ({r[n]['used'] / r[n]['available']:.0%})"
            for n in names
        ]
        for r in figures.reports
    ]
    return _table(["network, board", *names.values()], rows)


def accuracy(figures: Figures) -> str:
    """What training measured on the whole test set, for the checkpoints that ship."""
    if not figures.metrics:
        return "*No checkpoint ships yet: `make train`.*"
    rows = [
        [
            model,
            f"{m.get('images', 0):,}",
            _percent(m.get("accuracy_float")),
            _percent(m.get("accuracy_integer")),
        ]
        for model, m in figures.metrics.items()
    ]
    return _table(["network", "test images", "float", "integer (bit-exact)"], rows)


def routing(figures: Figures) -> str:
    """Each seed that was placed and routed for the published bitstreams, by board."""
    boards = {r["board"]: r for r in figures.reports if r.get("seeds")}
    if not boards:
        return _MISSING
    rows = [
        [
            board,
            f"{report['clock_mhz']:.1f} MHz",
            f"{tried['seed']}{' (used)' if tried['seed'] == report['seed'] else ''}",
            "missed" if tried["fmax_mhz"] is None else f"{tried['fmax_mhz']:.1f} MHz",
        ]
        for board, report in boards.items()
        for tried in report["seeds"]
    ]
    tools = {name: v for r in boards.values() for name, v in r["tool_versions"].items()}
    said = ", ".join(f"{name} {v}" for name, v in tools.items())
    return f"{_table(['board', 'target', 'seed', 'routed'], rows)}\n\nTools: {said}."


def golden(figures: Figures) -> str:
    """The golden model beside PyTorch, as `rbonn bench golden` measured them."""
    found = figures.of("golden")
    if not found:
        return _UNMEASURED.format("golden")
    head = ["network", "golden, frames/s", "PyTorch float32, frames/s", "ratio", "on"]
    rows = [
        [
            _network(b),
            f"{b['golden_fps']:,.1f}",
            f"{b['float_fps']:,.1f}",
            f"{b['golden_over_float']:.2f}",
            _computer(b),
        ]
        for b in found
    ]
    return _table(head, rows)


def board(figures: Figures) -> str:
    """A board with an SDRAM and the way to it, as `rbonn bench board-sim` simulated them."""
    found = figures.of("board-sim")
    if not found:
        return _UNMEASURED.format("board-sim")
    head = ["network, board", "frames in the SDRAM, frames/s",
            "with starts and largest logits over the UART", "bytes a frame",
            "end to end with pixels", "bytes a frame"]  # fmt: skip
    rows = [
        [
            f"{_network(b)}, {b['board']}",
            f"{b['kernel_fps']:,.1f}",
            f"{b['batch_fps']:,.1f}",
            f"{b['batch_bytes_per_frame']:,}",
            f"{b['end_to_end_fps']:,.2f}",
            f"{b['bytes_per_frame']:,}",
        ]
        for b in found
    ]
    return _table(head, rows)


def _network(bench: Mapping[str, Any]) -> str:
    """The network's name, and that its weights are seeded ones if they are."""
    return f"{bench['model']} (untrained)" if bench.get("untrained") else str(bench["model"])


def training_cost(figures: Figures) -> str:
    """What a training step costs, as `rbonn bench train` measured it."""
    found = figures.of("train")
    if not found:
        return _UNMEASURED.format("train")
    head = ["network, method", "batch, precision", "step", "over plain binary weights",
            "over real weights", "peak memory over plain", "on"]  # fmt: skip
    rows = [
        [
            f"{b['model']}, {b['method']}",
            f"{b['train_batch']}, {b['train_precision']}",
            f"{b['train_step_ms']:.0f} ms",
            f"{b['train_step_ratio']:.2f}",
            f"{b['train_step_over_real']:.2f}",
            f"{b['train_peak_ratio']:.2f}",
            _computer(b),
        ]
        for b in found
    ]
    return _table(head, rows)


def rounding(figures: Figures) -> str:
    """What integers change, as `rbonn bench rounding` counted it."""
    found = figures.of("rounding")
    if not found:
        return _UNMEASURED.format("rounding")
    head = ["network", "test images", "float", "integer", "points", "by chance alone",
            "change their class", "from the right one", "to it",
            "change beside simulated rounding"]  # fmt: skip
    rows = []
    for bench in found:
        images, change = bench["images"], bench["float_to_integer"]
        chance = math.sqrt(change["lost"] + change["won"]) / images
        counts = [change["changed"], change["lost"], change["won"]]
        rows.append([
            _network(bench),
            f"{images:,}",
            _percent(bench["float"]),
            _percent(bench["integer"]),
            f"{100 * (bench['integer'] - bench['float']):+.2f}",
            f"± {100 * chance:.2f}",
            *(_percent(count / images) for count in counts),
            _percent(bench["simulated_to_integer"]["changed"] / images),
        ])  # fmt: skip
    return _table(head, rows)


def _computer(bench: Mapping[str, Any]) -> str:
    return f"{bench['threads']} threads of {bench['cpu']}, torch {bench['torch']}"


BLOCKS: Mapping[str, Callable[[Figures], str]] = {
    "results": results,
    "efficiency": efficiency,
    "schedule": schedule,
    "resources": resources,
    "accuracy": accuracy,
    "routing": routing,
    "golden": golden,
    "board": board,
    "training_cost": training_cost,
    "rounding": rounding,
}


def fill(text: str, figures: Figures) -> str:
    """``text`` with every block written anew. Raises UserError for an unknown block."""

    def block(match: re.Match[str]) -> str:
        name = match.group(2)
        if name not in BLOCKS:
            raise UserError(f"Block of numbers must be one of {', '.join(BLOCKS)}, not {name!r}")
        return f"{match.group(1)}{BLOCKS[name](figures)}\n{match.group(4)}"

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


def kept_benches(build: Path) -> list[Mapping[str, Any]]:
    """What `rbonn bench` kept under ``build``, in order of its files. Raises UserError."""
    found = []
    for path in sorted((build / BENCHES).glob("*.json")):
        try:
            found.append(json.loads(path.read_text()))
        except (OSError, ValueError) as error:
            raise UserError(
                f"{path} must be what `rbonn bench` wrote, not {error}; delete it and measure again"
            ) from error
    return found


def update(root: Path, figures: Figures) -> list[Path]:
    """Writes the blocks of README.md and docs/*.md anew; returns the files that changed."""
    from isa.checkpoint import write_atomically

    changed = []
    for path in [root / "README.md", *sorted((root / "docs").glob("*.md"))]:
        if not path.is_file():
            continue
        old = path.read_text()
        new = fill(old, figures)
        if new != old:
            write_atomically(path, new.encode())
            changed.append(path)
    return changed
