"""From a module to a checkpoint file and back; the file itself is :mod:`isa.checkpoint`'s."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from isa.checkpoint import write_checkpoint
from isa.network import CheckpointInfo, tensor_shapes
from rbonn_train.methods import layer_maker
from rbonn_train.methods.base import BinaryConv2d, hard_sign
from rbonn_train.methods.plain import PlainConv2d
from rbonn_train.network import BinaryNetwork

#: The key in a checkpoint's ``training`` of who released the weights, and one of its values.
RELEASED_BY, REACTNET = "released_by", "ReActNet"


def export_tensors(model: BinaryNetwork) -> dict[str, np.ndarray]:
    """The tensors of the checkpoint format, float32; binary weights as their int8 signs."""
    state = model.state_dict()
    tensors: dict[str, np.ndarray] = {}
    for name in tensor_shapes(model.network):
        if name.endswith(".conv.alpha"):
            layer = model.get_submodule(name.removesuffix(".alpha"))
            if not isinstance(layer, BinaryConv2d):
                raise TypeError(f"Layer {name} must be binary, not {type(layer).__name__}")
            tensors[name] = layer.alpha.detach().cpu().numpy()
            signs = np.where(layer.decisive().cpu().numpy() >= 0, 1, -1).astype(np.int8)
            tensors[name.removesuffix("alpha") + "weight"] = signs
        else:
            tensors[name] = state[name].cpu().numpy().copy()
    return tensors


def save_model(
    path: Path,
    model: BinaryNetwork,
    training: Mapping[str, Any],
    metrics: Mapping[str, Any],
) -> None:
    """Writes the model with its scales (if any) atomically."""
    info = CheckpointInfo(model.network, model.quantisation, training, metrics)
    write_checkpoint(path, info, export_tensors(model))


def load_model(info: CheckpointInfo, tensors: Mapping[str, np.ndarray]) -> BinaryNetwork:
    """A module in evaluation mode, without simulated rounding, from checked tensors.

    Its scales are exactly those of the checkpoint: method ``plain`` has no factor beside them.
    """
    model = BinaryNetwork(info.network, layer_maker("plain"))
    state = {name: torch.from_numpy(value).float() for name, value in tensors.items()}
    for name in [n for n in state if n.endswith(".conv.alpha")]:
        layer = model.get_submodule(name.removesuffix(".alpha"))
        assert isinstance(layer, PlainConv2d)
        layer.set_alpha(state.pop(name))
        layer.scale_sums = info.training.get(RELEASED_BY) == REACTNET
    missing, unexpected = model.load_state_dict(state, strict=False)
    ours = set(tensor_shapes(info.network))
    assert not unexpected, unexpected
    assert not ours & set(missing), missing
    return model.eval()


def load_frozen(info: CheckpointInfo, tensors: Mapping[str, np.ndarray]) -> BinaryNetwork:
    """What :func:`load_model` gives, up to rounding, for inference alone: the weights alpha *
    sign(w) are computed once, not for every batch."""
    state = {name: torch.from_numpy(value).float() for name, value in tensors.items()}
    for name in [n for n in state if n.endswith(".conv.alpha")]:
        weight = name.removesuffix("alpha") + "weight"
        state[weight] = state.pop(name).view(-1, 1, 1, 1) * hard_sign(state[weight])
    model = BinaryNetwork(info.network)
    _, unexpected = model.load_state_dict(state, strict=False)
    assert not unexpected, unexpected
    return model.eval()
