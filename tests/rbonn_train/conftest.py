"""A very small network, and a data set that it can learn: bright squares in one of four corners."""

import numpy as np
import pytest
import torch

from isa.network import Network
from rbonn_train.config import ModelConfig
from rbonn_train.data import Dataset
from rbonn_train.recipe import Recipe, Step


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def network() -> Network:
    return Network("corners", (8, 8), 1, 4, (8, 16), (1, 1), (0.3,), (0.35,))


@pytest.fixture
def config(network: Network) -> ModelConfig:
    steps = Step(2, 2e-2, 1e-5), Step(3, 2e-2)
    return ModelConfig(network, Recipe(*steps, batch=32, quantised_epochs=2, flip=False))


@pytest.fixture
def dataset() -> Dataset:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 256)
    images = rng.integers(0, 120, (256, 8, 8, 1))
    for image, label in zip(images, labels, strict=True):
        row, column = 4 * (label // 2), 4 * (label % 2)
        image[row : row + 4, column : column + 4] += 100
    return Dataset(images.astype(np.uint8), labels)
