"""Flips of signs and choices of channels, counted."""

import pytest
import torch

from isa.network import Network
from rbonn_train.methods import layer_maker
from rbonn_train.methods.base import binary_layers
from rbonn_train.methods.rbonn import RBONNConv2d
from rbonn_train.network import BinaryNetwork
from rbonn_train.watch import Watch


def test_flips_are_those_since_the_last_call(network: Network) -> None:
    model = BinaryNetwork(network, layer_maker("plain"))
    watch = Watch(model)
    first, second = binary_layers(model)
    with torch.no_grad():
        first.weight[0, :3, 1, 1] *= -1
        second.weight *= 2
    found = watch.epoch(model)
    assert list(found) == ["blocks.0", "blocks.1"]
    share = round(3 / first.weight.numel(), 6)
    assert found["blocks.0"] == {"flips": share, "chosen": ""}
    assert found["blocks.1"]["flips"] == 0
    assert watch.epoch(model)["blocks.0"]["flips"] == 0


def test_a_watch_comes_back(network: Network) -> None:
    model = BinaryNetwork(network, layer_maker("plain"))
    state = Watch(model).state_dict()
    layer = next(binary_layers(model))
    with torch.no_grad():
        layer.weight.neg_()
    watch = Watch(model)
    watch.load_state_dict(state)
    assert watch.epoch(model)["blocks.0"]["flips"] == 1


@pytest.mark.parametrize("method", ["released", "released-rankfix", "paper"])
def test_the_chosen_channels_are_those_that_the_recurrence_moves(method: str) -> None:
    layer = layer_maker(method)(4, 20, stride=1)
    assert isinstance(layer, RBONNConv2d)
    model = torch.nn.Sequential(layer)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    chosen = Watch(model).epoch(model)["0"]["chosen"]
    bits = [bool(int(chosen, 16) >> (23 - i) & 1) for i in range(20)]
    assert 0 < sum(bits) <= 8
    for _ in range(2):  # the released modes need a previous gradient
        before = layer.weight.detach().clone()
        layer.zero_grad()
        layer(torch.randn(2, 4, 6, 6)).square().sum().backward()
        layer.after_backward()
        optimizer.step()
        layer.after_step()
    moved = layer.weight != before if method == "paper" else layer.u.grad != 0
    assert moved.flatten(1).any(1).tolist() == bits


def test_methods_without_a_recurrence_choose_nothing(network: Network) -> None:
    model = BinaryNetwork(network, layer_maker("none"))
    assert Watch(model).epoch(model)["blocks.0"]["chosen"] == ""
