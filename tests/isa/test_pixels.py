"""Images made to fit a network: against plain arithmetic, pixel by pixel."""

from fractions import Fraction

import numpy as np
import pytest

from isa.pixels import fit


def images(*shape):
    return np.random.default_rng(1).integers(0, 256, shape, np.uint8)


def test_the_right_size_stays():
    pixels = images(2, 6, 5, 3)
    assert np.array_equal(fit(pixels, (6, 5, 3)), pixels)


def test_larger_images_are_cropped_and_averaged():
    image = np.zeros((1, 18, 17, 1), np.uint8)  # factor 2: one row above and below is cut
    image[0, 1:3, 0:2, 0] = [[0, 1], [2, 7]]
    image[0, 3:5, 0:2, 0] = [[1, 1], [0, 0]]
    small = fit(image, (8, 8, 1))
    assert small.shape == (1, 8, 8, 1)
    assert small[0, :2, 0, 0].tolist() == [3, 1]  # 2.5 and 0.5, half up


def line(values, size):
    """Linear interpolation between pixel centres, rounded half up."""
    result = []
    for i in range(size):
        position = Fraction(2 * i + 1, 2) * len(values) / size - Fraction(1, 2)
        position = min(max(position, Fraction(0)), Fraction(len(values) - 1))
        first = int(position)
        second = min(first + 1, len(values) - 1)
        share = position - first
        exact = int(values[first]) * (1 - share) + int(values[second]) * share
        result.append(int((exact + Fraction(1, 2)) // 1))
    return result


@pytest.mark.parametrize(("old", "new"), [((2, 3), (7, 3)), ((5, 4), (8, 11)), ((1, 1), (4, 4))])
def test_smaller_images_are_interpolated(old, new):
    pixels = images(2, *old, 1)
    found = fit(pixels, (*new, 1))
    for image, result in zip(pixels[..., 0], found[..., 0], strict=True):
        tall = np.array([line(column, new[0]) for column in image.T]).T
        assert result.tolist() == [line(row, new[1]) for row in tall]


def test_one_channel_is_repeated():
    pixels = images(2, 8, 8, 1)
    found = fit(pixels, (4, 4, 3))
    assert found.shape == (2, 4, 4, 3)
    for channel in range(3):
        assert np.array_equal(found[..., channel], fit(pixels, (4, 4, 1))[..., 0])
    for shape in ((2, 8, 8, 2), (8, 8, 3)):
        with pytest.raises(ValueError, match=r"^Images must be N x H x W x 3, not of shape "):
            fit(images(*shape), (4, 4, 3))
