"""What a training step costs: time and peak memory, beside plain binary weights and real ones."""

import dataclasses
import multiprocessing
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from isa.network import Network
from rbonn_train.methods import layer_maker
from rbonn_train.network import BinaryNetwork
from rbonn_train.optim import make_optimizer, update
from rbonn_train.recipe import Step

REAL_WEIGHTS = "real weights"
PLAIN = "plain"


@dataclass(frozen=True)
class Case:
    """What is measured. ``threads`` None: as many as torch takes."""

    batch: int = 128
    precision: str = "float32"
    threads: int | None = None


def make_step(network: Network, method: str, case: Case) -> Callable[[], object]:
    """A training step on one random batch, from the images to the weights after it."""
    if case.threads is not None:
        torch.set_num_threads(case.threads)
    generator = torch.Generator().manual_seed(0)
    shape = (case.batch, network.input_channels, *network.input_size)
    images = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
    images = images.contiguous(memory_format=torch.channels_last)
    labels = torch.randint(0, network.classes, (case.batch,), generator=generator)
    model = BinaryNetwork(network, None if method == REAL_WEIGHTS else layer_maker(method))
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = make_optimizer(model, Step(1), 0.1)
    half = case.precision == "bfloat16"

    def step() -> None:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
            logits = model(images)
        loss = nn.functional.cross_entropy(logits.float(), labels)
        update(model, optimizer, loss)

    return step


def seconds(network: Network, methods: list[str], case: Case, rounds: int) -> dict[str, float]:
    """The shortest step of each method; they take turns, so that what else runs hits all alike."""
    steps = {method: make_step(network, method, case) for method in methods}
    found: dict[str, list[float]] = {method: [] for method in methods}
    for number in range(rounds + 1):
        for method, step in steps.items():
            start = time.perf_counter()
            step()
            if number:  # the first one also allocates
                found[method].append(time.perf_counter() - start)
    return {method: min(times) for method, times in found.items()}


def _peak(network: Network, method: str, case: Case) -> int:
    step = make_step(network, method, case)
    for _ in range(2):
        step()
    # Not getrusage: its maximum includes the process that this one was forked from.
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))


def peak_kilobytes(network: Network, method: str, case: Case) -> int:
    """Largest memory of a process that does nothing else."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_peak, (network, method, case))


def measure(network: Network, method: str, case: Case, *, rounds: int = 5) -> dict[str, Any]:
    """A step of ``method``: milliseconds and megabytes, and their ratios to plain straight-through
    binarisation and to real weights, all from one run."""
    methods = list(dict.fromkeys([method, PLAIN, REAL_WEIGHTS]))
    threads = torch.get_num_threads()
    times = seconds(network, methods, case, rounds)
    torch.set_num_threads(threads)
    peaks = {name: peak_kilobytes(network, name, case) for name in methods}
    return {
        "train_step_ms": round(1e3 * times[method], 2),
        "train_step_ratio": round(times[method] / times[PLAIN], 3),
        "train_step_over_real": round(times[method] / times[REAL_WEIGHTS], 3),
        "train_peak_mb": round(peaks[method] / 1024, 1),
        "train_peak_ratio": round(peaks[method] / peaks[PLAIN], 3),
        "train_peak_over_real": round(peaks[method] / peaks[REAL_WEIGHTS], 3),
        **{f"train_{name}": value for name, value in dataclasses.asdict(case).items()},
    }
