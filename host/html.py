"""report.json as a page: one self-contained file, without scripts or anything fetched."""

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from host import charts

TEMPLATE = Path(__file__).with_name("report.html")
RESOURCES = {"lut": "LUT4", "ff": "flip-flops", "ebr": "block RAM", "dsp": "multipliers"}

BOUND = {
    "array_busy_where_it_binds": "of their cycles the XNOR array works, in layers that it bounds",
    "stream_efficiency": "of the stream's peak is used, in layers that it bounds",
}

#: What every cycle of a frame is one of: a text and a CSS class for each counter, work first.
CYCLES = {
    "array_busy": ("XNOR array works", "xnor"),
    "mac_busy": ("MAC array works", "mac"),
    "reduce_busy": ("averages", "fill"),
    "wait_weights": ("waits for weights", "stream"),
    "wait_input": ("waits for input", "over"),
    "wait_post": ("waits for post-process", "post"),
    "wait_load": ("waits for a descriptor", "residual"),
    "begin_layer": ("layer begins", "begin"),
    "drain_layer": ("last results drain", "drain"),
    "scan_logits": ("largest logits", "scan"),
    "wait_crc": ("waits for the CRC", "crc"),
}
#: The image's stream, a count of its own.
STREAM = {"stream_busy": "words come", "wait_stream": "waits for words"}
NOT_COUNTED = ("not counted", "soft")  # by gateware of an earlier version

Report = Mapping[str, Any]


def render(report: Report) -> str:
    """The page for a report as :func:`host.report.build_report` makes it."""
    parts = {
        "title": f"{report['model']} on {report['board']}",
        "heading": f"{report['model']} on {report['board']}",
        "summary": (
            f"A {report['image_bytes']:,} byte model image, run by an accelerator routed for "
            f"{report['fmax_mhz']:.1f} MHz and clocked at {report['clock_mhz']:.1f} MHz. Cycles "
            f"are measured in RTL simulation of whole frames."
        ),
    }
    page = TEMPLATE.read_text()
    for name, text in parts.items():
        page = page.replace(f"@@{name}@@", escape(text))
    page = page.replace("@@tiles@@", "".join(_tile(*tile) for tile in _tiles(report)))
    page = page.replace("@@sections@@", "".join(_sections(report)))
    return page.replace("@@footer@@", escape(_footer(report)))


def percent(value: float | None, digits: int = 1) -> str:
    return "not measured" if value is None else f"{value:.{digits}%}"


def _tiles(report: Report) -> list[tuple[str, str]]:
    return [
        (f"{report['fps']:,.1f}", "frames per second of the accelerator"),
        *_over_the_line(report),
        (f"{report['cycles_per_frame']:,}", "cycles per frame"),
        (f"{report['fmax_mhz']:.1f} MHz", f"routed; runs at {report['clock_mhz']:.1f} MHz"),
        *_accuracy(report),
        (percent(report["array_busy"]), "of the binary layers' cycles the XNOR array works"),
        (percent(report["mac_utilisation"]), "of the array's peak is useful, whole frame"),
        (percent(report["roofline_ratio"]), "critical path over simulated cycles"),
        *(
            (percent(report[name]), label)
            for name, label in BOUND.items()
            if report.get(name) is not None
        ),
    ]


def _over_the_line(report: Report) -> list[tuple[str, str]]:
    line = report.get("end_to_end")
    if line is None:
        return []
    label = f"frames per second with pixels and logits over the UART at {line['uart_baud']:,} baud"
    return [(f"{line['fps']:,.1f}", label)]


def _accuracy(report: Report) -> list[tuple[str, str]]:
    if report.get("untrained"):
        return [("untrained", "seeded weights: for speed and bit-exactness, they classify nothing")]
    return [
        (percent(report["accuracy_integer"], 2), "accuracy, integer (what the board computes)"),
        (percent(report["accuracy_float"], 2), "accuracy, float"),
    ]


def _tile(value: str, label: str) -> str:
    return f'<div class="tile"><b>{escape(value)}</b><span>{escape(label)}</span></div>'


def _section(title: str, text: str, *body: str) -> str:
    return f"<section><h2>{escape(title)}</h2><p>{escape(text)}</p>{''.join(body)}</section>"


def _sections(report: Report) -> list[str]:
    layers, counters = report.get("layers", []), report.get("counters", {})
    sections = []
    if layers:
        rows = [_layer_row(layer) for layer in layers]
        sections.append(
            _section(
                "Roofline by layer",
                "Bar: cycles of the layer. Ticks: what each unit alone would need for it; the bar "
                "cannot end before the last of them. Only the stream's may lie beyond it: weights "
                "arrive while earlier layers are computed. Parts of a layer are summed; a stem of "
                "the next frame is computed between those of other layers.",
                charts.legend([u for u in charts.UNITS if any(r.bounds.get(u) for r in rows)]),
                charts.layers(rows, "Cycles of each layer, and what bounds them"),
                _layer_table(layers),
            )
        )
    if any(layer.get("activity") for layer in layers):
        counted = [*layers, *_tail(report)]
        sections.append(
            _section(
                "Where the cycles of each layer went",
                "Counted in simulation, from the end of the layer before: each cycle is in one "
                "column. Averages: 2x2 of the shortcuts, and the global sum. A layer that waits "
                "for weights waits for the image's stream, or for a ring of weights too small to "
                "hold more of them ahead; one that waits for post-process has blocks that are "
                "computed faster than their results are drained. The last two columns count the "
                "stream at the same time: words that come, and cycles that it has room for one.",
                charts.shares(
                    [
                        charts.Shares(
                            _name(layer),
                            layer["cycles"],
                            _where(layer["activity"], layer["cycles"]),
                            f"{layer['cycles']:,} cycles",
                        )
                        for layer in counted
                    ],
                    "Where the cycles of each layer went",
                ),
                _activity_table(counted),
            )
        )
    if counters:
        sections.append(
            _section(
                "Where the cycles went",
                "Counted by the gateware over one frame in steady state: each cycle once. The "
                "counters of the stream, and that of the binary layers' cycles, count beside.",
                charts.stacked(_where(counters, counters["cycles"]), "Where the cycles went"),
                _counter_table(counters),
            )
        )
    resources = [
        charts.Bar(
            label,
            report[name]["used"],
            report[name]["available"],
            f"{report[name]['used']:,} of {report[name]['available']:,} "
            f"({report[name]['used'] / report[name]['available']:.0%})",
        )
        for name, label in RESOURCES.items()
    ]
    sections.append(
        _section("FPGA", "Resources after place and route.", charts.bars(resources, "Resources"))
    )
    if memories := [memory for memory in report.get("memory", {}).values() if memory["used"]]:
        rows_of_memory = [
            charts.Bar(
                memory["subject"],
                memory["used"],
                memory["available"],
                f"{memory['used']:,} of {memory['available']:,} "
                f"({memory['used'] / memory['available']:.0%})",
            )
            for memory in memories
        ]
        sections.append(
            _section(
                "Memory map",
                "What this network uses of the geometry's memories, each in its own unit: "
                + "; ".join(f"{m['subject'].lower()} in {m['unit']}" for m in memories)
                + ".",
                charts.bars(rows_of_memory, "Memories"),
            )
        )
    return sections


def _name(layer: Mapping[str, Any]) -> str:
    """The layer, and what a frame between two others computes of it."""
    return f"{layer['name']} (next frame)" if layer.get("ahead") else str(layer["name"])


def _layer_row(layer: Mapping[str, Any]) -> charts.LayerRow:
    cycles = layer["cycles"] if layer.get("cycles") is not None else layer["estimate"]
    text = f"{cycles:,} cycles"
    if layer.get("cycles") is None:
        text += " (estimate)"
    return charts.LayerRow(_name(layer), cycles, layer["phases"], text)


def _layer_table(layers: Sequence[Mapping[str, Any]]) -> str:
    head = [
        "layer",
        "kind",
        "parts",
        "cycles",
        "estimate",
        *(charts.UNIT_LABELS[u] for u in charts.UNITS),
    ]
    rows = [
        [
            _name(layer),
            layer["kind"].lower(),
            _number(layer.get("parts")),
            _number(layer.get("cycles")),
            _number(layer.get("estimate")),
            *(_number(layer["phases"].get(unit) or None) for unit in charts.UNITS),
        ]
        for layer in layers
    ]
    return _table(head, rows)


def _tail(report: Report) -> list[dict[str, Any]]:
    """What comes after the last layer, as if it were one."""
    tail = report.get("tail")
    return [{"name": "frame's end", **tail}] if tail else []


def _activity_table(layers: Sequence[Mapping[str, Any]]) -> str:
    """Without the columns in which nothing was counted."""
    labels = {name: label for name, (label, _) in CYCLES.items()} | STREAM
    names = [n for n in labels if any(layer["activity"].get(n) for layer in layers)]
    rows = [
        [
            _name(layer),
            _number(layer["cycles"]),
            *(_number(layer["activity"].get(name) or None) for name in names),
        ]
        for layer in layers
    ]
    return _table(["layer", "cycles", *(labels[name] for name in names)], rows)


def _counter_table(counters: Mapping[str, int]) -> str:
    return _table(
        ["counter", "cycles"],
        [[name.replace("_", " "), _number(value)] for name, value in counters.items()],
    )


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    cells = "".join(f"<th>{escape(text)}</th>" for text in head)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(text)}</td>" for text in row) + "</tr>" for row in rows
    )
    return f'<div class="scroll"><table><tr>{cells}</tr>{body}</table></div>'


def _where(counts: Mapping[str, int], cycles: int) -> list[charts.Part]:
    """The cycles of a frame or a layer, cut into work and waits."""
    parts = [(label, counts.get(name, 0), css) for name, (label, css) in CYCLES.items()]
    label, css = NOT_COUNTED
    parts.append((label, max(cycles - sum(value for _, value, _ in parts), 0), css))
    return [(label, float(value), css) for label, value, css in parts if value]


def _footer(report: Report) -> str:
    tools = ", ".join(f"{name} {version}" for name, version in report["tool_versions"].items())
    return f"Checkpoint {report['checkpoint']}. Placement seed {report['seed']}. Tools: {tools}."
