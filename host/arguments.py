"""Options that several commands share, and how their results are written."""

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from host.errors import UserError
from host.models import SOURCES, deployment
from isa.geometry import Geometry
from isa.registers import Source

Item = TypeVar("Item")


def add_model(parser: argparse.ArgumentParser, *, required: bool = True) -> None:
    parser.add_argument(
        "--model", metavar="M", required=required, help="a network of models/, or a .yaml file"
    )
    parser.add_argument(
        "--checkpoint",
        metavar="FILE",
        help="checkpoint to use, ours or a released .pth.tar (default: the one that ships)",
    )
    add_calibration(parser)


def add_calibration(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--calibration",
        metavar="IMAGES",
        help="typical images (.npz, .png, folder) that give a checkpoint from elsewhere its scales",
    )


def add_board(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--board",
        metavar="B",
        help="tiny (simulation only), ulx3s-25f or ulx3s-85f (default: as the model says)",
    )


def add_source(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--source",
        choices=SOURCES,
        help="where the image is: in the board's block RAM or SDRAM, or sent anew over the link "
        "for every frame (default: as the model says, or the board's memory for it)",
    )


def source_of(args: argparse.Namespace, geometry: Geometry) -> Source:
    """The source that was asked for, or the model's for its own board, or the geometry's.

    Raises UserError for a memory that the geometry has not."""
    meant = deployment(args.model)
    name: str | None = args.source or (meant.source if meant.board == geometry.name else None)
    source = geometry.source if name is None else Source[name.upper()]
    words = {Source.RAM: geometry.image_words, Source.SDRAM: geometry.sdram_image_words}
    if not words.get(source, 1):
        there = [other.name.lower() for other in Source if words.get(other, 1)]
        raise UserError(f"Source must be {' or '.join(there)} on {geometry.name}, not {name}")
    return source


def add_images(parser: argparse.ArgumentParser, default: str, *names: str) -> None:
    """``names``: what the option may be called besides."""
    parser.add_argument(
        "--images",
        *names,
        dest="images",
        metavar="FILE",
        help=f".npz (array `images`, uint8 N x H x W x C), .png or folder of .png ({default})",
    )
    parser.add_argument("--limit", metavar="N", type=int, help="take the first N images only")


def add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", metavar="OUT", help="write the result as JSON; - for stdout")


def write_json(path: str | None, value: Any) -> None:
    """Writes ``value`` where ``--json`` says, the file atomically; nowhere without the option."""
    if path is None:
        return
    if path == "-":
        json.dump(value, sys.stdout)
        print()
        return
    from isa.checkpoint import write_atomically

    try:
        write_atomically(Path(path), (json.dumps(value) + "\n").encode())
    except OSError as error:
        raise UserError(f"Output must be a writable file, not {path}: {error.strerror}") from error


def say(text: str, args: argparse.Namespace) -> None:
    """Prints a line for a person, on stderr if stdout is taken by JSON."""
    print(text, file=sys.stderr if getattr(args, "json", None) == "-" else sys.stdout)


def progress(
    items: Iterable[Item], *, total: int, unit: str, label: str | None = None
) -> Iterator[Item]:
    """``items`` with a progress bar on stderr, if that is a terminal."""
    from tqdm import tqdm

    bar = tqdm(
        items, desc=label, total=total, unit=unit, leave=False, disable=not sys.stderr.isatty()
    )
    yield from bar


@contextmanager
def cycles_bar(total: int) -> Iterator[Callable[[int], None]]:
    """A function that is told how many cycles have been simulated, for a progress bar on stderr
    with cycles a second, if that is a terminal. ``total``: about so many there will be."""
    from tqdm import tqdm

    hidden = not sys.stderr.isatty()
    with tqdm(total=total, unit="cycle", unit_scale=True, leave=False, disable=hidden) as bar:
        yield lambda cycles: bar.update(cycles - bar.n)
