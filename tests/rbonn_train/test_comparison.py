"""What the page of a grid says of its results."""

import dataclasses
import math
import re
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from pathlib import Path

import pytest

from rbonn_train.comparison import (
    BETTER,
    EQUAL,
    OPEN,
    WORSE,
    compared,
    differences,
    interval,
    picture,
    table,
    verdict,
)
from rbonn_train.grid import Row, Spec, load_spec


@pytest.fixture
def spec() -> Spec:
    """The grid that ships, with three cells."""
    spec = load_spec(Path(__file__).parents[2] / "docs/ablation.yaml")
    cells = dict(zip("abc", spec.cells.values(), strict=False))
    return dataclasses.replace(spec, cells=cells, comparisons={"a": ("b", "c")})


def rows(**cells: Mapping[int, float]) -> list[Row]:
    """Rows with the integer accuracies, in percent, of cells by seed."""
    return [
        {"cell": cell, "seed": str(seed), "accuracy_integer": f"{value / 100:.4f}",
         "accuracy_float": "0.5", "train_accuracy": "1", "digest": f"{cell}{seed}"}
        for cell, values in cells.items()
        for seed, value in values.items()
    ]  # fmt: skip


def test_the_table(spec: Spec) -> None:
    lines = table(spec, rows(a={0: 80, 1: 82, 2: 84}, b={1: 49.88})).splitlines()
    assert lines[0] == (
        "| recipe | runs | test, integer % | test, float % | training % | integer − float |"
    )
    assert lines[1].count("|") == lines[0].count("|")
    assert lines[2:] == [
        "| a | 3 | 82.00 ± 2.00 | 50.00 ± 0.00 | 100.00 ± 0.00 | +32.00 ± 2.00 |",
        "| b | 1 | 49.88 | 50.00 | 100.00 | -0.12 |",
        "| c | 0 | – | – | – | – |",
    ]


def test_integers_that_cost_nothing_have_no_negative_zero(spec: Spec) -> None:
    found = rows(a={0: 50, 1: 49.99, 2: 50})
    assert table(spec, found).splitlines()[2].endswith("| +0.00 ± 0.01 |")


def test_differences_are_of_the_same_seed() -> None:
    found = differences(rows(a={0: 80, 1: 82, 2: 84}, b={2: 85, 1: 81, 7: 99}), "b", "a")
    assert found == pytest.approx([1, -1])


def test_the_interval_is_students() -> None:
    mean, half = interval([1.0, 2.0, 3.0])
    assert (mean, half) == (2, pytest.approx(4.303 / math.sqrt(3)))
    assert interval([0.0, 2.0])[1] == pytest.approx(12.706)  # deviation and root cancel
    assert interval([0.0] * 40) == (0, 0)


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ([], OPEN),
        ([3.0], OPEN),
        ([1.0, 2.0, 3.0], EQUAL),  # 2 ± 2.48
        ([2.0, 3.0, 4.0], BETTER),
        ([-2.0, -3.0, -4.0], WORSE),
        ([0.0, 0.0], EQUAL),
    ],
)
def test_verdicts(values: list[float], word: str) -> None:
    assert verdict(values) == word


def test_the_reading_is_of_the_numbers(spec: Spec) -> None:
    a = {0: 80.0, 1: 81.0, 2: 82.0}
    text = compared(spec, rows(a=a, b={k: v + 1 for k, v in a.items()}, c={0: 79, 1: 82, 2: 82}))
    assert "| b | a | 3 | +1.00 ± 0.00 | better |" in text
    assert "| c | a | 3 | +0.00 ± 2.48 | not measurable |" in text
    assert "Measurably better: b (+1.00 beside a)." in text
    assert "Measurably worse: none." in text
    assert "Not measurable: c (+0.00 beside a)." in text
    assert "narrower than ± 1.24 points" in text


def test_too_few_seeds_say_nothing(spec: Spec) -> None:
    text = compared(spec, rows(a={0: 80}, b={0: 99}))
    assert f"| b | a | 1 | – | {OPEN} |" in text
    assert "nothing can be said" in text
    assert "Measurably" not in text


def test_the_plot_has_a_dot_for_each_run(spec: Spec) -> None:
    text = picture(spec, rows(a={0: 80, 1: 82.5}, b={0: 81}))
    ET.fromstring(text)
    places = [float(x) for x in re.findall(r'<circle cx="([\d.]+)"', text)]
    assert len(places) == 3
    assert places[0] < places[2] < places[1]
    means = re.findall(r'<line x1="([\d.]+)" [^>]*class="mean"', text)
    assert [float(x) for x in means] == pytest.approx(
        [(places[0] + places[1]) / 2, places[2]], abs=0.1
    )
    assert "href" not in text
    ET.fromstring(picture(spec, []))
