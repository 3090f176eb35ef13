"""Where batches come from: images in memory, and loading ahead of who uses them."""

import dataclasses
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from isa.network import Network
from rbonn_train import source
from rbonn_train.config import ModelConfig
from rbonn_train.data import DataError, Dataset, augment, to_tensor
from rbonn_train.files import FileSet, FileSource
from rbonn_train.recipe import Recipe
from rbonn_train.source import AHEAD, MemorySource, ahead, make_source

NUMBERS = 9


@pytest.fixture
def recipe(config: ModelConfig) -> Recipe:
    return dataclasses.replace(config.recipe, flip=True, shift=2)


def batch(memory: MemorySource, index: torch.Tensor, part: slice) -> torch.Tensor:
    return memory.batch(index, torch.Generator().manual_seed(3), part)


@pytest.mark.parametrize(
    "changes", [{}, {"flip": False}, {"shift": 0}, {"flip": False, "shift": 0}], ids=str
)
def test_a_batch_is_augmented(
    changes: dict[str, Any], recipe: Recipe, network: Network, dataset: Dataset
) -> None:
    recipe = dataclasses.replace(recipe, **changes)
    memory = MemorySource(dataset, network, recipe)
    index = torch.tensor([200, 3, 3, 77, 0, 12])
    images = to_tensor(dataset.images[index])
    border = torch.tensor([77])  # 255 * 0.3, rounded half up
    random = torch.Generator().manual_seed(3)
    expected = augment(images, border, recipe.flip, recipe.shift, random)
    assert torch.equal(batch(memory, index, slice(0, 6)), expected)
    assert torch.equal(expected, images) is (not recipe.flip and not recipe.shift)
    for part in (slice(0, 2), slice(2, 6)):
        assert torch.equal(batch(memory, index, part), expected[part])


def test_a_sample_is_what_comes_first(recipe: Recipe, network: Network, dataset: Dataset) -> None:
    memory = MemorySource(dataset, network, recipe)
    assert torch.equal(memory.sample(5), to_tensor(dataset.images[:5]))
    assert torch.equal(memory.sample(1000), to_tensor(dataset.images))


def test_pieces_are_all_images_and_labels_in_order(
    recipe: Recipe, network: Network, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source, "PIECE", 100)
    memory = MemorySource(dataset, network, recipe)
    images, labels = zip(*memory.pieces(), strict=True)
    assert [len(part) for part in images] == [len(part) for part in labels] == [100, 100, 56]
    assert torch.equal(torch.cat(images), to_tensor(dataset.images))
    assert torch.cat(labels).tolist() == dataset.labels.tolist() == memory.labels.tolist()
    large = dataclasses.replace(network, input_size=(1024, 1024))  # one image's map fills a piece
    assert [len(part) for part, _ in MemorySource(dataset, large, recipe).pieces()] == [1] * 256


@pytest.mark.parametrize("changes", [{"crop": 0.5}, {"lighting": 0.1}], ids=str)
def test_images_in_memory_are_neither_cropped_nor_lit(
    changes: dict[str, Any], recipe: Recipe, network: Network, dataset: Dataset
) -> None:
    with pytest.raises(DataError) as error:
        make_source(dataset, network, dataclasses.replace(recipe, **changes))
    assert str(error.value) == (
        "Images for random crops or lighting must be in a folder or in shards: name it with --data"
    )


def test_the_source_is_that_of_the_data_set(
    recipe: Recipe, network: Network, dataset: Dataset
) -> None:
    assert isinstance(make_source(dataset, network, recipe), MemorySource)
    files = FileSet([], np.zeros(0, np.int64))
    assert isinstance(make_source(files, network, dataclasses.replace(recipe, shift=0)), FileSource)


@pytest.mark.parametrize("count", [0, 1, AHEAD, NUMBERS])
def test_loads_keep_their_order(count: int) -> None:
    assert list(ahead(lambda number: 10 * number, reversed(range(count)))) == [
        10 * number for number in reversed(range(count))
    ]


def test_a_few_loads_wait_and_no_more() -> None:
    asked: list[int] = []

    def numbers() -> Iterator[int]:
        for number in range(NUMBERS):
            asked.append(number)
            yield number

    for number in ahead(lambda number: number, numbers()):
        assert len(asked) == min(number + 1 + AHEAD, NUMBERS)
    assert len(asked) == NUMBERS


def test_loads_go_on_while_one_is_used() -> None:
    loaded = [threading.Event() for _ in range(NUMBERS)]

    def load(number: int) -> int:
        loaded[number].set()
        return number

    for number in ahead(load, range(NUMBERS)):
        for event in loaded[: number + 1 + AHEAD]:
            assert event.wait(10)


def test_what_a_load_raises_reaches_its_user() -> None:
    begun: list[int] = []

    def load(number: int) -> int:
        begun.append(number)
        if number == 2:
            raise DataError("Image 2 must be readable")
        return number

    loads = ahead(load, range(NUMBERS))
    assert [next(loads), next(loads)] == [0, 1]
    with pytest.raises(DataError) as error:
        next(loads)
    assert str(error.value) == "Image 2 must be readable"
    assert len(begun) <= 3 + AHEAD
    assert list(loads) == []
