"""Where the batches of a run come from: images in memory, or in files until they are needed."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from isa import fixed
from isa.network import Network
from rbonn_train.data import DataError, Dataset, augment, batch_size, to_tensor
from rbonn_train.files import FileSet, FileSource
from rbonn_train.recipe import Recipe

PIECE = 250
AHEAD = 2  # batches


T = TypeVar("T")


class Source(Protocol):
    """The labelled images of a split, made to fit a network; uint8 N x C x H x W."""

    labels: Tensor
    """int64, N."""

    def batch(self, index: Tensor, random: torch.Generator, part: slice) -> Tensor:
        """The images ``index[part]``, augmented. All random numbers of the whole batch are drawn,
        so that several processes that take its parts see what one would."""
        ...

    def sample(self, count: int) -> Tensor:
        """``count`` images of all classes, or all if they are fewer, as in a test."""
        ...

    def pieces(self) -> Iterator[tuple[Tensor, Tensor]]:
        """All images, as in a test, and their labels, some at a time."""
        ...


class MemorySource:
    """A :class:`Dataset`, whose images are in a random order already."""

    def __init__(self, dataset: Dataset, network: Network, recipe: Recipe) -> None:
        if recipe.in_files:
            raise DataError(
                "Images for random crops or lighting must be in a folder or in shards: name it "
                "with --data"
            )
        if recipe.shift >= min(network.input_size):
            raise DataError(
                f"shift must be below the images' {min(network.input_size)} pixels, not "
                f"{recipe.shift}"
            )
        self.images, self.labels = to_tensor(dataset.images), torch.from_numpy(dataset.labels)
        self.border = torch.from_numpy(fixed.border_values(network.mean))
        self.recipe, self.piece = recipe, batch_size(network, PIECE)

    def batch(self, index: Tensor, random: torch.Generator, part: slice) -> Tensor:
        recipe = self.recipe
        return augment(self.images[index], self.border, recipe.flip, recipe.shift, random)[part]

    def sample(self, count: int) -> Tensor:
        return self.images[:count]

    def pieces(self) -> Iterator[tuple[Tensor, Tensor]]:
        return zip(self.images.split(self.piece), self.labels.split(self.piece), strict=True)


def ahead(load: Callable[[int], T], numbers: Iterable[int]) -> Iterator[T]:
    """``load`` of each number, in order; a thread loads the next ones meanwhile."""
    waiting: deque[Future[T]] = deque()
    with ThreadPoolExecutor(1) as pool:
        for number in numbers:
            waiting.append(pool.submit(load, number))
            if len(waiting) > AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def make_source(dataset: Dataset | FileSet, network: Network, recipe: Recipe) -> Source:
    """Raises DataError where the recipe's augmentation is none for such images."""
    if isinstance(dataset, Dataset):
        return MemorySource(dataset, network, recipe)
    return FileSource(dataset, network, recipe)
