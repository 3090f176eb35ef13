"""The page of a run: everything that it must show, and nothing fetched."""

import base64
import dataclasses
import io
import re
import xml.etree.ElementTree as ET
from typing import Any

import numpy as np
import pytest
from PIL import Image

from isa.network import Network
from rbonn_train import plots
from rbonn_train.config import ModelConfig
from rbonn_train.methods import layer_maker
from rbonn_train.network import BinaryNetwork
from rbonn_train.page import render


def report(config: ModelConfig, layers: list[dict[str, Any]]) -> dict[str, Any]:
    rows = [
        {"step": "step 1", "loss": 2.0, "train_accuracy": 0.25, "test_accuracy": 0.3},
        {"step": "step 2", "loss": 1.0, "train_accuracy": 0.5, "test_accuracy": 0.625},
    ]
    return {
        "network": dataclasses.asdict(config.network),
        "recipe": dataclasses.asdict(config.recipe),
        "seed": 7,
        "curve": rows,
        "layers": layers,
        "metrics": {"images": 1000, "accuracy_float": 0.625, "accuracy_integer": 0.624},
    }


def layer(flips: float, chosen: str) -> dict[str, Any]:
    return {"flips": flips, "chosen": chosen}


LAYERS: list[dict[str, Any]] = [
    {}, {"blocks.0": layer(0.25, "a5"), "blocks.1": layer(0.0625, "8001")},
]  # fmt: skip


@pytest.mark.parametrize("method", ["released", "plain"])
def test_the_page_is_whole(method: str, config: ModelConfig, network: Network) -> None:
    model = BinaryNetwork(network, layer_maker(method))
    layers = (
        LAYERS
        if method == "released"
        else [{}, {"blocks.0": layer(0.25, ""), "blocks.1": layer(0, "")}]
    )
    page = render(report(config, layers), model)
    assert "@@" not in page
    assert not re.search(r"(src|href)=\"(?!data:)", page)
    assert "62.50% in float, 62.40% in integers" in page
    assert "blocks.0, epoch 1: 25.0000%" in page
    assert "test accuracy 0.625" in page
    titles = re.findall("<h2>(.*?)</h2>", page)
    last = ["Channels of the recurrence"] if method == "released" else []
    assert titles == ["Curves", "Flips of signs", "Scales", "Densities", *last, "Recipe"]
    for part in re.findall("<svg.*?</svg>", page, re.S):
        ET.fromstring(part)


def test_the_choices_are_those_of_each_channel(config: ModelConfig, network: Network) -> None:
    page = render(report(config, LAYERS), BinaryNetwork(network, layer_maker("released")))
    pictures = re.findall(r"data:image/png;base64,([^\"]*)", page)
    found = [np.array(Image.open(io.BytesIO(base64.b64decode(text)))) for text in pictures]
    assert [(~bits).astype(int).tolist() for bits in found] == [
        [[1, 0, 1, 0, 0, 1, 0, 1]], [[1, *[0] * 14, 1]],
    ]  # fmt: skip


def test_step_1_alone_has_a_page(config: ModelConfig, network: Network) -> None:
    page = render(report(config, [{}, {}]) | {"metrics": {}}, BinaryNetwork(network))
    assert "Still training." in page
    assert "Flips of signs" not in page


def test_a_histogram_counts() -> None:
    picture = plots.histogram(np.array([0.0, 0.0, 1.0]), "x < y")
    heights = [float(h) for h in re.findall(r'height="([\d.]+)" class="bar"', picture)]
    assert (heights[0], heights[-1]) == (90, 45)
    assert "x &lt; y" in picture
    assert plots.histogram(np.ones(4), "equal").count("<rect") == plots.BINS
    one = np.float32(1)
    nearly = np.array([one, np.nextafter(one, np.float32(2))])
    assert plots.histogram(nearly, "equal but for rounding").count("<rect") == plots.BINS
    narrow = np.array([1, 1 + 2e-6], np.float32)
    assert plots.histogram(narrow, "a few roundings apart").count("<rect") == plots.BINS


def test_curves_of_a_single_epoch() -> None:
    ET.fromstring(plots.curves({"loss": [1.0]}, "Loss"))
