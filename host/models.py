"""Where things are: models that ship, their checkpoints and images, boards and geometries.

Reading a checkpoint or compiling it needs no torch; nothing here imports it.
"""

import dataclasses
from pathlib import Path

import numpy as np

from host.errors import UserError, known
from host.images import ImageSet, Pixels, load_images
from isa.checked import decode
from isa.geometry import GEOMETRIES, Geometry
from isa.image import HEADER, HEADER_WORDS, MAGIC, Image, ImageError, parse

ROOT = Path(__file__).parents[1]
MODELS = ROOT / "models"
SHIPPED_IMAGES = MODELS / "data" / "fmnist-500.npz"
DEFAULT_BOARD = "ulx3s-25f"


def known_models() -> list[str]:
    return sorted(path.stem for path in MODELS.glob("*.yaml"))


def model_name(model: str) -> str:
    """The name of a model that is given as such or as a .yaml file. Raises UserError."""
    if model.endswith(".yaml"):
        if not Path(model).is_file():
            raise UserError(f"Model must be an existing .yaml file, not {model}")
        return Path(model).stem
    if model not in known_models():
        raise known("Model", model, known_models())
    return model


def checkpoint_path(model: str, given: str | Path | None = None) -> Path:
    """The checkpoint to use: the one given, or the one that ships with ``model``."""
    name = model_name(model)
    if given is not None:
        path = Path(given)
        if not path.is_file():
            raise UserError(f"Checkpoint must be an existing file, not {path}")
        return path
    folder = Path(model).parent if model.endswith(".yaml") else MODELS
    path = folder / f"{name}.safetensors"
    if not path.is_file():
        raise UserError(
            f"Model {name} has no checkpoint at {path}: train it with `rbonn train --model {model}`"
            f" and name the result with --checkpoint"
        )
    return path


def geometry_named(board: str | None) -> Geometry:
    """The geometry of a board; ``tiny`` exists in simulation only."""
    name = DEFAULT_BOARD if board is None else board
    if name not in GEOMETRIES:
        raise known("Board", name, GEOMETRIES)
    return GEOMETRIES[name]


def read_image(path: str | Path, board: str | None = None) -> tuple[Image, Geometry]:
    """A checked image file and its geometry: that of ``board``, or the one in its header."""
    path = Path(path)
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise UserError(f"Image must be a readable file, not {path}: {error.strerror}") from error
    geometry = geometry_named(board)
    if board is None:
        geometry = _geometry_of(raw) or geometry
    try:
        return parse(raw, geometry), geometry
    except ImageError as error:
        raise UserError(f"{path}: {error}") from error


def _geometry_of(raw: bytes) -> Geometry | None:
    """The known geometry whose digest the header has, if there is one."""
    if len(raw) < 4 * HEADER_WORDS or int.from_bytes(raw[:4], "little") != MAGIC:
        return None
    digest = decode(HEADER, int.from_bytes(raw[: 4 * HEADER_WORDS], "little"))["geometry"]
    return next((g for g in GEOMETRIES.values() if g.digest == digest), None)


def shipped_images(shape: tuple[int, int, int], limit: int | None = None) -> ImageSet:
    """The test images that ship, made to fit a smaller network. Raises UserError."""
    found = load_images(SHIPPED_IMAGES, None, limit)
    return dataclasses.replace(found, pixels=fit(found.pixels, shape))


def fit(pixels: Pixels, shape: tuple[int, int, int]) -> Pixels:
    """Images made smaller by whole-pixel box averages, their border cropped symmetrically.

    The same pixels as those that a model of this size was trained on.
    """
    if pixels.shape[1:] == shape:
        return pixels
    height, width, channels = shape
    factor = min(pixels.shape[1] // height, pixels.shape[2] // width)
    if factor < 1 or pixels.shape[3] != channels:
        raise UserError(
            f"Images that ship are {' x '.join(map(str, pixels.shape[1:]))} and do not fit this "
            f"network's {' x '.join(map(str, shape))}: name others with --images"
        )
    top = (pixels.shape[1] - factor * height) // 2
    left = (pixels.shape[2] - factor * width) // 2
    part = pixels[:, top : top + factor * height, left : left + factor * width]
    grouped = part.reshape(len(part), height, factor, width, factor, channels)
    sums = grouped.sum(axis=(2, 4), dtype=np.int64)
    return ((2 * sums + factor**2) // (2 * factor**2)).astype(np.uint8)


def images_for(path: str | None, shape: tuple[int, int, int], limit: int | None = None) -> ImageSet:
    """The images named on the command line, or those that ship."""
    return shipped_images(shape, limit) if path is None else load_images(path, shape, limit)
