"""Intermediates on disk: for each level NN-name.json with the program's numbers, NN-name.npz with
its arrays, and the image. A dataclass becomes a JSON object, an array the name that it has in the
npz file."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np

from compiler.ir import Program
from isa.image import Image


def intermediates(folder: Path, levels: Sequence[tuple[str, Program]], image: Image) -> None:
    """Writes every level and the image into ``folder``, which is made if need be."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, (name, program) in enumerate(levels):
        arrays: dict[str, np.ndarray] = {}
        plain = _plain(program, "program", arrays)
        stem = f"{number:02}-{name}"
        (folder / f"{stem}.json").write_text(json.dumps(plain, indent=1) + "\n")
        np.savez_compressed(folder / f"{stem}.npz", allow_pickle=False, **arrays)
    (folder / f"{len(levels):02}-pack.img").write_bytes(image.to_bytes())


def _plain(value: Any, path: str, arrays: dict[str, np.ndarray]) -> Any:
    if isinstance(value, np.ndarray):
        arrays[path] = value
        return {"array": path, "shape": list(value.shape)}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
        return {k: _plain(v, f"{path}.{k}", arrays) for k, v in fields.items()}
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, Mapping):
        return {k: _plain(v, f"{path}.{k}", arrays) for k, v in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(v, f"{path}.{i}", arrays) for i, v in enumerate(value)]
    return value
