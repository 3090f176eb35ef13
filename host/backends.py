"""What `rbonn run` can classify with: PyTorch, the golden model, a simulation or a board."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from host.arguments import progress
from host.device import Device
from host.errors import UserError
from host.images import ImageSet, Pixels
from isa.fixed import IntArray
from isa.geometry import Geometry
from isa.image import Image
from isa.registers import Source

NAMES = ("float", "integer", "golden", "rtl", "serial:PORT")


@dataclass(frozen=True)
class Results:
    """One entry per image.

    ``logits``: integers, or real numbers from `float`. ``cycles``: None where time does not exist.
    """

    logits: list[list[int]] | list[list[float]]
    classes: list[int]
    cycles: list[int | None]

    def to_json(self) -> dict[str, Any]:
        return {"logits": self.logits, "classes": self.classes, "cycles": self.cycles}


def check_name(name: str) -> str:
    """Raises UserError unless ``name`` is one of NAMES."""
    if name in NAMES[:-1] or (name.startswith("serial:") and name != "serial:"):
        return name
    raise UserError(f"Backend must be {', '.join(NAMES[:-1])} or {NAMES[-1]}, not {name!r}")


def is_pytorch(name: str) -> bool:
    """Whether the backend runs a checkpoint rather than an image."""
    return name in ("float", "integer")


def run_pytorch(name: str, checkpoint: Path, pixels: Pixels) -> Results:
    from rbonn_train.evaluate import predict

    logits, _ = predict(checkpoint, pixels, name)
    return Results(
        logits=logits.tolist(),
        classes=[int(c) for c in logits.argmax(axis=1)],
        cycles=[None] * len(pixels),
    )


def run_image(
    name: str,
    image: Image,
    geometry: Geometry,
    images: ImageSet,
    simulator: str = "verilator",
    source: Source | None = None,
) -> Results:
    """Runs an image on `golden`, `rtl` or `serial:PORT`; ``source``: by default the geometry's."""
    source = source or geometry.source
    if name == "golden":
        return _run_golden(image, geometry, images.pixels)
    if name == "rtl":
        return _run_rtl(image, geometry, images.pixels, simulator, source)
    from host.link import open_serial
    from hw.boards import get_board

    port, board = name.removeprefix("serial:"), get_board(geometry.name)
    with open_serial(port, board.uart_baud) as transport:
        device = Device(transport, expected=geometry, source=source)
        device.load_image(image)
        frames = []
        results = device.classify_all(images.pixels)
        try:
            for frame in progress(results, total=len(images), unit="image"):
                frames.append(frame)
        except RuntimeError as error:  # of the device, or of the way to it
            raise UserError(f"{images.names[len(frames)]}: {error}") from error
    return Results(
        logits=[frame.logits for frame in frames],
        classes=[frame.top[0][0] for frame in frames],
        cycles=[frame.cycles or None for frame in frames],
    )


def _run_golden(image: Image, geometry: Geometry, pixels: Pixels) -> Results:
    from sim.golden import Golden

    stream = Golden(geometry, image).stream(pixels)
    logits = list(progress(stream, total=len(pixels), unit="image"))
    return _results(logits, [None] * len(pixels))


def _run_rtl(
    image: Image, geometry: Geometry, pixels: Pixels, simulator: str, source: Source
) -> Results:
    from sim.runner import simulate

    result = simulate(geometry, image, pixels, simulator=simulator, source=source)
    return _results(result.logits, list(result.cycles))


def _results(logits: Iterable[IntArray], cycles: list[int | None]) -> Results:
    rows = [[int(value) for value in row] for row in logits]
    return Results(rows, [int(np.argmax(row)) for row in rows], cycles)
