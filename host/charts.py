"""Charts of the report as inline SVG: plain text, no library, styled by the page's CSS.

Every function returns one `<svg>` element as wide as its container. Numbers are never shown by
colour alone: each bar carries its value as text, and the full tables stand below the charts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

WIDTH = 860
LABEL_WIDTH = 170
VALUE_WIDTH = 190
PLOT_WIDTH = WIDTH - LABEL_WIDTH - VALUE_WIDTH
ROW_HEIGHT = 26
BAR_HEIGHT = 14

UNITS = ("xnor", "mac", "post", "residual", "stream")
UNIT_LABELS = {
    "xnor": "XNOR array",
    "mac": "MAC array",
    "post": "post-process",
    "residual": "residual port",
    "stream": "image stream",
}
# Ticks in the same place stay visible: later ones are drawn over earlier ones, and are shorter.
TICK_HEIGHTS = {"xnor": 22, "mac": 22, "post": 17, "residual": 12, "stream": 6}


@dataclass(frozen=True)
class Bar:
    """One horizontal bar: ``value`` of ``full`` (> 0), and the text at its end."""

    label: str
    value: float
    full: float
    text: str


#: Of a bar: label, value, CSS class.
Part = tuple[str, float, str]


@dataclass(frozen=True)
class Shares:
    """One bar that is cut into parts, and the text at its end."""

    label: str
    value: float
    parts: Sequence[Part]
    text: str


@dataclass(frozen=True)
class LayerRow:
    """One layer: cycles (simulated or, with ``estimated``, the compiler's), and what each unit
    alone would need for it."""

    label: str
    cycles: float
    bounds: Mapping[str, float]
    text: str
    estimate: float | None = None


def _svg(height: float, body: Sequence[str], title: str) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH} {height:.0f}" role="img" aria-label="{escape(title)}">'
        f"<title>{escape(title)}</title>{''.join(body)}</svg>"
    )


def _rect(x: float, y: float, width: float, css: str, tip: str = "") -> str:
    inner = f"<title>{escape(tip)}</title>" if tip else ""
    return (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(width, 0):.1f}" height="{BAR_HEIGHT}" rx="2" '
        f'class="{css}">{inner}</rect>'
    )


def _text(x: float, y: float, text: str, css: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{css}">{escape(text)}</text>'


def _label(y: float, label: str) -> str:
    return _text(LABEL_WIDTH - 10, y + 11, label, "label")


def bars(rows: Sequence[Bar], title: str) -> str:
    """How much of each resource is used. A bar that is more than full is drawn as overfull."""
    body = []
    for index, row in enumerate(rows):
        y = index * ROW_HEIGHT + 6
        share = row.value / row.full
        body += [
            _label(y, row.label),
            _rect(LABEL_WIDTH, y, PLOT_WIDTH, "track"),
            _rect(
                LABEL_WIDTH,
                y,
                PLOT_WIDTH * min(share, 1),
                "fill" if share <= 1 else "over",
                f"{row.label}: {row.text}",
            ),
            _text(LABEL_WIDTH + PLOT_WIDTH + 10, y + 11, row.text),
        ]
    return _svg(len(rows) * ROW_HEIGHT + 6, body, title)


def stacked(parts: Sequence[Part], title: str) -> str:
    """One bar cut into parts, with a legend below it."""
    total = sum(value for _, value, _ in parts) or 1
    labelled = [(f"{label} {value:,.0f} ({value / total:.0%})", css) for label, value, css in parts]
    key, height = _key(labelled, 44.0)
    return _svg(height, [*_cut(0, 4, WIDTH / total, parts), *key], title)


def shares(rows: Sequence[Shares], title: str) -> str:
    """A bar for each row, as long as its value and cut into its parts, with a legend below."""
    longest = max([row.value for row in rows] + [1])
    scale = PLOT_WIDTH / longest
    body: list[str] = []
    for index, row in enumerate(rows):
        y = index * ROW_HEIGHT + 6
        body += [
            _label(y, row.label),
            *_cut(LABEL_WIDTH, y, scale, row.parts),
            _text(LABEL_WIDTH + PLOT_WIDTH + 10, y + 11, row.text),
        ]
    used = dict.fromkeys((label, css) for row in rows for label, _, css in row.parts)
    key, height = _key(list(used), len(rows) * ROW_HEIGHT + 24.0)
    return _svg(height, [*body, *key], title)


def _cut(x: float, y: float, scale: float, parts: Sequence[Part]) -> list[str]:
    """The parts of one bar, a gap between those that are wide enough for one."""
    body = []
    for label, value, css in parts:
        width = value * scale
        gap = 1 if width > 3 else 0
        body.append(_rect(x, y, width - gap, css, f"{label}: {value:,.0f}"))
        x += width
    return body


def _key(labelled: Sequence[tuple[str, str]], y: float) -> tuple[list[str], float]:
    """Coloured squares with their labels, from height ``y`` on; and where they end."""
    body, x = [], 0.0
    for text, css in labelled:
        width = 30 + 7.2 * len(text)
        if x + width > WIDTH:
            x, y = 0.0, y + 22
        body += [
            f'<rect x="{x:.0f}" y="{y - 10:.0f}" width="10" height="10" rx="2" class="{css}"/>',
            _text(x + 16, y, text),
        ]
        x += width
    return body, y + 10


def layers(rows: Sequence[LayerRow], title: str) -> str:
    """Cycles of each layer as a bar, and a tick where each unit alone would have been done.

    The rightmost tick is the layer's roofline: bar beyond it is time in which even the busiest
    unit waited.
    """
    longest = max([row.cycles for row in rows] + [1])
    scale = PLOT_WIDTH / longest
    body = []
    for index, row in enumerate(rows):
        y = index * ROW_HEIGHT + 6
        body += [
            _label(y, row.label),
            _rect(LABEL_WIDTH, y, row.cycles * scale, "fill soft", f"{row.label}: {row.text}"),
        ]
        for unit in UNITS:
            if bound := row.bounds.get(unit, 0):
                x = LABEL_WIDTH + min(bound * scale, PLOT_WIDTH)
                tip = f"{row.label}, {UNIT_LABELS[unit]}: {bound:,.0f} cycles"
                height = TICK_HEIGHTS[unit]
                top = y + (BAR_HEIGHT - height) / 2
                body.append(
                    f'<rect x="{x - 1.5:.1f}" y="{top}" width="3" height="{height}" '
                    f'class="{unit}"><title>{escape(tip)}</title></rect>'
                )
        body.append(_text(LABEL_WIDTH + PLOT_WIDTH + 10, y + 11, row.text))
    return _svg(len(rows) * ROW_HEIGHT + 6, body, title)


def legend(units: Sequence[str]) -> str:
    """What the ticks of :func:`layers` stand for."""
    body, x = [], float(LABEL_WIDTH)
    for unit in units:
        body += [
            f'<rect x="{x:.0f}" y="2" width="3" height="16" class="{unit}"/>',
            _text(x + 9, 15, UNIT_LABELS[unit]),
        ]
        x += 30 + 7.2 * len(UNIT_LABELS[unit])
    return _svg(22, body, "Units")
