"""What is trained in the exact epochs is what runs; its gradients are those of the module."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from isa.network import NetworkError
from rbonn_train.checkpoint import load_model
from rbonn_train.data import to_tensor
from rbonn_train.deployed import Arithmetic, Deployed, fold
from rbonn_train.integer import IntegerNetwork, LayerMaps
from rbonn_train.network import BinaryBlock
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


def watch_joins(block: BinaryBlock, patch: pytest.MonkeyPatch) -> list[tuple[Tensor, Tensor]]:
    """A list to which each pass adds what a block's convolution and its sum see."""
    seen: list[tuple[Tensor, Tensor]] = []
    real = block.join

    def join(signs: Tensor, x: Tensor) -> Tensor:
        seen.append((signs.detach(), x.detach()))
        return real(signs, x)

    patch.setattr(block, "join", join)
    return seen


@pytest.mark.parametrize("name", NAMES)
def test_every_layer_sees_the_integers(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module, images, trace = deployed(name)
    model, folded = module.model, fold(module.model)

    def exact(layer: str) -> Tensor:
        return trace[layer].residual.permute(0, 3, 1, 2) * folded.quantisation.lsb(layer)

    blocks = model.binary_blocks()
    joins = [watch_joins(block, monkeypatch) for block in blocks]
    pooled: dict[str, Tensor] = {}
    for block in blocks:
        if block.shortcut is not None:
            block.shortcut.register_forward_pre_hook(
                lambda _, inputs, name=block.name: pooled.update({name: inputs[0]})
            )
    logits = module(images)
    source = "stem"
    for block, ((signs, x),) in zip(blocks, joins, strict=True):
        bits = trace[source].bits
        assert bits is not None
        assert torch.equal(signs, (2 * bits - 1).permute(0, 3, 1, 2).float())
        if block.shortcut is None:
            assert torch.equal(x, exact(source))
        else:
            averages = trace[f"{block.name}.pool"].residual.permute(0, 3, 1, 2)
            assert torch.equal(pooled[block.name], averages * folded.quantisation.lsb(source))
            assert torch.equal(x, exact(f"{block.name}.shortcut"))
        source = block.name
    assert torch.equal(logits, trace["fc"].residual * folded.classifier.lsb)
    # The classifier's gradient is made of the last residuals.
    logits.sum().backward()
    for row in model.fc.weight.grad:
        torch.testing.assert_close(row, exact(source).mean(dim=(2, 3)).sum(0))


@pytest.mark.parametrize("name", ["plain", "pooled-stem", "one-pixel"])
def test_gradients_are_those_of_simulated_rounding(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In networks so small that the two agree in every sign; only rounding is left between."""
    module, images, _ = deployed(name)
    labels = torch.arange(len(images)) % module.model.network.classes
    joins = [watch_joins(block, monkeypatch) for block in module.model.binary_blocks()]
    gradients = []
    for arithmetic in (Arithmetic.MODULE, Arithmetic.INTEGER):
        module.arithmetic = arithmetic
        module.zero_grad()
        functional.cross_entropy(module(images), labels).backward()
        gradients.append([(n, p.grad.clone()) for n, p in module.named_parameters()])
    assert all(torch.equal(simulated[0], exact[0]) for simulated, exact in joins)
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
