"""What a build measured, as report.json: the numbers, where each comes from, and their checks."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from host.errors import UserError
from isa.geometry import Geometry
from isa.network import CheckpointInfo

REPORT_JSON = "report.json"
REPORT_HTML = "report.html"
RESOURCES = ("lut", "ff", "ebr", "dsp")


@dataclass(frozen=True)
class LayerMeasured:
    """Cycles of a layer from the end of the one before, and how many of them each activity took."""

    cycles: int
    activity: Mapping[str, int]


@dataclass(frozen=True)
class Measured:
    """One frame of RTL simulation in steady state.

    ``counters``: the perf counters by lower-case register name. ``layers``: in order of execution;
    empty if unknown. ``tail``: what came after the last of them.
    """

    cycles: int
    counters: Mapping[str, int]
    layers: Sequence[LayerMeasured] = ()
    tail: LayerMeasured | None = None


def share(part: float, whole: float) -> float | None:
    """A ratio rounded to four digits, or None where there is nothing to divide by."""
    return round(part / whole, 4) if whole else None


def build_report(
    *,
    model: str,
    geometry: Geometry,
    checkpoint: Path,
    info: CheckpointInfo,
    image_bytes: int,
    compiled: Mapping[str, Any],
    measured: Measured,
    build: Any,
    stream_peak: float = 1.0,
    end_to_end: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """report.json. ``compiled`` is the compiler's report, ``build`` a hw.build.BuildResult.

    ``info`` is the checkpoint's: accuracies are those that training measured on the whole test set
    and wrote into its metrics; None if it has none. ``stream_peak``: words of the image that could
    come in a cycle. ``end_to_end``: the same board with frames over its serial line.
    """
    metrics = info.metrics
    peak = compiled["peak_binary_macs"] * measured.cycles
    layers = _layers(compiled, measured)
    return {
        "model": model,
        "board": geometry.name,
        "fmax_mhz": build.fmax_mhz,
        "clock_mhz": build.clock_mhz,
        "cycles_per_frame": measured.cycles,
        "fps": round(build.clock_mhz * 1e6 / measured.cycles, 1),
        "end_to_end": None if end_to_end is None else dict(end_to_end),
        "array_busy": share(measured.counters["array_busy"], measured.counters["binary_cycles"]),
        "mac_utilisation": share(compiled["binary_macs"], peak),
        "roofline_ratio": share(compiled["roofline"]["critical_path"], measured.cycles),
        "array_busy_where_it_binds": _array_busy(layers),
        "stream_efficiency": _stream_efficiency(layers, stream_peak),
        **{
            name: {"used": build.utilisation[name][0], "available": build.utilisation[name][1]}
            for name in RESOURCES
        },
        "image_bytes": image_bytes,
        "accuracy_float": metrics.get("accuracy_float"),
        "accuracy_integer": metrics.get("accuracy_integer"),
        "checkpoint": str(checkpoint),
        "untrained": info.untrained,
        "tool_versions": dict(build.tool_versions),
        "seed": build.seed,
        "seeds": [{"seed": seed, "fmax_mhz": mhz} for seed, mhz in build.tried],
        # Beyond what other tools rely on: for the page, and for whoever wants to know more.
        "estimated_cycles": compiled["estimate"]["cycles"],
        "cycles_in_sequence": compiled["estimate"]["in_sequence"],
        "critical_path": compiled["roofline"]["critical_path"],
        "counters": dict(measured.counters),
        "overlap": compiled["overlap"],
        "stream_peak": stream_peak,
        "layers": layers,
        "tail": None if measured.tail is None else vars(measured.tail),
        "memory": compiled["memory"],
    }


def sum_of_parts(
    order: Sequence[int], parts: Sequence[LayerMeasured]
) -> list[LayerMeasured | None]:
    """What each layer took, from what its parts did; ``order``: the layer of each."""
    sums: list[LayerMeasured | None] = [None] * (max(order) + 1)
    for layer, part in zip(order, parts, strict=True):
        so_far = sums[layer] or LayerMeasured(0, {})
        activity = {
            name: so_far.activity.get(name, 0) + count for name, count in part.activity.items()
        }
        sums[layer] = LayerMeasured(so_far.cycles + part.cycles, activity)
    return sums


def _layers(compiled: Mapping[str, Any], measured: Measured) -> list[dict[str, Any]]:
    """Estimated and simulated cycles of each layer, and what every unit has to do for it."""
    estimates, roofline = compiled["estimate"]["layers"], compiled["roofline"]["layers"]
    simulated: Sequence[LayerMeasured | None] = [None] * len(estimates)
    if measured.layers:
        simulated = sum_of_parts(compiled["order"], measured.layers)
    return [
        {
            "name": row["name"],
            "kind": row["kind"],
            "parts": layer["parts"],
            "ahead": layer["ahead"],
            "cycles": None if found is None else found.cycles,
            "activity": {} if found is None else dict(found.activity),
            "estimate": estimate["cycles"],
            "waits": estimate["waits"],
            "phases": row["phases"],
            "bound": row["bound"],
            "binary_macs": row["binary_macs"],
        }
        for row, estimate, layer, found in zip(
            roofline, estimates, compiled["layers"], simulated, strict=True
        )
    ]


def _array_busy(layers: Sequence[Mapping[str, Any]]) -> float | None:
    """Share of their cycles for which the XNOR array works, in the layers that it bounds."""
    found = [layer for layer in layers if layer["bound"] == "xnor"]
    cycles = sum(layer["cycles"] or 0 for layer in found)
    return share(sum(layer["activity"].get("array_busy", 0) for layer in found), cycles)


def _stream_efficiency(layers: Sequence[Mapping[str, Any]], peak: float) -> float | None:
    """Words that came, of those that could have while there was room for them, in the layers that
    the stream bounds and in what is computed ahead between them."""
    found = [layer["activity"] for layer in layers if layer["bound"] == "stream" or layer["ahead"]]
    busy, waits = (
        sum(activity.get(name, 0) for activity in found) for name in ("stream_busy", "wait_stream")
    )
    return share(busy, peak * (busy + waits))


def find_reports(build: Path) -> list[Path]:
    """Every build/MODEL/BOARD/report.json, in order of model and board."""
    return sorted(build.glob(f"*/*/{REPORT_JSON}"))


def read_report(path: Path) -> dict[str, Any]:
    """A report that an earlier build wrote. Raises UserError."""
    try:
        report = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise UserError(
            f"Report must exist before it can be written again, not be missing: {path}; build it "
            f"with `rbonn bitstream`"
        ) from error
    except (OSError, ValueError) as error:
        raise UserError(f"Report must be readable JSON, not {path}: {error}") from error
    if not isinstance(report, dict) or "cycles_per_frame" not in report:
        raise UserError(f"Report must be one that `rbonn bitstream` wrote, not {path}")
    return report
