"""The compiler: checkpoint in, image and report out."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from compiler import save
from compiler.fit import capacity, check_fit
from compiler.fold import fold, lower, prove_formats
from compiler.importer import Checkpoint, import_checkpoint, import_tensors
from compiler.ir import Program
from compiler.overlap import overlap_stem
from compiler.pack import pack
from compiler.place import place_bits, place_residuals
from compiler.report import report
from compiler.schedule import choose_blocks, describe_layers
from compiler.tile import tile_weights
from compiler.verify import Verifier
from isa.geometry import Geometry
from isa.image import Image
from isa.network import CheckpointInfo
from isa.registers import Source

PASSES: tuple[Callable[[Program], Program], ...] = (
    prove_formats,
    place_residuals,
    place_bits,
    tile_weights,
    choose_blocks,
    overlap_stem,
    describe_layers,
)


@dataclass(frozen=True)
class Compiled:
    """An image and what is known about it; ``report`` is plain JSON data (compiler/report.py)."""

    image: Image
    report: Mapping[str, Any]
    program: Program


def compile_network(
    checkpoint: Path | str,
    geometry: Geometry,
    *,
    save_intermediates: Path | str | None = None,
    source: Source | None = None,
    stream_rate: float = 1.0,
    verify: bool = True,
) -> Compiled:
    """Compiles a checkpoint file.

    ``save_intermediates``: a folder for every level of the program, and the image.
    ``source``: where the image will be, by default where the geometry keeps it; it must fit there.
    ``stream_rate``: words of it that come from there in a cycle of the core.
    ``verify``: a test frame is run through every level, and all must agree exactly.
    Raises CompileError, one line, for whatever cannot be compiled.
    """
    imported = import_checkpoint(checkpoint)
    return _compile(
        imported, geometry, save_intermediates, source or geometry.source, stream_rate, verify
    )


def compile_tensors(
    info: CheckpointInfo,
    tensors: Mapping[str, np.ndarray],
    geometry: Geometry,
    *,
    save_intermediates: Path | str | None = None,
    source: Source | None = None,
    stream_rate: float = 1.0,
    verify: bool = True,
) -> Compiled:
    """The same for a checkpoint in memory."""
    imported = import_tensors(info, tensors)
    return _compile(
        imported, geometry, save_intermediates, source or geometry.source, stream_rate, verify
    )


def _compile(
    checkpoint: Checkpoint,
    geometry: Geometry,
    folder: Path | str | None,
    source: Source,
    stream_rate: float,
    verify: bool,
) -> Compiled:
    check_fit(checkpoint.info.network, geometry, source)
    folded = fold(checkpoint)
    verifier = Verifier(folded) if verify else None
    program = lower(folded, geometry)
    program = replace(
        program,
        stream_rate=min(1.0, stream_rate),
        image_words=capacity(geometry, source),
        input_shares=source is Source.SDRAM,
    )
    levels = [("lower", program)]
    if verifier:
        verifier.check("lower", program)
    for change in PASSES:
        program = change(program)
        levels.append((change.__name__, program))
        if verifier:
            verifier.check(change.__name__, program)
    image = pack(program)
    if verifier:
        verifier.check_image("pack", image, program)
    if folder is not None:
        save.intermediates(Path(folder), levels, image)
    return Compiled(image, report(program, image, source), program)


def describe(compiled: Compiled) -> dict[str, Any]:
    """What `rbonn compile` writes beside the image."""
    return dict(compiled.report)
