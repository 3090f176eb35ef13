"""Fashion-MNIST (Zalando Research, MIT licence) and the images that ship with the repository.

Images are uint8, N x H x W x C; labels int64, N.
"""

import gzip
import os
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from isa.network import Network
from isa.pixels import fit

DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")
SHIPPED_IMAGES = Path(__file__).parent.parent / "models/data/fmnist-500.npz"
DATA_VARIABLE = "RBONN_DATA"
SPLITS = {"train": "train", "test": "t10k"}
CLASSES = 10
IDX_UINT8 = 0x08
PIECE = 2000  # images made to fit at once
MAP_VALUES = 1 << 23  # of the largest map of a batch

Images = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]


class DataError(ValueError):
    """A data set, or a file of images, that is missing or broken."""


class NoFilesError(DataError):
    """A folder without the files of Fashion-MNIST."""


@dataclass(frozen=True)
class Dataset:
    """``images`` uint8 N x H x W x C, ``labels`` int64 N."""

    images: Images
    labels: Labels

    def __len__(self) -> int:
        return len(self.images)

    def digest(self) -> int:
        """Changes with any image or label."""
        value = zlib.crc32(np.ascontiguousarray(self.images).tobytes())
        return zlib.crc32(np.ascontiguousarray(self.labels).tobytes(), value)

    def take(self, count: int) -> "Dataset":
        """The first ``count`` images."""
        return Dataset(self.images[:count], self.labels[:count])


def load_split(split: str, data: Path | None = None) -> Dataset:
    """``split`` "train" (60,000) or "test" (10,000) of Fashion-MNIST.

    Looked for in ``data``, else in the folder that RBONN_DATA names, else where Debian's package
    puts it; files may be gzipped or not. Raises DataError, of which NoFilesError.
    """
    folder = data or Path(os.environ.get(DATA_VARIABLE) or DEBIAN_FOLDER)
    images = _read_idx(_find(folder, f"{SPLITS[split]}-images-idx3-ubyte"), 3)
    labels = _read_idx(_find(folder, f"{SPLITS[split]}-labels-idx1-ubyte"), 1)
    if len(images) != len(labels) or not len(images):
        raise DataError(
            f"Fashion-MNIST in {folder} must have one label per image, not {len(labels)} labels "
            f"for {len(images)} images"
        )
    return Dataset(images[..., None], labels.astype(np.int64))


def _find(folder: Path, name: str) -> Path:
    for path in (folder / f"{name}.gz", folder / name):
        if path.is_file():
            return path
    raise NoFilesError(
        f"Fashion-MNIST must be in {folder}, but {name}[.gz] is missing there; install it with "
        f"`apt-get install dataset-fashion-mnist`, or name a folder of its files with --data DIR "
        f"or {DATA_VARIABLE}=DIR"
    )


def _read_idx(path: Path, dimensions: int) -> Images:
    """An IDX file: 0, 0, type, dimensions, big-endian sizes, values."""
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"Data file {path} must be readable, not damaged: {error}") from error
    start = 4 + 4 * dimensions
    if len(raw) < start or raw[:4] != bytes((0, 0, IDX_UINT8, dimensions)):
        raise DataError(f"Data file {path} must be an IDX file of uint8 with {dimensions} axes")
    shape = tuple(int(n) for n in np.frombuffer(raw, ">u4", dimensions, 4))
    if len(raw) - start != np.prod(shape):
        raise DataError(
            f"Data file {path} must hold {np.prod(shape)} values, not {len(raw) - start}"
        )
    return np.frombuffer(raw, np.uint8, offset=start).reshape(shape)


def load_npz(path: Path) -> tuple[Images, Labels | None]:
    """Arrays ``images`` (uint8 N x H x W x C) and perhaps ``labels`` of an npz file."""
    try:
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            if "images" not in file:
                raise DataError(f"Image file {path} must have an array named images")
            images = file["images"]
            labels = file["labels"].astype(np.int64) if "labels" in file else None
    except DataError:
        raise
    except (OSError, ValueError, EOFError, zlib.error, zipfile.BadZipFile) as error:
        raise DataError(f"Image file {path} must be a readable npz file: {error}") from error
    return images, labels


def load_shipped(network: Network | None = None) -> Dataset:
    """The first 500 test images of Fashion-MNIST, made to fit ``network`` if one is given."""
    images, labels = load_npz(SHIPPED_IMAGES)
    assert labels is not None
    return Dataset(images if network is None else fit_images(images, network), labels)


def write_shipped(data: Path | None = None) -> None:
    """Writes the images that ship: the first 500 of the test set, in order."""
    dataset = load_split("test", data).take(500)
    SHIPPED_IMAGES.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(
        SHIPPED_IMAGES, images=dataset.images, labels=dataset.labels.astype(np.uint8)
    )


def fit_images(images: npt.NDArray[np.uint8], network: Network) -> Images:
    """:func:`isa.pixels.fit` for a network, piece by piece: enlarging a data set at once would take
    ten times its memory. Raises DataError."""
    shape = (*network.input_size, network.input_channels)
    if images.shape[1:] == shape:
        return images
    starts = range(0, max(1, len(images)), PIECE)
    try:
        return np.concatenate([fit(images[start : start + PIECE], shape) for start in starts])
    except ValueError as error:
        raise DataError(str(error)) from error


def mixed(count: int) -> npt.NDArray[np.int64]:
    """An order of ``count`` images that is always the same, for files that are sorted by class."""
    return np.random.default_rng(0).permutation(count)


def check_images(images: np.ndarray, network: Network) -> None:
    """Raises DataError unless ``images`` are uint8 and of the network's size."""
    shape = (*network.input_size, network.input_channels)
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != shape:
        raise DataError(
            f"Images of {network.name} must be uint8 of shape N x {' x '.join(map(str, shape))}, "
            f"not {images.dtype} of shape {' x '.join(map(str, images.shape))}"
        )


def batch_size(network: Network, most: int) -> int:
    """Images to compute at once: at most ``most``, fewer where a map is so large that they would
    take gigabytes."""
    height, width = network.stem_size
    return max(1, min(most, MAP_VALUES // (height * width * network.widths[0])))


def check_labels(labels: Labels, classes: int, name: str) -> None:
    """Raises DataError unless labels are 0 to ``classes`` - 1 and, for training, all occur."""
    if not len(labels):
        raise DataError(f"The {name} set must have at least one image")
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= classes:
        raise DataError(f"Labels of the {name} set must be 0 to {classes - 1}, not {low} to {high}")
    counts = np.bincount(labels, minlength=classes)
    if name == "training" and (empty := np.flatnonzero(counts == 0).tolist()):
        raise DataError(f"Class {empty[0]} of the {name} set must have at least one image")


def to_tensor(images: Images) -> Tensor:
    """N x H x W x C -> N x C x H x W, uint8."""
    return torch.from_numpy(images.transpose(0, 3, 1, 2).copy())


def augment(
    images: Tensor, border: Tensor, flip: bool, shift: int, random: torch.Generator
) -> Tensor:
    """Flips half of the uint8 images and moves each by up to ``shift`` pixels.

    ``border`` (C,): the value of pixels that come from outside.
    """
    if flip:
        chosen = torch.rand(len(images), generator=random) < 0.5
        images = torch.where(chosen.view(-1, 1, 1, 1), images.flip(3), images)
    if not shift:
        return images
    height, width = images.shape[2:]
    offset = border.to(torch.int16).view(1, -1, 1, 1)
    padded = functional.pad(images.to(torch.int16) - offset, [shift] * 4) + offset
    moves = torch.randint(0, 2 * shift + 1, (2, len(images), 1), generator=random)
    rows = moves[0] + torch.arange(height)
    columns = moves[1] + torch.arange(width)
    index = torch.arange(len(images)).view(-1, 1, 1)
    moved = padded.permute(0, 2, 3, 1)[index, rows[:, :, None], columns[:, None, :]]
    return moved.permute(0, 3, 1, 2).to(torch.uint8)
