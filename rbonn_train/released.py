"""Checkpoints of the released RBONN and ReActNet code (ResNet-18 and ResNet-34), as they are.

Both train the same network: Bi-Real Net's ResNet with ReActNet's biases. A file is what torch.save
wrote: a dictionary with a `state_dict`, or that alone; names may begin with `module.`. They differ
in the scale of binary weights: RBONN learns one per channel (`scale_factor`, times 0.02, without
its sign), ReActNet takes the mean of |w|.
"""

import pickle
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from isa.checkpoint import write_checkpoint
from isa.network import Block, CheckpointInfo, Network
from rbonn_train.binary import RELEASED_GAIN

#: How torch.save's files are usually named.
SUFFIXES = (".pth", ".tar", ".pt")
PREFIX = "module."
BN_PARTS = ("weight", "bias", "running_mean", "running_var")
#: Tensors that inference does not need: RBONN's recurrence acts in training only.
UNUSED = (".num_batches_tracked", ".binary_conv.u")
#: What training loops keep beside the tensors: the best accuracy, as a numpy number.
_SCALAR: Any = np.float64(0).__reduce__()[0]
HARMLESS: list[Any] = [
    (_SCALAR, "numpy.core.multiarray.scalar"),
    (_SCALAR, "numpy._core.multiarray.scalar"),
    np.dtype,
    np.dtypes.Float32DType,
    np.dtypes.Float64DType,
]


class ReleasedError(ValueError):
    """A file that is not such a checkpoint; the message names the first thing that does not fit."""


def is_released(path: Path) -> bool:
    """Whether the file is named like one that torch.save wrote."""
    return path.suffix in SUFFIXES


def read_released(path: Path, network: Network) -> dict[str, np.ndarray]:
    """The tensors of :func:`isa.network.tensor_shapes` from a released file for ``network``.

    No code in the file is executed. Raises ReleasedError.
    """
    state = _state_dict(path)
    tensors: dict[str, np.ndarray] = {}
    used = set()
    for theirs, ours, shape in _names(network):
        if theirs not in state:
            raise ReleasedError(
                f"Checkpoint {path} must have the tensor {theirs} of shape {shape}, as ResNet "
                f"checkpoints of RBONN and ReActNet do, but has none of that name"
            )
        value = state[theirs]
        # ReActNet keeps biases as (1, C, 1, 1), and some versions all weights in one column.
        if value.numel() != np.prod(shape) or not _same_order(value.shape, shape):
            raise ReleasedError(
                f"Tensor {theirs} must have shape {shape} for {network.name}, not "
                f"{tuple(value.shape)}"
            )
        tensors[ours] = value.to(torch.float32).reshape(shape).numpy()
        used.add(theirs)
    for block in network.blocks():
        prefix = f"{_block_name(network, block)}.binary_conv"
        name, scale = f"{block.name}.conv", f"{prefix}.scale_factor"
        tensors[f"{name}.alpha"] = _alpha(state.get(scale), tensors[f"{name}.weight"], scale)
        used.add(scale)
    for name in state:
        if name not in used and not name.endswith(UNUSED):
            raise ReleasedError(
                f"Tensor {name} must belong to {network.name}, but that has no such tensor"
            )
    return tensors


def import_released(path: Path, network: Network, out: Path) -> None:
    """Writes a released checkpoint as one of ours to ``out``, without scales."""
    tensors = read_released(path, network)
    info = CheckpointInfo(network, None, training={"imported_from": path.name})
    write_checkpoint(out, info, tensors)


def _state_dict(path: Path) -> Mapping[str, Tensor]:
    try:
        with torch.serialization.safe_globals(HARMLESS), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of how the file was pickled
            raw: Any = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise ReleasedError(f"Checkpoint must be an existing file, not {path}") from error
    except pickle.UnpicklingError as error:
        reason = str(error).splitlines()[0]
        raise ReleasedError(
            f"Checkpoint {path} must hold tensors alone, as no code in it is executed: {reason}"
        ) from error
    except (RuntimeError, OSError, EOFError, ValueError, KeyError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ReleasedError(f"Checkpoint {path} must be a file of torch.save: {reason}") from error
    if isinstance(raw, Mapping) and isinstance(raw.get("state_dict"), Mapping):
        raw = raw["state_dict"]
    if not isinstance(raw, Mapping) or not raw:
        raise ReleasedError(
            f"Checkpoint {path} must hold a state_dict, not {type(raw).__name__} without one"
        )
    for name, value in raw.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise ReleasedError(
                f"Checkpoint {path} must hold tensors by name, not {name!r} of type "
                f"{type(value).__name__}"
            )
    return {name.removeprefix(PREFIX): value for name, value in raw.items()}


def _names(network: Network) -> Iterator[tuple[str, str, tuple[int, ...]]]:
    """Their name, our name and our shape of every tensor but the scales, in their order."""
    widths, stem = network.widths, network.stem

    def bn(theirs: str, ours: str, channels: int) -> Iterator[tuple[str, str, tuple[int, ...]]]:
        for part in BN_PARTS:
            yield f"{theirs}.{part}", f"{ours}.{part}", (channels,)

    yield "conv1.weight", "stem.conv.weight", (
        widths[0], network.input_channels, stem.kernel, stem.kernel,
    )  # fmt: skip
    yield from bn("bn1", "stem.bn", widths[0])
    for block in network.blocks():
        theirs, ours = _block_name(network, block), block.name
        cin, cout = block.in_channels, block.out_channels
        yield f"{theirs}.move0.bias", f"{ours}.bias0", (cin,)
        yield f"{theirs}.binary_conv.weight", f"{ours}.conv.weight", (cout, cin, 3, 3)
        yield from bn(f"{theirs}.bn1", f"{ours}.bn", cout)
        yield f"{theirs}.move1.bias", f"{ours}.bias1", (cout,)
        yield f"{theirs}.prelu.weight", f"{ours}.prelu", (cout,)
        yield f"{theirs}.move2.bias", f"{ours}.bias2", (cout,)
        if block.downsamples:  # downsample.0 is the average pool
            yield f"{theirs}.downsample.1.weight", f"{ours}.shortcut.conv.weight", (cout, cin, 1, 1)
            yield from bn(f"{theirs}.downsample.2", f"{ours}.shortcut.bn", cout)
    yield "fc.weight", "fc.weight", (network.classes, widths[-1])
    yield "fc.bias", "fc.bias", (network.classes,)


def _block_name(network: Network, block: Block) -> str:
    """`layer1.0` for the first block of the first stage."""
    stage, index = 0, block.index
    while index >= network.blocks_per_stage[stage]:
        index -= network.blocks_per_stage[stage]
        stage += 1
    return f"layer{stage + 1}.{index}"


def _same_order(found: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    """Whether the shapes differ in axes of length 1 alone, or all values stand in one column."""
    real, other = ([n for n in shape if n != 1] for shape in (found, wanted))
    return real == other or len(real) <= 1


def _alpha(scale: Tensor | None, weight: np.ndarray, name: str) -> np.ndarray:
    """The scale of each output channel: RBONN's if the file has one, else ReActNet's."""
    if scale is None:
        alpha: np.ndarray = np.abs(weight).mean(axis=(1, 2, 3))
        return alpha
    if scale.numel() != len(weight):
        raise ReleasedError(
            f"Tensor {name} must have one value for each of {len(weight)} channels, not "
            f"{scale.numel()}"
        )
    return RELEASED_GAIN * scale.to(torch.float32).abs().flatten().numpy()
