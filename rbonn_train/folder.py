"""A data set as folders of images: DATA/train/CLASS/*.png and DATA/test/CLASS/*.png.

Classes are numbered in the order of their folders' names. Images of any size are made to fit like
those of any data set (:func:`isa.pixels.fit`); all formats of pillow are read.
"""

from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from isa.network import Network
from rbonn_train.data import DataError, Dataset, Images, fit_images

MODES = {1: "L", 3: "RGB", 4: "RGBA"}  # pillow's, by input channels
ENDINGS = {".bmp", ".jpeg", ".jpg", ".png", ".webp"}


def is_folder_set(data: Path) -> bool:
    """Whether ``data`` has a folder for the training set."""
    return (data / "train").is_dir()


def load_folder(split: str, data: Path, network: Network) -> Dataset:
    """The images of ``split`` "train" or "test", made to fit ``network``. Raises DataError."""
    if network.input_channels not in MODES:
        raise DataError(
            f"Folders of images need 1, 3 or 4 input channels, not {network.input_channels}"
        )
    classes = class_names(data / "train")
    if len(classes) != network.classes:
        raise DataError(
            f"Folder {data / 'train'} must have one folder for each of {network.classes} classes, "
            f"not {len(classes)}"
        )
    images, labels = [], []
    for label, name in enumerate(classes):
        folder = data / split / name
        paths = sorted(p for p in folder.glob("*") if p.suffix.lower() in ENDINGS)
        if not paths:
            raise DataError(f"Class {folder} must have at least one image")
        images += [read_image(path, network) for path in paths]
        labels += [label] * len(paths)
    return Dataset(np.concatenate(images), np.array(labels, np.int64))


def class_names(folder: Path) -> list[str]:
    """The names of the folders in ``folder``, sorted."""
    return sorted(path.name for path in folder.iterdir() if path.is_dir())


def read_image(path: Path, network: Network) -> Images:
    """One image, 1 x H x W x C, made to fit ``network``. Raises DataError, naming the file."""
    try:
        with Image.open(path) as image:
            pixels = np.asarray(image.convert(MODES[network.input_channels]))
    except (OSError, UnidentifiedImageError, SyntaxError, ValueError) as error:
        raise DataError(f"Image {path} must be readable, not damaged: {error}") from error
    return fit_images(pixels.reshape(1, *pixels.shape[:2], network.input_channels), network)
