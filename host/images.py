"""Images to classify: from .npz, .png or a folder of .png to uint8 N x H x W x C, checked."""

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from host.errors import UserError

Pixels = npt.NDArray[np.uint8]

_PNG_CHANNELS = {"L": 1, "RGB": 3}  # 8 bits a channel, no palette, no transparency


@dataclass(frozen=True)
class ImageSet:
    """``pixels``: uint8 (N, H, W, C), N >= 1; ``labels``: int64 (N,) if known; one name each."""

    pixels: Pixels
    labels: npt.NDArray[np.int64] | None
    names: list[str]

    def __len__(self) -> int:
        return len(self.pixels)

    def accuracy(self, classes: npt.ArrayLike) -> float | None:
        """Share of ``classes`` that equal the labels, or None without labels."""
        if self.labels is None:
            return None
        return float(np.mean(np.asarray(classes) == self.labels))


def load_images(
    path: Path | str, shape: tuple[int, int, int] | None = None, limit: int | None = None
) -> ImageSet:
    """The images in ``path``, the first ``limit`` of them.

    ``shape`` is the (height, width, channels) that the network takes; other images are refused.
    An .npz file has `images` (uint8, N x H x W x C) and perhaps `labels` (N integers); the files
    of a folder are taken in order of their names. Raises UserError.
    """
    if limit is not None and limit < 1:
        raise UserError(f"Limit must be a positive number of images, not {limit!r}")
    path = Path(path)
    if path.is_dir():
        found = _load_folder(path, shape, limit)
    elif not path.is_file():
        raise UserError(f"Images must be an existing .npz or .png file or a folder, not {path}")
    elif path.suffix.lower() == ".npz":
        found = _load_npz(path, limit)
    elif path.suffix.lower() == ".png":
        found = ImageSet(_load_png(path, shape)[None], None, [path.name])
    else:
        raise UserError(f"Images must be an .npz or .png file or a folder of .png, not {path}")
    if shape is not None:
        _check_shape(path, found.pixels.shape[1:], shape)
    return found


def _size(shape: tuple[int, ...]) -> str:
    return " x ".join(str(extent) for extent in shape)


def _check_shape(path: Path, found: tuple[int, ...], expected: tuple[int, int, int]) -> None:
    if tuple(found) != tuple(expected):
        raise UserError(
            f"Images must be {_size(expected)} (height x width x channels) for this network, "
            f"not {_size(found)}: {path}"
        )


def _load_npz(path: Path, limit: int | None) -> ImageSet:
    try:
        with path.open("rb") as file:
            if file.read(2) != b"PK":
                raise UserError(f"Images must be a readable .npz file, not {path}: no zip archive")
            file.seek(0)
            # Never pickles: a data file must not be able to run code.
            with np.load(file, allow_pickle=False) as archive:
                if "images" not in archive:
                    raise UserError(
                        f"Images must be an array named 'images' in the .npz file, not among "
                        f"{sorted(archive.files)}: {path}"
                    )
                pixels = archive["images"]
                labels = archive["labels"] if "labels" in archive else None
    except (zipfile.BadZipFile, ValueError, OSError, EOFError, KeyError) as error:
        raise UserError(f"Images must be a readable .npz file, not {path}: {error}") from error
    if pixels.dtype != np.uint8:
        raise UserError(f"Images must be of type uint8, not {pixels.dtype}: {path}")
    if pixels.ndim != 4:
        raise UserError(
            f"Images must have 4 dimensions, N x H x W x C, not {_size(pixels.shape) or 'none'}: "
            f"{path}"
        )
    if not len(pixels):
        raise UserError(f"Images must be at least one, not none: {path}")
    if labels is not None:
        if labels.shape != (len(pixels),) or not np.issubdtype(labels.dtype, np.integer):
            raise UserError(
                f"Labels must be {len(pixels)} integers, one per image, not {labels.dtype} of "
                f"shape {labels.shape}: {path}"
            )
        labels = labels.astype(np.int64)[:limit]
    pixels = np.ascontiguousarray(pixels[:limit])
    return ImageSet(pixels, labels, [f"{path.name}[{index}]" for index in range(len(pixels))])


def _load_folder(path: Path, shape: tuple[int, int, int] | None, limit: int | None) -> ImageSet:
    files = sorted(file for file in path.iterdir() if file.suffix.lower() == ".png")[:limit]
    if not files:
        raise UserError(f"Images must be at least one .png file in the folder, not none: {path}")
    loaded = []
    for file in files:
        loaded.append(_load_png(file, shape))
        if loaded[-1].shape != loaded[0].shape:
            raise UserError(
                f"Images of a folder must all have the size of {files[0].name}, "
                f"{_size(loaded[0].shape)}, not {_size(loaded[-1].shape)}: {file}"
            )
    return ImageSet(np.stack(loaded), None, [file.name for file in files])


def _load_png(path: Path, shape: tuple[int, int, int] | None) -> Pixels:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path, formats=["PNG"]) as picture:
            if picture.mode not in _PNG_CHANNELS:
                raise UserError(
                    f"Images must be 8-bit grey or RGB pictures without palette or transparency, "
                    f"not PNG mode {picture.mode}: {path}"
                )
            pixels = np.array(picture, np.uint8)
    except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise UserError(f"Images must be readable PNG files, not {path}: {error}") from error
    pixels = pixels.reshape(pixels.shape[0], pixels.shape[1], -1)
    if shape is not None:
        _check_shape(path, pixels.shape, shape)
    return pixels
