"""What is trained in the exact epochs is what runs; its gradients are those of the module."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from isa.network import NetworkError
from rbonn_train.checkpoint import load_model
from rbonn_train.data import to_tensor
from rbonn_train.deployed import Arithmetic, Deployed, fold
from rbonn_train.integer import IntegerNetwork, LayerMaps
from tests.networks import SMALL_NETWORKS, random_checkpoint, random_frames, small_network

NAMES = [network.name for network in SMALL_NETWORKS]


def deployed(name: str) -> tuple[Deployed, Tensor, dict[str, LayerMaps]]:
    """A random network, images, and what its integer network makes of them."""
    info, tensors = random_checkpoint(small_network(name))
    model = load_model(info, tensors)
    model.quantise(info.quantisation)
    frames = random_frames(info.network, 4)
    module = Deployed(model)
    module.arithmetic = Arithmetic.INTEGER
    return module, to_tensor(frames), IntegerNetwork(fold(model)).trace(frames)


def watch_inputs(module: nn.Module) -> list[Tensor]:
    """A list to which each call of a module adds its input."""
    seen: list[Tensor] = []

    def note(module: nn.Module, inputs: Any) -> None:
        seen.append(inputs[0].detach())

    module.register_forward_pre_hook(note)
    return seen


@pytest.mark.parametrize("name", NAMES)
def test_every_layer_sees_the_integers(name: str) -> None:
    module, images, trace = deployed(name)
    model = module.model
    assert model.quantisation is not None
    convs = [watch_inputs(block.conv) for block in model.binary_blocks()]
    shortcuts = {b.name: watch_inputs(b.shortcut) for b in model.binary_blocks() if b.shortcut}
    logits = module(images)
    source = "stem"
    for block, seen in zip(model.binary_blocks(), convs, strict=True):
        bits = trace[source].bits
        assert bits is not None
        assert torch.equal(seen[0].permute(0, 2, 3, 1), (2 * bits - 1).float())
        if block.name in shortcuts:
            pooled = trace[f"{block.name}.pool"].residual * model.quantisation.lsb(source)
            assert torch.equal(shortcuts[block.name][0].permute(0, 2, 3, 1), pooled)
        source = block.name
    assert torch.equal(logits, trace["fc"].residual * fold(model).classifier.lsb)
    # The classifier's gradient is made of the last residuals.
    logits.sum().backward()
    mean = trace[source].residual.float().mean(dim=(1, 2)) * model.quantisation.lsb(source)
    for row in model.fc.weight.grad:
        torch.testing.assert_close(row, mean.sum(0))


@pytest.mark.parametrize("name", ["plain", "pooled-stem", "one-pixel"])
def test_gradients_are_those_of_simulated_rounding(name: str) -> None:
    """In networks so small that the two agree in every sign; only rounding is left between."""
    module, images, _ = deployed(name)
    labels = torch.arange(len(images)) % module.model.network.classes
    inputs = [watch_inputs(block.conv) for block in module.model.binary_blocks()]
    gradients = []
    for arithmetic in (Arithmetic.MODULE, Arithmetic.INTEGER):
        module.arithmetic = arithmetic
        module.zero_grad()
        functional.cross_entropy(module(images), labels).backward()
        gradients.append([(n, p.grad.clone()) for n, p in module.named_parameters()])
    assert all(torch.equal(simulated, exact) for simulated, exact in inputs)
    for (name, simulated), (_, exact) in zip(*gradients, strict=True):
        assert 0 < (exact - simulated).norm() < 0.05 * simulated.norm(), name


def test_other_arithmetics_are_the_module() -> None:
    module, images, _ = deployed("plain")
    model = module.model
    scales = model.quantisation
    logits = []
    for arithmetic, expected in ((Arithmetic.MODULE, scales), (Arithmetic.FLOAT, None)):
        module.arithmetic = arithmetic
        logits.append(module(images))
        assert model.quantisation == scales
        model.quantise(expected)
        assert torch.equal(logits[-1], model(images))
        model.quantise(scales)
    assert not torch.equal(*logits)


def test_it_must_be_calibrated() -> None:
    module, images, _ = deployed("plain")
    module.model.quantise(None)
    with pytest.raises(NetworkError, match="must be calibrated before it can be folded"):
        module(images)
