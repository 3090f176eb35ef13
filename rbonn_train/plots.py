"""Plots of a run's page as inline SVG and PNG, styled by the page's CSS."""

import base64
import io
from collections.abc import Mapping, Sequence
from html import escape

import numpy as np
from PIL import Image

WIDTH, HEIGHT = 860, 220
LEFT, BOTTOM, TOP = 60, 30, 26
CLASSES = ("one", "two")
BINS = 32


def svg(width: float, height: float, body: Sequence[str], title: str) -> str:
    return (
        f'<svg viewBox="0 0 {width:.0f} {height:.0f}" role="img" aria-label="{escape(title)}">'
        f"<title>{escape(title)}</title>{''.join(body)}</svg>"
    )


def text(x: float, y: float, content: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(content)}</text>'


def curves(lines: Mapping[str, Sequence[float]], title: str) -> str:
    """At most two lines over the epochs from 1; the last value of each stands in the legend."""
    values = [value for line in lines.values() for value in line]
    low, high = min(values), max(values)
    span = high - low or 1.0
    count = max(len(line) for line in lines.values())

    def place(number: int, value: float) -> tuple[float, float]:
        x = LEFT + (WIDTH - LEFT - 20) * (number / max(1, count - 1))
        return x, TOP + (HEIGHT - TOP - BOTTOM) * (1 - (value - low) / span)

    body = []
    for value in (low, high):
        y = place(0, value)[1]
        body.append(f'<line x1="{LEFT}" x2="{WIDTH}" y1="{y:.1f}" y2="{y:.1f}" class="axis"/>')
        body.append(text(LEFT - 6, y + 4, f"{value:.4g}", "end"))
    for number, (name, line) in enumerate(lines.items()):
        css, start = CLASSES[number], LEFT + 300 * number
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(i, v) for i, v in enumerate(line)))
        body.append(f'<polyline points="{path}" class="line {css}"/>')
        body.append(f'<line x1="{start}" x2="{start + 24}" y1="8" y2="8" class="line {css}"/>')
        body.append(text(start + 30, 12, f"{name.replace('_', ' ')} {line[-1]:.4g}"))
    body += [text(LEFT, HEIGHT - 8, "1"), text(WIDTH, HEIGHT - 8, f"epoch {count}", "end")]
    return svg(WIDTH, HEIGHT, body, title)


def heat(rows: Mapping[str, Sequence[float]], title: str) -> str:
    """A row of cells a name; the darker, the larger. Values are in the tips of the cells."""
    most = max((value for row in rows.values() for value in row), default=0.0) or 1.0
    cell, body = 18, []
    columns = max(len(row) for row in rows.values())
    wide = min(40.0, (WIDTH - 110) / columns)
    for number, (name, row) in enumerate(rows.items()):
        y = number * (cell + 2)
        body.append(text(96, y + 13, name, "end"))
        for column, value in enumerate(row):
            tip = escape(f"{name}, epoch {column + 1}: {value:.4%}")
            body.append(
                f'<rect x="{104 + column * wide:.1f}" y="{y}" width="{wide - 1:.1f}" '
                f'height="{cell}" class="cell" fill-opacity="{0.05 + 0.95 * value / most:.3f}">'
                f"<title>{tip}</title></rect>"
            )
    return svg(WIDTH, len(rows) * (cell + 2), body, title)


def histogram(values: np.ndarray, title: str) -> str:
    """How often each value occurs, in BINS bins from the smallest to the largest.

    Values that differ by rounding alone count as one, in the middle.
    """
    values = np.asarray(values, np.float64)  # in float32 the edges of narrow bins coincide
    low, high = values.min(), values.max()
    if high - low <= 1e-6 * max(abs(low), abs(high)):
        low, high = low - 0.5, high + 0.5
    counts, edges = np.histogram(values, BINS, (low, high))
    height, step = 90, 200 / BINS
    body = [
        f'<rect x="{i * step:.1f}" y="{height * (1 - count / counts.max()):.1f}" '
        f'width="{step - 0.5:.1f}" height="{height * count / counts.max():.1f}" class="bar"/>'
        for i, count in enumerate(counts.tolist())
    ]
    body += [text(0, 106, f"{edges[0]:.3g}"), text(200, 106, f"{edges[-1]:.3g}", "end")]
    return f"<div>{escape(title)}{svg(200, 112, body, title)}</div>"


def bitmap(rows: np.ndarray, title: str) -> str:
    """Bits (H, W) as a picture, black where they are set."""
    buffer = io.BytesIO()
    Image.fromarray(np.where(rows, 0, 255).astype(np.uint8)).convert("1").save(buffer, "PNG")
    data = base64.b64encode(buffer.getvalue()).decode()
    tag = f'<img alt="{escape(title)}" src="data:image/png;base64,{data}">'
    return f"<div>{escape(title)}{tag}</div>"
