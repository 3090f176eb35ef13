"""Checkpoints of the released RBONN and ReActNet code (ResNet-18 and ResNet-34), as they are.

Both train the same network: Bi-Real Net's ResNet with ReActNet's biases. A file is what torch.save
wrote: a dictionary with the tensors under one of STATE_KEYS, or they alone; names may begin with
`module.`. They differ in the scale of binary weights: RBONN learns one per channel (`scale_factor`,
times 0.02, without its sign), ReActNet takes the mean of |w|.
"""

import pickle
import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from isa.checkpoint import write_checkpoint
from isa.network import Block, CheckpointInfo, Network
from rbonn_train.checkpoint import REACTNET, RELEASED_BY
from rbonn_train.methods.rbonn import RELEASED_GAIN

RBONN = "RBONN"
#: Under which training loops keep the tensors; the first that is there counts.
STATE_KEYS = ("state_dict", "model", "net")
PREFIX = "module."
SCALE = "binary_conv.scale_factor"
#: What training loops keep beside the tensors: the best accuracy, as a numpy number.
_SCALAR: Any = np.float64(0).__reduce__()[0]
HARMLESS: list[Any] = [
    (_SCALAR, "numpy.core.multiarray.scalar"),
    (_SCALAR, "numpy._core.multiarray.scalar"),
    np.dtype,
    np.dtypes.Float32DType,
    np.dtypes.Float64DType,
]

Shape = tuple[int, ...]


class ReleasedError(ValueError):
    """A file that is not such a checkpoint; the message names the first thing that does not fit."""


@dataclass(frozen=True)
class Entry:
    """A tensor of a released file: its name there, ours (None: inference does not need it), and
    the shape, which may have more axes of length 1: a bias is (1, C, 1, 1) there."""

    theirs: str
    ours: str | None
    shape: Shape


def read_released(path: Path, network: Network) -> tuple[dict[str, np.ndarray], str]:
    """The tensors of :func:`isa.network.tensor_shapes` from a released file for ``network``, and
    whose they are: RBONN or ReActNet.

    No code in the file is executed. Raises ReleasedError.
    """
    state = _state_dict(path)
    author = RBONN if any(name.endswith(SCALE) for name in state) else REACTNET
    tensors: dict[str, np.ndarray] = {}
    known = set()
    for entry in _entries(network, author):
        known.add(entry.theirs)
        if entry.ours is None:
            continue
        if entry.theirs not in state:
            raise ReleasedError(
                f"Checkpoint {path} must have the tensor {entry.theirs} of shape {entry.shape}, as "
                f"ResNet checkpoints of {author} do, but has none of that name"
            )
        tensors[entry.ours] = _checked(entry, state[entry.theirs], network.name)
    for name in state:
        if name not in known:
            raise ReleasedError(
                f"Tensor {name} must belong to {network.name}, but that has no such tensor"
            )
    for block in network.blocks():
        alpha, weight = f"{block.name}.conv.alpha", tensors[f"{block.name}.conv.weight"]
        if author == RBONN:
            tensors[alpha] = RELEASED_GAIN * np.abs(tensors[alpha])
        else:  # axis by axis, as their code does: another order would round differently
            tensors[alpha] = torch.from_numpy(weight).abs().mean(3).mean(2).mean(1).numpy()
    return tensors, author


def import_released(path: Path, network: Network, out: Path) -> int:
    """Writes a released checkpoint as one of ours to ``out``, without scales of residuals.

    Returns how many binary weights are exactly 0: they count as 0 in the original, and as +1 from
    here on. ``training`` says so too, and whose the checkpoint is.
    """
    tensors, author = read_released(path, network)
    weights = [tensors[f"{block.name}.conv.weight"] for block in network.blocks()]
    zeros = sum(int((weight == 0).sum()) for weight in weights)
    training = {"imported_from": path.name, RELEASED_BY: author, "zero_weights": zeros}
    write_checkpoint(out, CheckpointInfo(network, None, training), tensors)
    return zeros


def _state_dict(path: Path) -> Mapping[str, Tensor]:
    try:
        with torch.serialization.safe_globals(HARMLESS), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of how the file was pickled
            raw: Any = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise ReleasedError(f"Checkpoint must be an existing file, not {path}") from error
    except pickle.UnpicklingError as error:
        raise ReleasedError(
            f"Checkpoint {path} must hold tensors and plain numbers alone, as no code in it is "
            f"executed{_culprit(str(error))}: save its state_dict by itself"
        ) from error
    except (RuntimeError, OSError, EOFError, ValueError, KeyError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0].split(". ")[0]
        raise ReleasedError(f"Checkpoint {path} must be a file of torch.save: {reason}") from error
    if isinstance(raw, Mapping):
        raw = next((raw[key] for key in STATE_KEYS if isinstance(raw.get(key), Mapping)), raw)
    if not isinstance(raw, Mapping) or not raw:
        raise ReleasedError(
            f"Checkpoint {path} must hold a state_dict, not {type(raw).__name__} without one"
        )
    for name, value in raw.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise ReleasedError(
                f"Checkpoint {path} must hold tensors by name, themselves or under one of "
                f"{', '.join(STATE_KEYS)}, not {name!r} of type {type(value).__name__}"
            )
    return {name.removeprefix(PREFIX): value for name, value in raw.items()}


def _culprit(message: str) -> str:
    """ ", not what torch refused to load" if it says so; without its advice to load it anyway."""
    found = re.search(r"GLOBAL ([\w.]+)", message)
    return f", not {found.group(1)}" if found else ""


def _entries(network: Network, author: str) -> Iterator[Entry]:
    """Every tensor that a file may have, in the order of computation."""
    widths, stem = network.widths, network.stem

    def bn(theirs: str, ours: str, channels: int) -> Iterator[Entry]:
        for part in ("weight", "bias", "running_mean", "running_var"):
            yield Entry(f"{theirs}.{part}", f"{ours}.{part}", (channels,))
        yield Entry(f"{theirs}.num_batches_tracked", None, ())

    kernel = (widths[0], network.input_channels, stem.kernel, stem.kernel)
    yield Entry("conv1.weight", "stem.conv.weight", kernel)
    yield from bn("bn1", "stem.bn", widths[0])
    for block in network.blocks():
        theirs, ours = _block_name(network, block), block.name
        cin, cout = block.in_channels, block.out_channels
        yield Entry(f"{theirs}.move0.bias", f"{ours}.bias0", (cin,))
        yield Entry(f"{theirs}.binary_conv.weight", f"{ours}.conv.weight", (cout, cin, 3, 3))
        if author == RBONN:
            yield Entry(f"{theirs}.{SCALE}", f"{ours}.conv.alpha", (cout,))
            # The recurrence acts in training only.
            yield Entry(f"{theirs}.binary_conv.u", None, (cout,))
        yield from bn(f"{theirs}.bn1", f"{ours}.bn", cout)
        if block.downsamples:  # downsample.0 is the average pool
            name = f"{ours}.shortcut"
            yield Entry(f"{theirs}.downsample.1.weight", f"{name}.conv.weight", (cout, cin, 1, 1))
            yield from bn(f"{theirs}.downsample.2", f"{name}.bn", cout)
        yield Entry(f"{theirs}.move1.bias", f"{ours}.bias1", (cout,))
        yield Entry(f"{theirs}.prelu.weight", f"{ours}.prelu", (cout,))
        yield Entry(f"{theirs}.move2.bias", f"{ours}.bias2", (cout,))
    yield Entry("fc.weight", "fc.weight", (network.classes, widths[-1]))
    yield Entry("fc.bias", "fc.bias", (network.classes,))


def _block_name(network: Network, block: Block) -> str:
    """`layer1.0` for the first block of the first stage."""
    stage, index = 0, block.index
    while index >= network.blocks_per_stage[stage]:
        index -= network.blocks_per_stage[stage]
        stage += 1
    return f"layer{stage + 1}.{index}"


def _checked(entry: Entry, value: Tensor, model: str) -> np.ndarray:
    name, shape = entry.theirs, entry.shape
    found = tuple(value.shape)
    if found != shape and [n for n in found if n != 1] != [n for n in shape if n != 1]:
        raise ReleasedError(f"Tensor {name} must have shape {shape} for {model}, not {found}")
    if value.layout is not torch.strided:
        raise ReleasedError(f"Tensor {name} must hold real numbers, not {value.layout}")
    if not value.is_floating_point():
        raise ReleasedError(f"Tensor {name} must hold real numbers, not {value.dtype}")
    array: np.ndarray = value.to(torch.float32).reshape(shape).numpy()
    if not np.isfinite(array).all():
        raise ReleasedError(f"Tensor {name} must be finite, not NaN or infinite")
    if name.endswith(".running_var") and array.min() < 0:
        raise ReleasedError(f"Tensor {name} must not be negative, not {array.min():.3g}")
    return array
