"""The golden model against the integer PyTorch network, layer by layer."""

import numpy as np

from isa.layer import LayerKind
from rbonn_train.integer import IntegerNetwork
from sim.golden import Golden
from sim.trace import golden_maps


def check_layers(golden: Golden, reference: IntegerNetwork, frames: np.ndarray) -> None:
    """Every map of every frame is equal; bits of channels that do not exist are 0."""
    expected = reference.trace(frames)
    for number, pixels in enumerate(frames):
        frame = golden.run(pixels)
        layers = [x for x in golden_maps(frame) if x.kind is not LayerKind.MEAN]
        for (name, maps), layer in zip(expected.items(), layers, strict=True):
            residual = maps.residual[number].numpy()
            found = layer.residual if layer.logits is None else layer.logits
            assert np.array_equal(found[..., : residual.shape[-1]], residual), (number, name)
            if layer.bits is not None:
                bits = maps.bits[number].numpy()
                assert np.array_equal(layer.bits[..., : bits.shape[-1]], bits), (number, name)
                assert not layer.bits[..., bits.shape[-1] :].any(), (number, name)
        assert np.array_equal(frame.logits, maps.residual[number].numpy())
