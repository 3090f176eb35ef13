"""Runs images through the RTL of a whole core and compares every layer with the golden model."""

import dataclasses
import json
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from isa import layer, registers
from isa.fixed import LOGIT_BITS, IntArray, limits
from isa.geometry import Geometry
from isa.image import Image
from isa.registers import ErrorCode, Source, State
from isa.trace import FrameRecord, TraceError, read_trace
from sim.core_build import core_build
from sim.golden import Golden, GoldenFrame
from sim.simulator import BUILD_ROOT, SimulationError
from sim.surroundings import PROGRESS, RESULT, TRACE, Flash, Stalls, Surroundings
from sim.trace import compare_frame

#: One frame as the session reports it: logits, top, counters.
Result = dict[str, Any]

#: Differences that a result describes; the others are counted.
KEEP = 10


@dataclass(frozen=True)
class LayerCycles:
    """What a layer took: its cycles, from the end of the one before, and cycles by activity."""

    index: int
    kind: layer.LayerKind
    cycles: int
    activity: dict[str, int]


@dataclass(frozen=True)
class Tail:
    """A frame from the end of its last layer to its own: cycles, and cycles by activity."""

    cycles: int
    activity: dict[str, int]


@dataclass(frozen=True)
class SimResult:
    """What the core computed, and how that compares with the golden model.

    ``logits``: int64 (N, classes), as read over the bus; of the last frame only if they were
    queued. ``cycles`` and ``counters``: perf counters of each frame, ``starts`` the cycles in which
    they were started. ``top``: for each frame (class, logit) of the largest logits. ``layers``:
    layers computed in a frame, at most; ``layer_cycles``: for each frame what each of them took,
    ``tails`` what came after the last of them: together they are all of its cycles.
    ``end``: the cycle, counted from the reset, in which the last frame was done.
    ``startup``: the state that came of the image in the flash, with its error, if there was one.
    ``golden``: the frames of the golden model that the core's were compared with.
    """

    logits: IntArray
    top: list[list[tuple[int, int]]]
    cycles: list[int]
    starts: list[int]
    counters: list[dict[str, int]]
    layers: int
    layer_cycles: list[list[LayerCycles]]
    tails: list[Tail]
    compared_values: int
    mismatches: int
    differences: list[str]
    end: int
    startup: tuple[State, ErrorCode] | None = None
    golden: Sequence[GoldenFrame] = ()

    @property
    def first(self) -> str | None:
        """The first difference in words, if there is one."""
        return self.differences[0] if self.differences else None


def simulate(
    geometry: Geometry,
    image: Image,
    frames: npt.NDArray[np.uint8],
    *,
    simulator: str = "verilator",
    netlist: Sequence[Path] | None = None,
    stalls: Stalls | None = None,
    source: Source | None = None,
    flash: Flash | None = None,
    faults: Mapping[str, int | str] | None = None,
    queued: bool = False,
    folder: Path | None = None,
    timeout_s: float = 3600.0,
    progress: Callable[[int], None] | None = None,
) -> SimResult:
    """Runs ``frames``, uint8 (N, H, W, C), through the core and compares all that it writes.

    Where the image allows it, each frame's stem is computed while the frame before it is; not with
    the link for a source, over which pixels and image words could wait for each other.

    ``netlist``: Verilog files with a module ``accelerator`` to simulate in place of the RTL, and
    the cells in it. ``source``: where the image comes from, by default as the geometry says. An
    SDRAM is a model that ends the simulation when it is used against its data sheet, and its clock
    has the ratio to the core's that the board's has. Beside it is a ``flash``, by default an empty
    one. ``faults`` and ``queued`` are those of `sim.surroundings`. ``folder`` keeps trace, log and
    job; otherwise they go, unless the simulation fails. ``progress`` is called now and then with
    the cycles that have been simulated.
    Raises GoldenError for an image that cannot be executed, SimulationError where the simulation
    fails, and ValueError for frames that do not fit the image.
    """
    frames = np.asarray(frames)
    source = source or geometry.source
    golden = Golden(geometry, image)
    if not len(frames):
        raise ValueError("Frames must be at least one, not none")
    built = core_build(geometry, simulator, tuple(netlist or ()))
    overlap = golden.ahead and source is not Source.LINK
    surroundings = Surroundings(
        source=source,
        overlap=overlap,
        queued=queued,
        stalls=stalls or Stalls(),
        flash=flash,
        faults=faults or {},
    )
    temporary = folder is None
    if folder is None:
        BUILD_ROOT.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix="run-", dir=BUILD_ROOT))
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    expected = list(golden.run_overlapped(frames) if overlap else map(golden.run, frames))
    plusargs = surroundings.prepare(folder, geometry, image, frames)
    cycles = folder / PROGRESS
    built.run(
        "sim.session",
        results=folder,
        plusargs=[f"+{name}={value}" for name, value in plusargs.items()],
        timeout_s=timeout_s,
        meanwhile=None if progress is None else lambda: progress(_last_number(cycles)),
    )
    found = json.loads((folder / RESULT).read_text())
    trace = folder / TRACE
    try:
        with trace.open() as lines:
            records = read_trace(lines, geometry)
    except TraceError as error:
        raise SimulationError(f"{error}; the trace is {trace}") from error
    if temporary:
        shutil.rmtree(folder)
    result = collect(geometry, expected, records, found["frames"])
    if found["startup"] is None:
        return result
    state, code = found["startup"]
    return dataclasses.replace(result, startup=(State[state], ErrorCode[code]))


def _last_number(path: Path) -> int:
    """In the last whole line of a file; 0 where there is none."""
    lines = path.read_text().rpartition("\n")[0].split() if path.is_file() else []
    return int(lines[-1]) if lines else 0


def collect(
    geometry: Geometry,
    expected: Sequence[GoldenFrame],
    records: Sequence[FrameRecord],
    results: Sequence[Result],
) -> SimResult:
    """Compares golden frames with the traced ones and with what was read over the bus."""
    if len(records) != len(expected):
        raise SimulationError(f"Trace must have {len(expected)} frames, not {len(records)}")
    compared = mismatches = 0
    differences: list[str] = []
    for number, (golden, record, result) in enumerate(zip(expected, records, results, strict=True)):
        comparison = compare_frame(geometry, number, golden, record, keep=KEEP)
        read, wrong = _compare_result(number, golden.logits, result)
        compared += comparison.compared + read
        mismatches += comparison.mismatches + len(wrong)
        differences += [str(difference) for difference in comparison.differences] + wrong
    cycles = [result["counters"]["cycles"] for result in results]
    layer_cycles = list(map(_layer_cycles, records, cycles))
    return SimResult(
        logits=np.array([row for result in results if (row := result["logits"])], np.int64),
        top=[[(index, logit) for index, logit in result["top"]] for result in results],
        cycles=cycles,
        starts=[result["started"] for result in results],
        counters=[result["counters"] for result in results],
        layers=max(len(frame.layers) for frame in expected),
        layer_cycles=layer_cycles,
        tails=list(map(_tail, records, layer_cycles, cycles)),
        compared_values=compared,
        mismatches=mismatches,
        differences=differences[:KEEP],
        end=records[-1].cycle,
        golden=expected,
    )


def top_classes(logits: IntArray, count: int) -> list[tuple[int, int]]:
    """The ``count`` largest logits with their classes, as in `isa.registers`."""
    order = np.argsort(-logits, kind="stable")[:count]
    top = [(int(index), int(logits[index])) for index in order]
    return top + [(registers.NO_CLASS, limits(LOGIT_BITS)[0])] * (count - len(top))


def _compare_result(number: int, logits: IntArray, result: Result) -> tuple[int, list[str]]:
    """Values compared, and the differences, of what the host reads at the end of a frame."""
    expected = logits.tolist() if result["logits"] else []
    wrong = [
        f"Frame {number}, logit of class {index} read over the bus: expected {want}, found {found}"
        for index, (want, found) in enumerate(zip(expected, result["logits"], strict=True))
        if want != found
    ]
    top = top_classes(logits, len(result["top"]))
    wrong += [
        f"Frame {number}, entry {place} of the largest logits: expected class {want[0]} with "
        f"{want[1]}, found class {found[0]} with {found[1]}"
        for place, (want, found) in enumerate(zip(top, result["top"], strict=True))
        if list(want) != list(found)
    ]
    return len(expected) + 2 * len(top), wrong


def _layer_cycles(record: FrameRecord, cycles: int) -> list[LayerCycles]:
    """Cycles by layer: the frame began ``cycles`` before its end."""
    start, layers = record.cycle - cycles, []
    for item in record.layers:
        layers.append(LayerCycles(item.index, item.kind, item.cycle - start, item.activity))
        start = item.cycle
    return layers


def _tail(record: FrameRecord, layers: list[LayerCycles], cycles: int) -> Tail:
    return Tail(cycles - sum(layer.cycles for layer in layers), record.activity)
