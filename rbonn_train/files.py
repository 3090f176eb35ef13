"""Images that stay in their files until a batch needs them: folders, and shards of WebDataset.

DATA/train/CLASS/*.jpg and DATA/test/CLASS/*.jpg, or DATA/train/*.tar and DATA/test/*.tar, whose
members are KEY.jpg (.jpeg, .png, .bmp or .webp) and KEY.cls, the number of the class as text. The
folder "val" will do for "test". The headers of all shards are read once; then every image can be
read by itself, so that order, interruption and several processes are as with folders.
"""

import tarfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from isa.network import Network
from rbonn_train.crops import View, draw_views, lit, middle
from rbonn_train.data import DataError, Images, Labels, mixed
from rbonn_train.folder import ENDINGS, MODES, UNREADABLE, class_names, list_images, split_folder
from rbonn_train.recipe import Recipe

THREADS = 8
PIECE = 100  # images decoded at once in a test
LABEL = "cls"


class Entry(NamedTuple):
    """An image in bytes ``start`` to ``start + size`` of a file; all of it where ``size`` is 0."""

    file: str
    member: str = ""
    start: int = 0
    size: int = 0

    def __str__(self) -> str:
        return f"{self.member} in {self.file}" if self.member else self.file


@dataclass(frozen=True)
class FileSet:
    """``entries``, with ``labels`` int64 N."""

    entries: Sequence[Entry]
    labels: Labels

    def __len__(self) -> int:
        return len(self.entries)

    def take(self, count: int) -> "FileSet":
        """``count`` images of all classes."""
        order = mixed(len(self))[:count]
        return FileSet([self.entries[i] for i in order], self.labels[order])

    def digest(self) -> int:
        """Changes with any name, place or label, but not with what a file holds."""
        value = zlib.crc32(self.labels.tobytes())
        for entry in self.entries:
            value = zlib.crc32(repr((Path(entry.file).name, *entry[1:])).encode(), value)
        return value


def list_folder(split: str, data: Path, network: Network) -> FileSet:
    """The images of ``split`` "train" or "test" of a folder, unread. Raises DataError."""
    entries: list[Entry] = []
    labels: list[int] = []
    for label, name in enumerate(class_names(data, network)):
        found = list_images(split_folder(split, data) / name)
        entries += [Entry(str(path)) for path in found]
        labels += [label] * len(found)
    return FileSet(entries, np.array(labels, np.int64))


def has_shards(data: Path) -> bool:
    """Whether ``data`` has shards for training."""
    return any((data / "train").glob("*.tar"))


def list_shards(split: str, data: Path) -> FileSet:
    """The images of ``split`` "train" or "test" in shards, unread. Raises DataError."""
    folder = split_folder(split, data)
    shards = sorted(folder.glob("*.tar"))
    if not shards:
        raise DataError(f"Folder {folder} must hold shards (*.tar)")
    pairs = [pair for shard in shards for pair in _list_shard(shard)]
    return FileSet([entry for entry, _ in pairs], np.array([n for _, n in pairs], np.int64))


def _list_shard(shard: Path) -> Iterator[tuple[Entry, int]]:
    images: dict[str, Entry] = {}
    labels: dict[str, int] = {}
    try:
        with tarfile.open(shard, "r:") as file:
            for member in filter(tarfile.TarInfo.isfile, file):
                folder, slash, name = member.name.rpartition("/")
                base, _, ending = name.partition(".")
                key = folder + slash + base
                if f".{ending.lower()}" in ENDINGS:
                    if key in images:
                        raise DataError(f"Shard {shard} must have one image of {key}, not more")
                    place = member.offset_data, member.size
                    images[key] = Entry(str(shard), member.name, *place)
                elif ending == LABEL:
                    if key in labels:
                        raise DataError(f"Shard {shard} must have one class of {key}, not more")
                    text = file.extractfile(member)
                    assert text is not None
                    labels[key] = _label(text.read(), f"{member.name} in {shard}")
            end = file.offset
    except (tarfile.TarError, OSError) as error:
        raise DataError(f"Shard {shard} must be readable, not damaged: {error}") from error
    if end + tarfile.BLOCKSIZE > shard.stat().st_size:  # a block of zeros follows the last member
        raise DataError(f"Shard {shard} must be whole, not end after {shard.stat().st_size} bytes")
    if not images:
        raise DataError(f"Shard {shard} must hold at least one image")
    for key, entry in images.items():
        if key not in labels:
            raise DataError(f"Image {entry} must have a class in {key}.{LABEL}")
        yield entry, labels[key]


def _label(text: bytes, name: str) -> int:
    try:
        return int(text)
    except ValueError as error:
        raise DataError(f"Class {name} must be an integer, not {text[:20]!r}") from error


def decode(entry: Entry, network: Network) -> Image.Image:
    """The image, with the network's channels. Raises DataError, naming the file."""
    try:
        with open(entry.file, "rb") as file:
            file.seek(entry.start)
            raw = file.read(entry.size or -1)
        with Image.open(BytesIO(raw)) as image:
            return image.convert(MODES[network.input_channels])
    except UNREADABLE as error:
        raise DataError(f"Image {entry} must be readable, not damaged: {error}") from error


class FileSource:
    """A :class:`FileSet`, decoded by several threads. See :class:`rbonn_train.source.Source`."""

    def __init__(self, dataset: FileSet, network: Network, recipe: Recipe) -> None:
        if network.input_channels not in MODES or (recipe.lighting and network.input_channels != 3):
            need = "3 for lighting" if recipe.lighting else "1, 3 or 4"
            raise DataError(f"Input channels must be {need}, not {network.input_channels}")
        if recipe.shift:
            raise DataError("Images in files must be moved by crops: set shift to 0, and crop")
        self.dataset, self.network, self.recipe = dataset, network, recipe
        self.labels = torch.from_numpy(dataset.labels)
        self.pool = ThreadPoolExecutor(THREADS)

    def batch(self, index: Tensor, random: torch.Generator, part: slice) -> Tensor:
        views = draw_views(len(index), self.recipe, random)[part]
        return self._images(index[part].tolist(), lambda image, i: self._seen(image, views[i]))

    def sample(self, count: int) -> Tensor:
        return self._tested(mixed(len(self.dataset))[:count].tolist())

    def pieces(self) -> Iterator[tuple[Tensor, Tensor]]:
        for index in torch.arange(len(self.dataset)).split(PIECE):
            yield self._tested(index.tolist()), self.labels[index]

    def _seen(self, image: Image.Image, view: View) -> Images:
        """An image as training sees it."""
        box = view.box(*image.size) if self.recipe.crop < 1 else None
        pixels = _pixels(image, self.network, box)
        return lit(pixels[:, ::-1] if view.flipped else pixels, view.light)

    def _tested(self, index: list[int]) -> Tensor:
        return self._images(index, lambda image, i: _pixels(image, self.network, None))

    def _images(self, index: list[int], view: Callable[[Image.Image, int], Images]) -> Tensor:
        def one(place: int) -> Images:
            return view(decode(self.dataset.entries[index[place]], self.network), place)

        found = list(self.pool.map(one, range(len(index))))
        return torch.from_numpy(np.stack(found).transpose(0, 3, 1, 2).copy())


def _pixels(
    image: Image.Image, network: Network, box: tuple[float, float, float, float] | None
) -> Images:
    """The part ``box`` (left, top, right, bottom) of an image, or its middle, H x W x C."""
    height, width = network.input_size
    part = middle(*image.size, width, height) if box is None else box
    resized = image.resize((width, height), Image.Resampling.BILINEAR, part)
    return np.asarray(resized).reshape(height, width, network.input_channels)
