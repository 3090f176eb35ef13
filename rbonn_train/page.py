"""A run as one self-contained page: its curves, what happened to its signs, its scales."""

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from rbonn_train import plots
from rbonn_train.network import BinaryNetwork
from rbonn_train.watch import named_layers

TEMPLATE = Path(__file__).with_name("page.html")

Rows = Sequence[Mapping[str, Any]]


def render(report: Mapping[str, Any], model: BinaryNetwork) -> str:
    """The page of a run.

    ``report``: what :func:`rbonn_train.results.write_results` writes as JSON. ``model``: as it was
    trained, with its latent weights.
    """
    name, recipe = report["network"]["name"], report["recipe"]
    page = TEMPLATE.read_text()
    page = page.replace("@@title@@", escape(f"{name}, {recipe['method']}, seed {report['seed']}"))
    page = page.replace("@@summary@@", escape(_summary(report["metrics"])))
    sections = [
        *_curves(report["curve"]), *_signs(report["layers"]), *_values(model),
        *_choices(report["layers"], model),
        _section("Recipe", "", f"<pre>{escape(yaml.safe_dump(recipe, sort_keys=False))}</pre>"),
    ]  # fmt: skip
    return page.replace("@@sections@@", "".join(sections))


def _summary(metrics: Mapping[str, Any]) -> str:
    if not metrics:
        return "Still training."
    return (
        f"On {metrics['images']:,} images for testing: {metrics['accuracy_float']:.2%} in float, "
        f"{metrics['accuracy_integer']:.2%} in integers."
    )


def _section(title: str, about: str, *body: str) -> str:
    return f"<section><h2>{escape(title)}</h2><p>{escape(about)}</p>{''.join(body)}</section>"


def _curves(curve: Rows) -> list[str]:
    lines = {key: [row[key] for row in curve] for key in ("train_accuracy", "test_accuracy")}
    steps = ", then ".join(dict.fromkeys(row["step"] for row in curve))
    return [
        _section(
            "Curves",
            f"By epoch, {steps}: accuracy, and loss in training.",
            plots.curves(lines, "Accuracy"),
            plots.curves({"loss": [row["loss"] for row in curve]}, "Loss"),
        )
    ]


def _binary(layers: Rows) -> list[Mapping[str, Any]]:
    """The epochs with binary weights."""
    return [epoch for epoch in layers if epoch]


def _signs(layers: Rows) -> list[str]:
    epochs = _binary(layers)
    if not epochs:
        return []
    rows = {name: [epoch[name]["flips"] for epoch in epochs] for name in epochs[0]}
    about = "Share of each layer's binary weights whose sign an epoch has changed."
    return [_section("Flips of signs", about, plots.heat(rows, "Flips of signs"))]


def _values(model: BinaryNetwork) -> list[str]:
    scales, densities = [], []
    for name, layer in named_layers(model):
        scales.append(plots.histogram(layer.alpha.detach().cpu().numpy(), name))
        weights = layer.weight.detach().abs().mean(dim=(1, 2, 3)).cpu().numpy()
        densities.append(plots.histogram(weights, name))
    return [
        _section("Scales", "alpha, one value a channel.", _grid(scales)),
        _section("Densities", "Mean of |w| of each channel's latent weights.", _grid(densities)),
    ]


def _choices(layers: Rows, model: BinaryNetwork) -> list[str]:
    epochs = _binary(layers)
    pictures = []
    for name, layer in named_layers(model):
        texts = [epoch[name]["chosen"] for epoch in epochs]
        if texts and texts[0]:
            packed = np.array([list(bytes.fromhex(text)) for text in texts], np.uint8)
            bits = np.unpackbits(packed, axis=1, count=len(layer.weight))
            pictures.append(plots.bitmap(bits, name))
    about = "Which channels DReLU picks, black: channels from left to right, epochs downwards."
    return [_section("Channels of the recurrence", about, _grid(pictures))] if pictures else []


def _grid(parts: Sequence[str]) -> str:
    return f'<div class="grid">{"".join(parts)}</div>'
