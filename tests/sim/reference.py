"""The golden model against the integer PyTorch network, layer by layer."""

from collections.abc import Iterator

import numpy as np

from isa.layer import LayerKind
from rbonn_train.integer import IntegerNetwork
from sim.golden import Golden
from sim.trace import LayerMaps, golden_maps


def check_layers(golden: Golden, reference: IntegerNetwork, frames: np.ndarray) -> None:
    """Every map of every frame is equal; bits of channels that do not exist are 0."""
    expected = reference.trace(frames)
    for number, pixels in enumerate(frames):
        frame = golden.run(pixels)
        layers = iter([x for x in golden_maps(frame) if x.kind is not LayerKind.MEAN])
        for name, maps in expected.items():
            residual = maps.residual[number].numpy()
            found, found_bits = whole_layer(layers, residual.shape[-1])
            assert np.array_equal(found[..., : residual.shape[-1]], residual), (number, name)
            if found_bits is not None:
                bits = maps.bits[number].numpy()
                assert np.array_equal(found_bits[..., : bits.shape[-1]], bits), (number, name)
                assert not found_bits[..., bits.shape[-1] :].any(), (number, name)
        assert next(layers, None) is None
        assert np.array_equal(frame.logits, maps.residual[number].numpy())


def whole_layer(layers: Iterator[LayerMaps], channels: int) -> tuple[np.ndarray, np.ndarray | None]:
    """Values and bits of the next layer; one in parts is joined until it has its channels."""
    values: list[np.ndarray] = []
    bits: list[np.ndarray] = []
    while sum(part.shape[-1] for part in values) < channels:
        layer = next(layers)
        part = layer.residual if layer.logits is None else layer.logits
        assert part is not None
        values.append(part)
        if layer.bits is not None:
            bits.append(layer.bits)
    return np.concatenate(values, -1), np.concatenate(bits, -1) if bits else None
