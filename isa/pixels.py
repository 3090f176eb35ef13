"""How images of another size are made to fit a network: the same for training and for running."""

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]


def fit(pixels: Pixels, shape: tuple[int, int, int]) -> Pixels:
    """Images N x H x W x C for a network that takes ``shape``, in exact integer arithmetic.

    Larger ones are cropped symmetrically and averaged over whole-pixel boxes (28 -> 24 -> 12),
    smaller ones interpolated (bilinear, half up); a single channel is repeated. Images of the right
    shape are returned as they are. Raises ValueError for another number of channels.
    """
    height, width, channels = shape
    if pixels.ndim != 4 or pixels.shape[3] not in (1, channels):
        raise ValueError(
            f"Images must be N x H x W x {channels}, not of shape "
            f"{' x '.join(map(str, pixels.shape))}"
        )
    factor = min(pixels.shape[1] // height, pixels.shape[2] // width)
    if factor:
        pixels = _reduce(pixels, height, width, factor)
    else:
        pixels = _interpolate(_interpolate(pixels, 1, height), 2, width)
    return pixels if pixels.shape[3] == channels else np.repeat(pixels, channels, axis=3)


def _reduce(pixels: Pixels, height: int, width: int, factor: int) -> Pixels:
    top = (pixels.shape[1] - factor * height) // 2
    left = (pixels.shape[2] - factor * width) // 2
    part = pixels[:, top : top + factor * height, left : left + factor * width]
    if factor == 1:
        return part
    grouped = part.reshape(len(part), height, factor, width, factor, -1).astype(np.int64)
    sums = grouped.sum(axis=(2, 4))
    return ((2 * sums + factor**2) // (2 * factor**2)).astype(np.uint8)


def _interpolate(pixels: Pixels, axis: int, size: int) -> Pixels:
    """Linear interpolation along an axis; the centres of the outer pixels bound it."""
    old = pixels.shape[axis]
    unit = 2 * size  # positions are in units of 1 / unit pixels
    position = np.clip((2 * np.arange(size) + 1) * old - size, 0, unit * (old - 1))
    first, weight = np.divmod(position, unit)
    second = np.minimum(first + 1, old - 1)
    weight = weight.reshape([-1 if i == axis else 1 for i in range(4)]).astype(np.int32)
    low, high = (np.take(pixels, index, axis).astype(np.int32) for index in (first, second))
    return ((low * (unit - weight) + high * weight + size) // unit).astype(np.uint8)
