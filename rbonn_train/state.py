"""The state of a training run in one file, from which it goes on bit for bit.

What a run is (:class:`Run`), how far it is (:class:`Progress`), and the tensors and random states
of that moment travel together, so that a file never mixes two moments. It holds plain data and
tensors only and is read with ``weights_only``: it cannot execute code.
"""

import dataclasses
import io
import pickle
import random
import signal
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from isa.checkpoint import write_atomically

FORMAT = 1
SUFFIX = ".state.pt"
LARGEST_SEED = 2**32 - 1  # that numpy takes


class StateError(ValueError):
    """A training state that is missing, damaged, or of another run."""


@dataclass
class Progress:
    """How far a run is. ``order`` is the permutation of the epoch in progress, None between two;
    ``batch`` the number of its batches that are done, ``loss``, ``correct`` and ``seen`` their
    sums; ``saved`` whether a checkpoint has been written; ``curve`` has a row for each finished
    epoch, ``layers`` what that epoch did to each binary layer."""

    phase: int = 0
    epoch: int = 0
    batch: int = 0
    order: Tensor | None = None
    loss: float = 0.0
    correct: int = 0
    seen: int = 0
    seconds: float = 0.0
    saved: bool = False
    curve: list[dict[str, Any]] = field(default_factory=list)
    layers: list[dict[str, Any]] = field(default_factory=list)

    def next_epoch(self) -> None:
        self.epoch += 1
        self.batch, self.order = 0, None
        self.loss, self.correct, self.seen, self.seconds = 0.0, 0, 0, 0.0

    def next_phase(self) -> None:
        self.phase, self.epoch = self.phase + 1, 0


def seed_everything(seed: int) -> None:
    """Seeds torch's, numpy's and Python's global generators."""
    torch.manual_seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - the global generator is what this is about
    random.seed(seed)


def random_states(own: torch.Generator) -> dict[str, Any]:
    """The states of ``own`` and of every global generator."""
    numpy = np.random.get_state(legacy=False)  # noqa: NPY002
    assert isinstance(numpy, dict)
    return {
        "own": own.get_state(),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": {**numpy, "state": {**numpy["state"], "key": numpy["state"]["key"].tolist()}},
        "python": random.getstate(),
    }


def restore_random_states(states: Mapping[str, Any], own: torch.Generator) -> None:
    """The inverse of :func:`random_states`, as far as this computer has as many CUDA devices."""
    own.set_state(states["own"])
    torch.set_rng_state(states["torch"])
    torch.cuda.set_rng_state_all(states["cuda"][: torch.cuda.device_count()])
    numpy = states["numpy"]
    key = np.array(numpy["state"]["key"], np.uint32)
    np.random.set_state({**numpy, "state": {**numpy["state"], "key": key}})  # noqa: NPY002
    random.setstate(states["python"])


def environment(device: str, processes: int) -> dict[str, Any]:
    """What besides the state decides the last bits of a sum."""
    return {
        "torch": str(torch.__version__),
        "threads": torch.get_num_threads(),
        "device": device,
        "processes": processes,
    }


def write_state(path: Path, state: Mapping[str, Any]) -> None:
    """Writes the state atomically. Raises StateError, and keeps the old file, where a tensor of
    the model is not finite: such a run could only fail again."""
    for name, value in state["model"].items():
        if value.is_floating_point() and not value.isfinite().all():
            raise StateError(f"Tensor {name} must be finite to be saved")
    buffer = io.BytesIO()
    torch.save({"format": FORMAT, **state}, buffer)
    write_atomically(path, buffer.getvalue())


def read_state(path: Path) -> dict[str, Any]:
    """The state in a file, its tensors in the computer's own memory, wherever they were. Raises
    StateError."""
    if not path.is_file():
        raise StateError(f"Training state must be an existing file, not {path}")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, OSError, EOFError, ValueError, KeyError, pickle.UnpicklingError) as error:
        raise StateError(f"Training state {path} must be readable, not damaged: {error}") from error
    found = state.get("format") if isinstance(state, dict) else None
    if found != FORMAT:
        raise StateError(f"Training state {path} must have format {FORMAT}, not {found!r}")
    return dict(state)


def find_state(folder: Path, name: str | None = None) -> Path:
    """The state of the run in ``folder``, of the network ``name`` if given. Raises StateError."""
    if folder.is_file():
        raise StateError(
            f"File {folder} holds what a network needs to run, not to go on training with: name "
            f"the folder of an interrupted run"
        )
    if name is not None:
        found = [path for path in [folder / f"{name}{SUFFIX}"] if path.is_file()]
    else:
        found = sorted(folder.glob(f"*{SUFFIX}"))
    if not found:
        raise StateError(f"Folder {folder} must hold an interrupted run ({name or '*'}{SUFFIX})")
    if len(found) > 1:
        names = ", ".join(path.name.removesuffix(SUFFIX) for path in found)
        raise StateError(f"Folder {folder} holds runs of {names}: choose one with --model")
    return found[0]


def progress_to_dict(progress: Progress) -> dict[str, Any]:
    """A copy that later epochs do not change."""
    return {**dataclasses.asdict(progress), "order": progress.order}


class Interrupts:
    """While entered, Ctrl-C and SIGTERM only set ``requested``, so that a run can stop at a place
    where it can be saved; a second one interrupts at once. Elsewhere than in the main thread,
    which alone receives signals, it does nothing."""

    def __init__(self) -> None:
        self.requested = False
        self._old: dict[int, Any] = {}

    def __enter__(self) -> "Interrupts":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._old[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)
        self._old.clear()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
