"""Where things are: models that ship, their checkpoints and images, boards and geometries.

Reading a checkpoint or compiling it needs no torch; nothing here imports it.
"""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import yaml

from host.errors import UserError, known
from host.images import ImageSet, load_images
from isa.bits import WORD_BITS
from isa.checked import decode
from isa.geometry import GEOMETRIES, Geometry
from isa.image import HEADER, HEADER_WORDS, MAGIC, Image, ImageError, parse
from isa.network import Network, NetworkError, network_from_dict
from isa.pixels import fit
from isa.registers import Source

ROOT = Path(__file__).parents[1]
MODELS = ROOT / "models"
SHIPPED_IMAGES = MODELS / "data" / "fmnist-500.npz"
SHIPPED_CLASSES = 10
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


@dataclass(frozen=True)
class Deployment:
    """Where a model runs unless somebody says otherwise: the board, and the image's source, if it
    is not the board's."""

    board: str = DEFAULT_BOARD
    source: str | None = None


SOURCES = ("ram", "link", "sdram")


def _model_file(model: str) -> Path:
    name = model_name(model)
    return Path(model) if model.endswith(".yaml") else MODELS / f"{name}.yaml"


def network_of(model: str) -> Network:
    """The network that the model's file describes. Raises UserError."""
    path = _model_file(model)
    try:
        raw = yaml.safe_load(path.read_text())
        return network_from_dict({"name": path.stem, **raw["network"]})
    except (yaml.YAMLError, UnicodeDecodeError, KeyError, TypeError, NetworkError) as error:
        raise UserError(f"Model file {path} must be YAML with a network: {error}") from error


def deployment(model: str | None) -> Deployment:
    """What the model's file says under `deployment`. Raises UserError."""
    if model is None:
        return Deployment()
    path = _model_file(model)
    try:
        raw = yaml.safe_load(path.read_text())
        found = Deployment(**(raw.get("deployment") or {}))
    except (yaml.YAMLError, UnicodeDecodeError, AttributeError, TypeError) as error:
        raise UserError(
            f"Model file {path} must be YAML, its deployment a board and a source: {error}"
        ) from error
    if found.source not in (*SOURCES, None):
        raise known("Source", found.source, SOURCES)
    return found


def geometry_named(board: str | None, model: str | None = None) -> Geometry:
    """The geometry of a board, or of ``model``'s; ``tiny`` exists in simulation only."""
    name = deployment(model).board if board is None else board
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


SDRAM_EFFICIENCY = 0.97
"""Share of its clock cycles in which the SDRAM delivers: refresh and new rows take the others."""


def stream_rate(geometry: Geometry, source: Source, *, peak: bool = False) -> float:
    """Words of the image that come in a cycle of the core, at most one, where it is known: from an
    SDRAM at the board's clocks. ``peak``: if it did nothing else than deliver."""
    from hw.boards import BOARDS
    from hw.sdram_chip import DATA_BITS

    if source is not Source.SDRAM or geometry.name not in BOARDS:
        return 1.0
    clocks = BOARDS[geometry.name].clocks
    beats = clocks.memory_mhz / clocks.output_mhz * (1 if peak else SDRAM_EFFICIENCY)
    return float(min(1.0, beats * DATA_BITS / WORD_BITS))


def shipped_images(shape: tuple[int, int, int], limit: int | None = None) -> ImageSet:
    """The test images that ship, made to fit a network of another size. Raises UserError."""
    found = load_images(SHIPPED_IMAGES, None, limit)
    try:
        return dataclasses.replace(found, pixels=fit(found.pixels, shape))
    except ValueError as error:
        raise UserError(f"{error}: name other images with --images") from error


def labelled(images: ImageSet, path: str | None, classes: int) -> ImageSet:
    """``images`` of :func:`images_for`, without labels where those that ship were taken for a
    network of other ``classes``, as ImageNet's."""
    if path is None and classes > SHIPPED_CLASSES:
        return dataclasses.replace(images, labels=None)
    return images


def images_for(path: str | None, shape: tuple[int, int, int], limit: int | None = None) -> ImageSet:
    """The images named on the command line, or those that ship."""
    return shipped_images(shape, limit) if path is None else load_images(path, shape, limit)
