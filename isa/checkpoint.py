"""Reading, checking and writing checkpoint files: plain numpy, so that no floor needs torch for it.

A checkpoint is one safetensors file with the tensors of :func:`isa.network.tensor_shapes` and one
metadata key, ``rbonn``. A tensor may be stored as float16, float32, float64 or int8; it is read as
float64, so that every later step is deterministic. Of binary weights only the signs count: where
they are all that is stored, as -1 and +1 of int8, the file has a bit for each (uint8, flat, in C
order, the first in the least significant bit; bit 1 = +1).
"""

import json
import math
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from isa.network import CheckpointInfo, Network, NetworkError, Quantisation, tensor_shapes

METADATA_KEY = "rbonn"
#: Types of stored tensors: their names in the file, and in numpy.
DTYPES = {"F16": "float16", "F32": "float32", "F64": "float64", "I8": "int8"}
BITS = "U8"

FloatArray = npt.NDArray[np.float64]


class CheckpointError(NetworkError):
    """A checkpoint file that is missing, damaged, incomplete or not calibrated."""


def read_checkpoint(
    path: Path | str, *, calibrated: bool = True
) -> tuple[CheckpointInfo, dict[str, FloatArray]]:
    """The metadata and the float64 tensors of a checkpoint, checked.

    ``calibrated=False`` also accepts a checkpoint without scales. Raises CheckpointError.
    """
    path = Path(path)
    with _opened(path) as (file, metadata):
        types = {name: file.get_slice(name).get_dtype() for name in file.keys()}
        stored = {name: file.get_tensor(name) for name in file.keys()}
    try:
        info = CheckpointInfo.from_json(metadata)
        weights = binary_weights(info.network)
        tensors = {}
        for name, value in stored.items():
            if types[name] == BITS and name in weights:
                value = unpack_signs(name, value, weights[name])
            elif types[name] not in DTYPES:
                raise CheckpointError(
                    f"Tensor {name} must be stored as one of {', '.join(DTYPES)}, not {types[name]}"
                )
            tensors[name] = value.astype(np.float64)
        check_checkpoint(info, tensors, calibrated=calibrated)
    except NetworkError as error:
        raise CheckpointError(f"Checkpoint {path}: {error}") from error
    return info, tensors


def read_info(path: Path | str) -> CheckpointInfo:
    """The metadata alone; nothing is checked of the tensors. Raises CheckpointError."""
    path = Path(path)
    with _opened(path) as (_, metadata):
        pass
    try:
        return CheckpointInfo.from_json(metadata)
    except NetworkError as error:
        raise CheckpointError(f"Checkpoint {path}: {error}") from error


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, str]]:
    """The open file and its metadata. Raises CheckpointError, also for what is then read of it."""
    if not path.is_file():
        raise CheckpointError(f"Checkpoint must be an existing file, not {path}")
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            if METADATA_KEY not in metadata:
                raise CheckpointError(
                    f"Checkpoint {path} must have metadata under the key {METADATA_KEY!r}; "
                    f"import other files with `rbonn calibrate`"
                )
            yield file, metadata[METADATA_KEY]
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"Checkpoint {path} must be a safetensors file: {error}") from error


def binary_weights(network: Network) -> dict[str, tuple[int, ...]]:
    """The names and shapes of those weights of which only the signs count."""
    shapes = tensor_shapes(network)
    names = (f"{block.name}.conv.weight" for block in network.blocks())
    return {name: shapes[name] for name in names}


def pack_signs(value: npt.NDArray[np.int8]) -> npt.NDArray[np.uint8]:
    """Signs, -1 and +1 of any shape, as bits: 1 for +1, in C order, the first one lowest."""
    return np.packbits(value.ravel() > 0, bitorder="little")


def unpack_signs(
    name: str, bits: npt.NDArray[np.uint8], shape: tuple[int, ...]
) -> npt.NDArray[np.int8]:
    """The inverse of :func:`pack_signs`. Raises CheckpointError for another number of bytes."""
    count = math.prod(shape)
    if bits.shape != (-(-count // 8),):
        raise CheckpointError(
            f"Tensor {name} must hold {count} signs in {-(-count // 8)} bytes, not bytes of shape "
            f"{bits.shape}"
        )
    signs = np.unpackbits(bits, count=count, bitorder="little").reshape(shape)
    return 2 * signs.astype(np.int8) - 1


def check_checkpoint(
    info: CheckpointInfo, tensors: Mapping[str, np.ndarray], *, calibrated: bool = True
) -> None:
    """Raises CheckpointError unless the tensors, and the scales, are those of ``info.network``."""
    shapes = tensor_shapes(info.network)
    if missing := sorted(set(shapes) - set(tensors)):
        raise CheckpointError(f"Tensors must be complete; missing: {', '.join(missing)}")
    if extra := sorted(set(tensors) - set(shapes)):
        raise CheckpointError(f"Tensors must belong to the network; extra: {', '.join(extra)}")
    for name, shape in shapes.items():
        value = tensors[name]
        if value.shape != shape:
            raise CheckpointError(f"Tensor {name} must have shape {shape}, not {value.shape}")
        if not np.isfinite(value).all():
            count = int((~np.isfinite(value)).sum())
            raise CheckpointError(
                f"Tensor {name} must be finite, not NaN or infinite in {count} of {value.size} "
                f"values"
            )
        if name.endswith(".running_var") and value.min() < 0:
            raise CheckpointError(f"Tensor {name} must not be negative, not {value.min():.3g}")
    if info.quantisation is not None:
        _check_scales(info.quantisation, info.network.residual_names())
    elif calibrated:
        raise CheckpointError(
            "Checkpoint must be calibrated, not without scales of the residual stream; "
            "run `rbonn calibrate`"
        )


def _check_scales(quantisation: Quantisation, names: list[str]) -> None:
    scale, exponents = quantisation.scale, quantisation.exponents
    number = isinstance(scale, int | float) and not isinstance(scale, bool)
    if not number or not np.isfinite(scale) or scale <= 0:
        raise CheckpointError(f"Scale must be a positive number, not {scale!r}")
    if not isinstance(exponents, Mapping):
        raise CheckpointError(f"Exponents must be given by name, not as {exponents!r}")
    if set(exponents) != set(names):
        raise CheckpointError(
            f"Exponents must be given for {', '.join(names)}, "
            f"not for {', '.join(sorted(exponents))}"
        )
    for name in names:
        if type(exponents[name]) is not int or abs(exponents[name]) > 64:
            raise CheckpointError(
                f"Exponent of {name} must be an integer from -64 to 64, not {exponents[name]!r}"
            )


def compact(value: np.ndarray) -> np.ndarray:
    """The same values in the smallest of int8, float32 and float64 that holds them exactly."""
    for dtype in (np.int8, np.float32):
        with np.errstate(invalid="ignore", over="ignore"):
            smaller = value.astype(dtype)
        if np.array_equal(smaller.astype(np.float64), value):
            return smaller
    return value


def write_checkpoint(
    path: Path | str, info: CheckpointInfo, tensors: Mapping[str, np.ndarray]
) -> None:
    """Writes a checked checkpoint (calibrated or not) atomically. Raises CheckpointError."""
    check_checkpoint(info, tensors, calibrated=False)
    for name, value in tensors.items():
        if value.dtype.name not in DTYPES.values():
            raise CheckpointError(
                f"Tensor {name} must be stored as one of {', '.join(DTYPES.values())}, not "
                f"{value.dtype.name}"
            )
    # A copy in C order: safetensors stores the memory of an array, whatever its strides.
    copies = {name: np.ascontiguousarray(value) for name, value in tensors.items()}
    for name in binary_weights(info.network):
        if copies[name].dtype == np.int8 and (np.abs(copies[name]) == 1).all():
            copies[name] = pack_signs(copies[name])
    write_atomically(path, save(copies, metadata={METADATA_KEY: info.to_json()}))


def write_json_atomically(path: Path | str, value: object) -> None:
    """Writes ``value`` as indented JSON; the old file stays until the new one is complete."""
    write_atomically(path, (json.dumps(value, indent=1, sort_keys=True) + "\n").encode())


def write_atomically(path: Path | str, data: bytes) -> None:
    """Writes a temporary file beside ``path`` and renames it: a reader sees the old file or the
    new one, and an interruption leaves the old one."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
