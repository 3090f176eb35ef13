"""The first layer whose values are lost is named."""

import torch

from isa.network import Network
from rbonn_train.diagnose import broken_layer, broken_tensor
from rbonn_train.methods import layer_maker
from rbonn_train.network import BinaryNetwork

IMAGES = torch.zeros(2, 1, 8, 8, dtype=torch.uint8)


def test_parameters_come_first(network: Network) -> None:
    model = BinaryNetwork(network, layer_maker("released"))
    assert broken_layer(model, IMAGES) is broken_tensor(model) is None
    with torch.no_grad():
        model.get_parameter("blocks.1.conv.scale")[1] = torch.inf
    assert broken_layer(model, IMAGES) == broken_tensor(model) == "tensor blocks.1.conv.scale"


def test_then_outputs(network: Network) -> None:
    model = BinaryNetwork(network, layer_maker("released"))
    with torch.no_grad():  # each finite, but not the product
        model.get_parameter("blocks.0.bias2").fill_(3e38)
        model.get_parameter("blocks.0.bias1").fill_(3e38)
    assert broken_tensor(model) is None
    assert broken_layer(model, IMAGES) == "layer blocks.0"
    handles = [len(module._forward_hooks) for module in model.modules()]
    assert sum(handles) == 0


def test_the_classifier(network: Network) -> None:
    model = BinaryNetwork(network, layer_maker("released"))
    with torch.no_grad():
        model.fc.weight.fill_(3e38)
        model.fc.bias.fill_(3e38)
        model.get_parameter("blocks.1.bias2").fill_(10.0)
    assert broken_layer(model, IMAGES) == "layer fc"
