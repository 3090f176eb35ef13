"""The augmentation of ImageNet's recipes: random crops, flips, lighting; and the test's crop."""

import math
from dataclasses import dataclass

import numpy as np
import torch

from rbonn_train.data import Images
from rbonn_train.recipe import Recipe

TRIES = 10
RATIOS = (3 / 4, 4 / 3)
MARGIN = 256 / 224  # of a test's image over what is cut out of its middle

# Principal components of the colours of ImageNet's pixels, 0..1 (Krizhevsky et al., 2012), with
# the values that Torch's ImageNet example published.
DEVIATIONS = np.array([0.2175, 0.0188, 0.0045])
COMPONENTS = np.array(
    [[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]]
)

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class View:
    """How one image is seen in training. ``tries`` (TRIES, 4): shares of area, logarithm of the
    ratio, left and top of crops, of which the first that fits is taken; ``light`` (3,): what is
    added to the channels, 0..1."""

    smallest: float
    tries: np.ndarray
    flipped: bool
    light: np.ndarray

    def box(self, width: int, height: int) -> Box:
        """The part of an image to take: (left, top, right, bottom), in pixels."""
        low, high = (math.log(ratio) for ratio in RATIOS)
        for area, ratio, left, top in self.tries:
            pixels = width * height * (self.smallest + (1 - self.smallest) * area)
            shape = math.exp(low + (high - low) * ratio)
            columns, rows = round(math.sqrt(pixels * shape)), round(math.sqrt(pixels / shape))
            if 0 < columns <= width and 0 < rows <= height:
                x, y = int(left * (width - columns + 1)), int(top * (height - rows + 1))
                return x, y, x + columns, y + rows
        w = min(width, height * RATIOS[1])
        h = min(height, width / RATIOS[0])
        return (width - w) / 2, (height - h) / 2, (width + w) / 2, (height + h) / 2


def draw_views(count: int, recipe: Recipe, random: torch.Generator) -> list[View]:
    """How each of ``count`` images is seen; the same numbers are drawn whatever the recipe."""
    tries = torch.rand(count, TRIES, 4, generator=random, dtype=torch.float64).numpy()
    flips = (torch.rand(count, generator=random) < 0.5).tolist()
    strengths = torch.randn(count, 3, generator=random, dtype=torch.float64).numpy()
    lights = recipe.lighting * strengths * DEVIATIONS @ COMPONENTS.T
    return [View(recipe.crop, tries[i], recipe.flip and flips[i], lights[i]) for i in range(count)]


def lit(pixels: Images, light: np.ndarray) -> Images:
    """H x W x C with ``light`` added, rounded and saturated."""
    if not light.any():
        return pixels
    return np.clip(np.rint(pixels + 255 * light), 0, 255).astype(np.uint8)


def middle(width: int, height: int, cut_width: int, cut_height: int) -> Box:
    """What a test sees of an image: what remains in the middle where the image is first made as
    small as 256 is over 224 pixels. (left, top, right, bottom)."""
    scale = min(width / cut_width, height / cut_height) / MARGIN
    w, h = cut_width * scale, cut_height * scale
    return (width - w) / 2, (height - h) / 2, (width + w) / 2, (height + h) / 2
