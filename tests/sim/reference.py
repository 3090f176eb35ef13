"""The golden model against the integer PyTorch network, layer by layer."""

import numpy as np

from rbonn_train.integer import IntegerNetwork
from sim.golden import Golden
from sim.pytorch import compare_maps, map_layers


def check_layers(golden: Golden, reference: IntegerNetwork, frames: np.ndarray) -> None:
    """Every map of every frame is equal, alone and as it follows others, and so are the logits."""
    alone = [golden.run(frame) for frame in frames]
    overlapped = list(golden.run_overlapped(frames)) if golden.ahead else alone
    maps_alone = [map_layers([frame])[0] for frame in alone]
    for number, layers in enumerate(map_layers(overlapped)):
        expected = reference.trace(frames[number : number + 1])
        for found in (maps_alone[number], layers):
            comparison = compare_maps(number, found, expected)
            assert not comparison.differences, comparison.differences
            assert (comparison.mismatches, comparison.compared > 0) == (0, True)
        for frame in (alone[number], overlapped[number]):
            assert np.array_equal(frame.logits, expected["fc"].residual[0].numpy())
