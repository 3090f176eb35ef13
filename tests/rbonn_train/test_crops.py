"""Random crops, lighting, and the test's crop."""

import dataclasses

import numpy as np
import pytest
import torch

from rbonn_train.config import ModelConfig
from rbonn_train.crops import COMPONENTS, View, draw_views, lit, middle
from rbonn_train.recipe import Recipe


@pytest.fixture
def recipe(config: ModelConfig) -> Recipe:
    return dataclasses.replace(config.recipe, crop=0.08, lighting=0.1, flip=True)


def views(recipe: Recipe, count: int) -> list[View]:
    return draw_views(count, recipe, torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("width", "height"), [(500, 375), (60, 90), (3, 2)])
def test_boxes_lie_in_the_image_and_have_the_area_and_ratio(
    recipe: Recipe, width: int, height: int
) -> None:
    boxes = [view.box(width, height) for view in views(recipe, 500)]
    for left, top, right, bottom in boxes:
        assert 0 <= left < right <= width
        assert 0 <= top < bottom <= height
    if width < 10:
        return
    areas = [(r - x) * (b - y) / (width * height) for x, y, r, b in boxes]
    ratios = [(r - x) / (b - y) for x, y, r, b in boxes]
    assert 0.07 < min(areas) < 0.12
    assert 0.8 < max(areas) <= 1
    assert 0.35 < np.mean(areas) < 0.54  # the largest ones fit less often
    assert 0.74 < min(ratios) < 0.8
    assert 1.25 < max(ratios) < 1.36


def test_an_image_that_no_crop_fits_is_cut_in_its_middle(recipe: Recipe) -> None:
    narrow = dataclasses.replace(recipe, crop=1.0)
    assert views(narrow, 1)[0].box(1000, 10) == (500 - 20 / 3, 0, 500 + 20 / 3, 10)
    assert views(narrow, 1)[0].box(10, 1000) == (0, 500 - 20 / 3, 10, 500 + 20 / 3)


def test_flips_and_lights(recipe: Recipe) -> None:
    drawn = views(recipe, 2000)
    assert np.mean([view.flipped for view in drawn]) == pytest.approx(0.5, abs=0.05)
    lights = np.array([view.light for view in drawn])
    # Along the first component the colours deviate by 0.1 times its own deviation.
    assert (lights @ COMPONENTS[:, 0]).std() == pytest.approx(0.02175, rel=0.1)
    plain = views(dataclasses.replace(recipe, flip=False, lighting=0.0), 50)
    assert not any(view.flipped or view.light.any() for view in plain)
    for ours, theirs in zip(plain, views(recipe, 50), strict=True):
        assert np.array_equal(ours.tries, theirs.tries)


def test_light_is_added_rounded_and_saturated() -> None:
    pixels = np.array([[[0, 100, 250]]], np.uint8)
    assert lit(pixels, np.array([-0.1, 0.1, 0.1])).tolist() == [[[0, 126, 255]]]
    assert lit(pixels, np.zeros(3)) is pixels


def test_the_middle_of_an_image() -> None:
    assert middle(256, 256, 224, 224) == (16, 16, 240, 240)
    assert middle(512, 1024, 224, 224) == (32, 288, 480, 736)
