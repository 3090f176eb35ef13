"""The checkpoint that a command works on: one that ships, one of ours, or one from elsewhere.

It always holds the network of the command's model. What has to be made first, an import, its
scales, a copy for another input size or seeded weights, is kept under build/checkpoints, named by a
digest of all that it depends on. Only then is torch imported.
"""

import argparse
import dataclasses
import hashlib
import json
import sys
from collections.abc import Callable
from pathlib import Path

from host.errors import UserError
from host.images import load_images
from host.models import MODELS, model_name, network_of
from isa.network import Network, Stem

CACHE = Path("build/checkpoints")
VERSION = 2  # of what is kept: raise it when an import gives something else than before

#: How torch.save's files are usually named: those that RBONN and ReActNet released are.
RELEASED_SUFFIXES = (".pth", ".tar", ".pt")


def is_released(path: Path) -> bool:
    """Whether the file is named like one that torch.save wrote."""
    return path.suffix.lower() in RELEASED_SUFFIXES


def checkpoint_of(args: argparse.Namespace, *, calibrated: bool = True) -> Path:
    """:func:`checkpoint_path` for the options of `host.arguments.add_model`."""
    return checkpoint_path(args.model, args.checkpoint, args.calibration, calibrated=calibrated)


def checkpoint_path(
    model: str,
    given: str | Path | None = None,
    calibration: str | Path | None = None,
    *,
    calibrated: bool = True,
) -> Path:
    """A checkpoint of ours: the one ``given``, imported if it is a released one, or the one that
    ships with ``model``, or seeded weights where its file asks for them.

    It must hold the model's network; of another input size, on which no tensor depends, a copy is
    made for the model's. ``calibration``: typical images, for scales. ``calibrated``: the command
    needs scales. Raises UserError, and CheckpointError for a file that is none.
    """
    name = model_name(model)
    if given is None:
        if calibration is not None:
            raise UserError("Give --calibration together with the --checkpoint that it is for")
        return _shipped(model, name, calibrated)
    path = Path(given)
    if not path.is_file():
        raise UserError(f"Checkpoint must be an existing file, not {path}")
    if is_released(path):
        if calibration is None and calibrated:
            raise UserError(
                f"Checkpoint {path} has no scales of the residual stream: name a few hundred "
                f"typical images with --calibration (.npz, .png or a folder)"
            )
        path = _imported(model, path)
    else:
        path = _of_model(model, path, scales_count=calibrated and calibration is None)
    return path if calibration is None else _calibrated(path, calibration)


def label(checkpoint: Path) -> str:
    """What the lines end with that say what came of a checkpoint of ours."""
    from isa.checkpoint import read_info

    return ", UNTRAINED" if read_info(checkpoint).untrained else ""


def _shipped(model: str, name: str, calibrated: bool) -> Path:
    folder = Path(model).parent if model.endswith(".yaml") else MODELS
    path = folder / f"{name}.safetensors"
    if path.is_file():
        return _of_model(model, path, scales_count=calibrated)
    from rbonn_train.config import load_model_yaml
    from rbonn_train.untrained import write_untrained

    config = load_model_yaml(model)
    seed = config.untrained_seed
    if seed is None:
        raise UserError(
            f"Model {name} has no checkpoint at {path}: train it with `rbonn train --model {model}`"
            f" and name the result with --checkpoint"
        )
    print(f"{name}: no checkpoint given, so with seeded weights, UNTRAINED", file=sys.stderr)
    key = [json.dumps(dataclasses.asdict(config.network)), str(seed)]
    return _kept(name, key, lambda out: write_untrained(out, config.network, seed))


def _of_model(model: str, path: Path, *, scales_count: bool) -> Path:
    """``path``, one of ours, if it holds the network of ``model``, whatever its name; a copy for
    the model's input size if that is all that differs. Raises UserError."""
    from isa.checkpoint import read_info

    info = read_info(path)
    wanted, held = network_of(model), info.network
    fields = [field.name for field in dataclasses.fields(wanted) if field.name != "name"]
    different = [name for name in fields if getattr(wanted, name) != getattr(held, name)]
    for name in different:
        if name != "input_size":
            raise UserError(
                f"Checkpoint {path} must hold the network of model {wanted.name}, whose {name} is "
                f"{_written(getattr(wanted, name))}, not {_written(getattr(held, name))}: give "
                f"another --checkpoint, or the --model that this one was trained as"
            )
    if info.untrained:
        print(f"{path}: seeded weights, UNTRAINED", file=sys.stderr)
    if not different:
        return path
    (old_height, old_width), (height, width) = held.input_size, wanted.input_size
    print(
        f"{path}: trained for {old_height} x {old_width} pixels, taken for {height} x {width}, "
        f"without its accuracies{' and with its scales' if scales_count else ''}",
        file=sys.stderr,
    )
    key = [json.dumps(dataclasses.asdict(wanted)), _digest(path.read_bytes())]
    return _kept(wanted.name, key, lambda out: _resized(path, wanted, out))


def _written(value: object) -> str:
    """A field of a network as its model file would have it."""
    if isinstance(value, Stem):
        return str(dataclasses.asdict(value))
    return str(list(value)) if isinstance(value, tuple) else str(value)


def _resized(path: Path, network: Network, out: Path) -> None:
    """Writes the weights and scales of ``path`` as those of ``network``, of another input size."""
    from isa.checkpoint import compact, read_checkpoint, write_checkpoint

    info, tensors = read_checkpoint(path, calibrated=False)
    info = dataclasses.replace(info, network=network, metrics={})
    write_checkpoint(out, info, {name: compact(value) for name, value in tensors.items()})


def _imported(model: str, path: Path) -> Path:
    """A released checkpoint as one of ours, without scales."""
    from rbonn_train.config import load_model_yaml
    from rbonn_train.released import import_released

    network = load_model_yaml(model).network
    key = [json.dumps(dataclasses.asdict(network)), path.name, _digest(path.read_bytes())]

    def make(out: Path) -> None:
        if zeros := import_released(path, network, out):
            print(
                f"{path.name}: {zeros} binary weights are exactly 0; they count as +1, in the "
                f"original as 0",
                file=sys.stderr,
            )

    return _kept(network.name, key, make)


def _calibrated(path: Path, calibration: str | Path) -> Path:
    """A checkpoint of ours with the scales that these images call for."""
    from isa.checkpoint import read_checkpoint
    from rbonn_train.calibrate import calibrate

    network = read_checkpoint(path, calibrated=False)[0].network
    pixels = load_images(calibration, (*network.input_size, network.input_channels)).pixels
    key = [_digest(path.read_bytes()), _digest(pixels.tobytes())]
    return _kept(network.name, key, lambda out: calibrate(path, pixels, out))


def _kept(name: str, key: list[str], make: Callable[[Path], object]) -> Path:
    """The file for ``key``, made unless it is there; ``make`` writes it atomically."""
    digest = _digest("\0".join([str(VERSION), *key]).encode())
    path = CACHE / f"{name}-{digest[:16]}.safetensors"
    if not path.is_file():
        make(path)
    return path


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
