"""Seeded weights: the same every time, and residuals that neither die nor saturate."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from isa.checkpoint import read_checkpoint
from isa.fixed import RESIDUAL_BITS
from isa.network import Network, Stem
from rbonn_train.config import load_model_yaml
from rbonn_train.data import load_shipped
from rbonn_train.evaluate import predict
from rbonn_train.untrained import write_untrained

NETWORK = Network(
    "seeded", (64, 64), 3, 20, (16, 32, 64), (2, 2, 2), (0.5,) * 3, (0.25,) * 3, Stem(7, 2, True)
)
# Like a ResNet-18 for 32 x 32 pixels: its last map is a single one.
ONE_PIXEL = Network(
    "one-pixel", (32, 32), 3, 20, (32, 64, 64, 64), (4,) * 4, (0.5,) * 3, (0.25,) * 3,
    Stem(7, 2, True),
)  # fmt: skip
RESNET34 = dataclasses.replace(load_model_yaml("resnet34-imagenet").network, input_size=(64, 64))


@pytest.mark.parametrize("network", [NETWORK, ONE_PIXEL, RESNET34], ids=lambda x: x.name)
def test_residuals_are_alive_and_do_not_saturate(tmp_path: Path, network: Network) -> None:
    path = write_untrained(tmp_path / "a.safetensors", network)
    info, _ = read_checkpoint(path)
    assert info.untrained
    assert not dataclasses.replace(info, training={}).untrained
    count = 64 if network.final_size == (1, 1) else 4
    noise = np.random.default_rng(0).integers(0, 256, (count, *network.input_size, 3), np.uint8)
    for images in (load_shipped(network).images[:count], noise):
        _check(path, images)


def _check(path: Path, images: np.ndarray) -> None:
    logits, maps = predict(path, images, "integer", layers=True)
    assert len(np.unique(logits)) > 30
    largest = 2 ** (RESIDUAL_BITS - 1) - 1
    for name, layer in maps.items():
        if name == "fc":
            continue
        values = layer.residual.numpy()
        assert (np.abs(values) >= largest).mean() < 0.05, name
        assert (values.std(axis=(0, 1, 2)) > 1).mean() > 0.99, name
        if layer.bits is not None:
            assert 0.1 < layer.bits.numpy().mean() < 0.9, name


def test_the_seed_decides(tmp_path: Path) -> None:
    small = dataclasses.replace(NETWORK, widths=(8, 16), blocks_per_stage=(1, 1))
    first, second, other = (
        write_untrained(tmp_path / f"{index}.safetensors", small, seed).read_bytes()
        for index, seed in enumerate((1, 1, 2))
    )
    assert first == second != other
