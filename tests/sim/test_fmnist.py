"""The network that ships, on test images: RTL, golden model and PyTorch agree exactly."""

from pathlib import Path

import numpy as np
import pytest

from compiler.pipeline import compile_network
from isa.checkpoint import read_checkpoint
from isa.folding import fold_network
from isa.geometry import ULX3S_25F
from rbonn_train.integer import IntegerNetwork
from sim.golden import Golden
from sim.runner import simulate
from tests.sim.reference import check_layers

MODELS = Path(__file__).parents[2] / "models"
CHECKPOINT = MODELS / "fmnist-s.safetensors"


@pytest.fixture(scope="module")
def image():
    return compile_network(CHECKPOINT, ULX3S_25F, verify=False).image


@pytest.fixture(scope="module")
def frames():
    """20 images of the test set; all-zero, all-255 and noise."""
    with np.load(MODELS / "data" / "fmnist-500.npz") as shipped:
        real = shipped["images"][:20]
    noise = np.random.default_rng(5).integers(0, 256, real[:1].shape, np.uint8)
    return np.concatenate([real, np.zeros_like(noise), np.full_like(noise, 255), noise])


def test_golden_equals_pytorch_layer_by_layer(image, frames):
    reference = IntegerNetwork(fold_network(*read_checkpoint(CHECKPOINT)))
    check_layers(Golden(ULX3S_25F, image), reference, frames)


def test_core_equals_golden(image, frames):
    result = simulate(ULX3S_25F, image, frames)
    assert result.first is None
    assert result.mismatches == 0
    assert result.layers == 13
    # residuals and bits of a layer, and so on: no write went unseen
    assert result.compared_values == len(frames) * 247_902
    # Data does not change the schedule, and a frame's input arrives while the one before runs.
    assert len(set(result.cycles)) == 1
    counters = result.counters[-1]
    assert counters["array_busy"] >= 0.8 * counters["binary_layer"]
