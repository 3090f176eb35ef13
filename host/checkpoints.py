"""The checkpoint that a command works on: one that ships, one of ours, or one from elsewhere.

What has to be made first, an import, its scales or seeded weights, is kept under build/checkpoints,
named by a digest of all that it depends on. Only then is torch imported.
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
from host.models import MODELS, model_name

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

    ``calibration``: typical images, for scales. ``calibrated``: the command needs scales.
    Raises UserError.
    """
    name = model_name(model)
    if given is None:
        if calibration is not None:
            raise UserError("Give --calibration together with the --checkpoint that it is for")
        return _shipped(model, name)
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
    return path if calibration is None else _calibrated(path, calibration)


def _shipped(model: str, name: str) -> Path:
    folder = Path(model).parent if model.endswith(".yaml") else MODELS
    path = folder / f"{name}.safetensors"
    if path.is_file():
        return path
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
