"""The first level: a checked, calibrated checkpoint."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from compiler.errors import CompileError
from isa.checkpoint import check_checkpoint, read_checkpoint
from isa.network import CheckpointInfo, NetworkError


@dataclass(frozen=True)
class Checkpoint:
    """Metadata and float64 tensors, complete and with scales."""

    info: CheckpointInfo
    tensors: Mapping[str, np.ndarray]


def import_checkpoint(path: Path | str) -> Checkpoint:
    """Reads a checkpoint file. Raises CompileError where it is missing, damaged or uncalibrated."""
    try:
        return Checkpoint(*read_checkpoint(path))
    except NetworkError as error:
        raise CompileError(str(error)) from error


def import_tensors(info: CheckpointInfo, tensors: Mapping[str, np.ndarray]) -> Checkpoint:
    """The same from memory."""
    try:
        check_checkpoint(info, tensors)
    except NetworkError as error:
        raise CompileError(str(error)) from error
    return Checkpoint(info, tensors)
