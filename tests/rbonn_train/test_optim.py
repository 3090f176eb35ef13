"""Groups of the optimiser, the learning rate, the average of the weights."""

import pytest
import torch

from rbonn_train.config import ModelConfig
from rbonn_train.methods import layer_maker
from rbonn_train.network import BinaryNetwork
from rbonn_train.optim import Average, make_optimizer, set_learning_rate
from rbonn_train.recipe import Step


def groups(model: BinaryNetwork) -> list[list[str]]:
    names = {parameter: name for name, parameter in model.named_parameters()}
    found = make_optimizer(model, Step(1, 0.02, 1e-5), 0.1).param_groups
    return [[names[parameter] for parameter in group["params"]] for group in found]


def test_groups_of_the_optimizer(config: ModelConfig) -> None:
    model = BinaryNetwork(config.network, layer_maker("released"))
    weights, u, others = groups(model)
    assert u == ["blocks.0.conv.u", "blocks.1.conv.u"]
    assert set(weights) == {
        "stem.conv.weight",
        "blocks.0.conv.weight",
        "blocks.1.conv.weight",
        "blocks.1.shortcut.conv.weight",
        "fc.weight",
    }
    assert len(weights) + len(u) + len(others) == len(list(model.parameters()))
    optimizer = make_optimizer(model, Step(1, 0.02, 1e-5), 0.1)
    assert [g["lr"] for g in optimizer.param_groups] == [0.02, pytest.approx(0.002), 0.02]
    assert [g["weight_decay"] for g in optimizer.param_groups] == [1e-5, 0, 0]


def test_no_optimiser_touches_weights_without_latent_ones(config: ModelConfig) -> None:
    weights, _, _ = groups(BinaryNetwork(config.network, layer_maker("bop")))
    assert set(weights) == {"stem.conv.weight", "blocks.1.shortcut.conv.weight", "fc.weight"}


def test_the_learning_rate_falls_linearly(config: ModelConfig) -> None:
    model = BinaryNetwork(config.network, layer_maker("released"))
    optimizer = make_optimizer(model, Step(1, 0.02), 0.1)
    for done in (0.75, 0.0, 0.5):  # any order: it has no memory
        set_learning_rate(optimizer, done)
        rates = [group["lr"] for group in optimizer.param_groups]
        assert rates == pytest.approx([0.02 * (1 - done), 0.002 * (1 - done), 0.02 * (1 - done)])


def test_average_of_weights_and_statistics(config: ModelConfig) -> None:
    model = BinaryNetwork(config.network)
    average = Average(model, 0.5)
    assert not any(parameter.requires_grad for parameter in average.model.parameters())
    start = model.fc.weight.detach().clone()
    with torch.no_grad():
        model.fc.weight += 1
        model.stem.bn.running_mean += 11
    average.update(model)  # 1/11 is kept of the first value
    torch.testing.assert_close(average.model.fc.weight, start + 10 / 11)
    torch.testing.assert_close(average.model.stem.bn.running_mean, torch.full((8,), 10.0))
    for _ in range(40):
        average.update(model)
    before = average.model.fc.weight.clone()
    with torch.no_grad():
        model.fc.weight += 1
    average.update(model)
    torch.testing.assert_close(average.model.fc.weight, before + 0.5)
    again = Average(model, 0.5)
    again.load_state_dict(average.state_dict())
    assert again.updates == 42
    assert torch.equal(again.model.fc.weight, average.model.fc.weight)
