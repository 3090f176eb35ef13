"""Reading, checking and writing checkpoint files: plain numpy, so that no floor needs torch for it.

A checkpoint is one safetensors file with the tensors of :func:`isa.network.tensor_shapes` and one
metadata key, ``rbonn``. A tensor may be stored as float16, float32, float64 or int8 (the signs of
a latent weight, for instance); it is read as float64, so that every later step is deterministic.
"""

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from isa.network import CheckpointInfo, NetworkError, Quantisation, tensor_shapes

METADATA_KEY = "rbonn"
#: Types of stored tensors: their names in the file, and in numpy.
DTYPES = {"F16": "float16", "F32": "float32", "F64": "float64", "I8": "int8"}

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
            tensors = {}
            for name in file.keys():
                if (dtype := file.get_slice(name).get_dtype()) not in DTYPES:
                    raise CheckpointError(
                        f"Tensor {name} must be stored as one of {', '.join(DTYPES)}, not {dtype}"
                    )
                tensors[name] = file.get_tensor(name).astype(np.float64)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"Checkpoint {path} must be a safetensors file: {error}") from error
    try:
        info = CheckpointInfo.from_json(metadata[METADATA_KEY])
        check_checkpoint(info, tensors, calibrated=calibrated)
    except NetworkError as error:
        raise CheckpointError(f"Checkpoint {path}: {error}") from error
    return info, tensors


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
