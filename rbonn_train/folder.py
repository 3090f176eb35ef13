"""A data set as folders of images: DATA/train/CLASS/*.png and DATA/test/CLASS/*.png (or val).

Classes are numbered in the order of their folders' names. Images of any size are made to fit like
those of any data set (:func:`isa.pixels.fit`); files of the :data:`ENDINGS` are read.
"""

from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from isa.network import Network
from rbonn_train.data import DataError, Dataset, Images, fit_images, mixed

MODES = {1: "L", 3: "RGB", 4: "RGBA"}  # pillow's, by input channels
UNREADABLE = (
    OSError, UnidentifiedImageError, SyntaxError, ValueError, Image.DecompressionBombError,
)  # fmt: skip
"""What pillow raises for a damaged image."""
ENDINGS = {".bmp", ".jpeg", ".jpg", ".png", ".webp"}


def is_folder_set(data: Path) -> bool:
    """Whether ``data`` has a folder for the training set."""
    return (data / "train").is_dir()


def split_folder(split: str, data: Path) -> Path:
    """The folder of ``split`` "train" or "test". Raises DataError."""
    names = ("test", "val") if split == "test" else (split,)
    for name in names:
        if (data / name).is_dir():
            return data / name
    raise DataError(f"Folder {data} must have a folder {' or '.join(names)}")


def class_names(data: Path, network: Network) -> list[str]:
    """The names of the classes in order, as many as the network's. Raises DataError."""
    folder = split_folder("train", data)
    names = sorted(path.name for path in folder.iterdir() if path.is_dir())
    if len(names) != network.classes:
        raise DataError(
            f"Folder {folder} must have one folder for each of {network.classes} classes, "
            f"not {len(names)}"
        )
    return names


def list_images(folder: Path) -> list[Path]:
    """The images of a class, sorted. Raises DataError where there is none."""
    paths = sorted(path for path in folder.glob("*") if path.suffix.lower() in ENDINGS)
    if not paths:
        raise DataError(f"Class {folder} must have at least one image")
    return paths


def load_folder(split: str, data: Path, network: Network) -> Dataset:
    """The images of ``split`` "train" or "test", made to fit ``network``, mixed. Raises
    DataError."""
    if network.input_channels not in MODES:
        raise DataError(
            f"Folders of images need 1, 3 or 4 input channels, not {network.input_channels}"
        )
    folder = split_folder(split, data)
    classes = class_names(data, network)
    pairs = [(p, label) for label, name in enumerate(classes) for p in list_images(folder / name)]
    pairs = [pairs[i] for i in mixed(len(pairs))]
    images = [read_image(path, network) for path, _ in pairs]
    return Dataset(np.concatenate(images), np.array([label for _, label in pairs], np.int64))


def read_image(path: Path, network: Network) -> Images:
    """One image, 1 x H x W x C, made to fit ``network``. Raises DataError, naming the file."""
    try:
        with Image.open(path) as image:
            pixels = np.asarray(image.convert(MODES[network.input_channels]))
    except UNREADABLE as error:
        raise DataError(f"Image {path} must be readable, not damaged: {error}") from error
    return fit_images(pixels.reshape(1, *pixels.shape[:2], network.input_channels), network)
