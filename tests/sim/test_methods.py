"""Every training method's network, exported, on every level: PyTorch, golden model, gateware."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from compiler.pipeline import compile_tensors
from isa.checkpoint import read_checkpoint
from isa.folding import fold_network
from isa.geometry import TINY
from isa.image import parse
from rbonn_train.checkpoint import save_model
from rbonn_train.data import to_tensor
from rbonn_train.integer import IntegerNetwork
from rbonn_train.methods import METHODS, layer_maker
from rbonn_train.methods.base import binary_layers
from rbonn_train.network import BinaryNetwork
from rbonn_train.optim import make_optimizer, update
from rbonn_train.recipe import Step
from sim.golden import Golden
from sim.runner import simulate
from tests.networks import random_frames, small_network

NETWORK = small_network("odd-channels")
FRAMES = random_frames(NETWORK, 24)


@pytest.fixture(params=METHODS)
def checkpoint(request, tmp_path):
    """A network that the method has trained for two steps, in a file."""
    torch.manual_seed(0)
    model = BinaryNetwork(NETWORK, layer_maker(request.param))
    for layer in binary_layers(model):
        layer.start()
    images = to_tensor(FRAMES)
    labels = torch.arange(len(FRAMES)) % NETWORK.classes
    optimizer = make_optimizer(model, Step(1, 1e-2), 0.1)
    for _ in range(2):
        update(model, optimizer, functional.cross_entropy(model(images), labels))
    model.estimate_statistics(images)
    model.eval()
    model.quantise(model.calibrate([images]))
    save_model(tmp_path / "x.safetensors", model, {}, {})
    expected = model.logits(images)
    return read_checkpoint(tmp_path / "x.safetensors"), expected.numpy()


def test_golden_equals_pytorch(checkpoint):
    (info, tensors), simulated = checkpoint
    folded = fold_network(info, tensors)
    integers = IntegerNetwork(folded)(FRAMES).numpy()
    image = compile_tensors(info, tensors, TINY).image
    golden = Golden(TINY, parse(image.to_bytes(), TINY))
    assert np.array_equal(golden.run_batch(FRAMES), integers)
    # And the integers are those of the network that was trained, up to rounding.
    reals = integers * folded.classifier.lsb
    assert np.corrcoef(reals.ravel(), simulated.ravel())[0, 1] > 0.99


@pytest.mark.full
def test_rtl_equals_golden(checkpoint):
    image = compile_tensors(*checkpoint[0], TINY).image
    result = simulate(TINY, image, FRAMES[:2])
    assert result.first is None
    assert result.mismatches == 0
