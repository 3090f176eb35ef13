"""What an epoch did to the binary weights: how many signs flipped, and which channels the
recurrence chose."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rbonn_train.methods.base import BinaryConv2d


def named_layers(model: nn.Module) -> Iterator[tuple[str, BinaryConv2d]]:
    """The binary convolutions of a model, by the names of their blocks, in order."""
    for name, module in model.named_modules():
        if isinstance(module, BinaryConv2d):
            yield name.removesuffix(".conv"), module


class Watch:
    """Remembers the signs of a model's binary weights."""

    def __init__(self, model: nn.Module) -> None:
        self.signs = {name: _packed(layer) for name, layer in named_layers(model)}

    def epoch(self, model: nn.Module) -> dict[str, dict[str, Any]]:
        """By layer, ``flips``: the share of signs that differ from those of the last call, and
        ``chosen``: the channels that the recurrence acts on in training, first in the highest bit
        of a hexadecimal number; "" for methods without one."""
        found = {}
        for name, layer in named_layers(model):
            old, self.signs[name] = self.signs[name], _packed(layer)
            changed = np.bitwise_count((old ^ self.signs[name]).numpy()).sum()
            chosen = layer.chosen()
            flips = round(int(changed) / layer.weight.numel(), 6)
            bits = b"" if chosen is None else np.packbits(chosen.cpu().numpy()).tobytes()
            found[name] = {"flips": flips, "chosen": bits.hex()}
        return found

    def state_dict(self) -> dict[str, Tensor]:
        return dict(self.signs)

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self.signs = dict(state)


def _packed(layer: BinaryConv2d) -> Tensor:
    """The signs of a layer, eight in a byte."""
    return torch.from_numpy(np.packbits((layer.decisive() >= 0).cpu().numpy()))
