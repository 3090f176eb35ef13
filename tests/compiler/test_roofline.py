import numpy as np
import pytest

from compiler.evaluate import convolve
from compiler.pipeline import compile_tensors
from compiler.roofline import binary_macs, critical_path, phases
from isa.geometry import TINY, ULX3S_25F
from isa.network import Network
from tests.networks import SMALL_NETWORKS, random_checkpoint

FMNIST = Network("fmnist-s", (28, 28), 1, 10, (32, 64, 128), (2, 2, 2), (0.286,), (0.353,))


def program(network, geometry):
    return compile_tensors(*random_checkpoint(network), geometry, verify=False).program


@pytest.mark.parametrize("network", SMALL_NETWORKS, ids=lambda n: n.name)
def test_useful_multiplications_are_those_inside_the_map(network):
    for layer in program(network, TINY).layers:
        if layer.kind.name != "BINARY":
            assert binary_macs(layer) == 0
            continue
        ones = np.ones((*layer.in_size, layer.in_channels), np.int64)
        taps = convolve(ones, np.ones_like(layer.weights), layer.stride)
        assert binary_macs(layer) == taps.sum()


def test_phases_of_fmnist_s():
    layers = {layer.name: layer for layer in program(FMNIST, ULX3S_25F).layers}

    def of(name):
        return tuple(phases(layers[name], ULX3S_25F).values())

    tile = 2 + 16 * 4  # headers and parameters
    # xnor, mac, post, residual, stream
    assert of("stem") == (0, 2 * 9 * 784, 784 * 16, 784 * 16, 12 + 2 * (tile + 9 * 4))
    assert of("blocks.0") == (2 * 9 * 784, 0, 784 * 16, 784 * 16, 12 + 2 * (tile + 9 * 16))
    assert of("blocks.2.pool") == (0, 0, 0, 784 * 16, 12)
    assert of("blocks.2.shortcut") == (
        0, 4 * 32 * 196, 196 * 32, 4 * 32 * 196, 12 + 4 * (tile + 32 * 4),
    )  # fmt: skip
    assert of("blocks.5") == (8 * 36 * 49, 0, 49 * 64, 49 * 64, 12 + 8 * (tile + 36 * 16))
    assert of("mean") == (0, 0, 0, 49 * 64, 12)
    assert of("fc") == (0, 128, 5, 0, 12 + tile + 128 * 4)


def test_critical_path_of_fmnist_s():
    """No layer of it waits for the stream, so it is the sum of the other phases."""
    longest = {
        "stem": 14112, "blocks.0": 14112, "blocks.1": 14112,
        "pool": 12544, "shortcut": 25088, "blocks.2": 7056, "blocks.3": 14112,
        "pool 4": 6272, "shortcut 4": 25088, "blocks.4": 7056, "blocks.5": 14112,
        "mean": 3136, "fc": 128,
    }  # fmt: skip
    assert critical_path(program(FMNIST, ULX3S_25F)) == sum(longest.values())


def test_the_stream_bounds_a_network_of_one_pixel():
    network = Network("deep", (1, 1), 1, 2, (64,), (2,), (0.5,), (0.5,))
    found = program(network, ULX3S_25F)
    streamed = sum(phases(layer, ULX3S_25F)["stream"] for layer in found.layers)
    assert critical_path(found) == streamed
