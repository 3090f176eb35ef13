"""Runs images through the RTL of a whole core and compares every layer with the golden model."""

import dataclasses
import hashlib
import json
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import hw
import isa
from hw.accelerator import Accelerator
from hw.boards import BOARDS
from hw.memory_bus import BURST_WORDS, CHUNK_BURSTS
from isa import layer, registers
from isa.fixed import LOGIT_BITS, IntArray, limits
from isa.geometry import Geometry
from isa.image import Image
from isa.registers import ErrorCode, Source, State
from isa.trace import FrameRecord, TraceError, read_trace
from sim import verilog
from sim.golden import Golden, GoldenFrame
from sim.handshake import STALLS
from sim.harness import MODELS
from sim.session import Job
from sim.simulator import BUILD_ROOT, Built, SimulationError, build
from sim.trace import compare_frame

HARNESS = "core_harness"
DESIGN = "accelerator"
BUS_PORTS = ("valid", "address", "write", "write_data", "ack", "read_data")
FEED_PORTS = ("start", "address", "increment", "first", "count", "busy")
PORTS = (
    "clk", "rst", "interrupt",
    *(f"bus__{name}" for name in BUS_PORTS),
    *(f"feed__{name}" for name in FEED_PORTS),
)  # fmt: skip

OUTPUTS = ("clk", "rst", "interrupt", "bus__ack", "bus__read_data", "feed__busy")

#: How often the memory's clock stands still, in 1/65536 for each of its cycles, by kind of stalls:
#: an eleventh of the time, and two thirds of it.
PAUSES = {"none": 0, "light": 40, "heavy": 800}

#: One frame as the session reports it: logits, top, counters.
Result = dict[str, Any]

#: Clocks where there is no board. Nothing but their ratio counts.
CORE_MHZ, MEMORY_MHZ = 100.0, 400 / 3

#: Of the SDRAM, tested at the start: all of it would take half a minute.
TEST_BURSTS = CHUNK_BURSTS

#: Differences that a result describes; the others are counted.
KEEP = 10


@dataclass(frozen=True)
class Stalls:
    """How the core's surroundings behave: idle gaps of a kind of `sim.handshake`, seeded, between
    bus words, and a memory that stands still as often; ``late_input`` starts every frame before its
    input arrives."""

    kind: str = "none"
    seed: int = 0
    late_input: bool = False


@dataclass(frozen=True)
class Flash:
    """What is in the flash when the simulation begins. The host waits for what comes of that, and
    loads its own image only where it is not READY; or it begins ``host_after`` cycles, and loads.
    """

    content: bytes
    host_after: int | None = None


@dataclass(frozen=True)
class LayerCycles:
    """What a layer took: its cycles, from the end of the one before, and cycles by activity."""

    index: int
    kind: layer.LayerKind
    cycles: int
    activity: dict[str, int]


@dataclass(frozen=True)
class SimResult:
    """What the core computed, and how that compares with the golden model.

    ``logits``: int64 (N, classes), as read over the bus. ``cycles`` and ``counters``: perf counters
    of each frame. ``top``: for each frame (class, logit) of the largest logits. ``layers``: layers
    computed in a frame, at most; ``layer_cycles``: for each frame what each of them took.
    ``end``: the cycle, counted from the reset, in which the last frame was done.
    ``startup``: the state that came of the image in the flash, with its error, if there was one.
    """

    logits: IntArray
    top: list[list[tuple[int, int]]]
    cycles: list[int]
    counters: list[dict[str, int]]
    layers: int
    layer_cycles: list[list[LayerCycles]]
    compared_values: int
    mismatches: int
    differences: list[str]
    end: int
    startup: tuple[State, ErrorCode] | None = None

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
    folder: Path | None = None,
    timeout_s: float = 3600.0,
) -> SimResult:
    """Runs ``frames``, uint8 (N, H, W, C), through the core and compares all that it writes.

    Where the image allows it, each frame's stem is computed while the frame before it is; not with
    the link for a source, over which pixels and image words could wait for each other.

    ``netlist``: Verilog files with a module ``accelerator`` to simulate in place of the RTL, and
    the cells in it. ``source``: where the image comes from, by default as the geometry says. An
    SDRAM is a model that ends the simulation when it is used against its data sheet, and its clock
    has the ratio to the core's that the board's has. Beside it is a ``flash``, by default an empty
    one. ``folder`` keeps trace, log and job; otherwise they go, unless the simulation fails.
    Raises GoldenError for an image that cannot be executed, SimulationError where the simulation
    fails, and ValueError for frames that do not fit the image.
    """
    frames = np.asarray(frames)
    source = source or geometry.source
    golden = Golden(geometry, image)
    if not len(frames):
        raise ValueError("Frames must be at least one, not none")
    built = core_build(geometry, simulator, tuple(netlist or ()))
    temporary = folder is None
    if folder is None:
        BUILD_ROOT.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix="run-", dir=BUILD_ROOT))
    folder = folder.resolve()
    overlap = golden.ahead and source is not Source.LINK
    expected = list(golden.run_overlapped(frames) if overlap else map(golden.run, frames))
    found = _run(
        built,
        geometry,
        image,
        frames,
        stalls or Stalls(),
        source,
        overlap,
        flash,
        folder,
        timeout_s,
    )
    trace = folder / "trace.txt"
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


@lru_cache
def core_build(geometry: Geometry, simulator: str, netlist: tuple[Path, ...] = ()) -> Built:
    """The compiled simulation of one geometry, or of a netlist for it."""
    models = ("core_harness.v", "clock.v", "bus_feeder.v")
    sources = [*(MODELS / name for name in models), *netlist]
    core_mhz, memory_mhz = clocks_mhz(geometry)
    if not netlist:
        sources.append(elaborate(geometry))
    defines = {
        "POST_LANES": geometry.post_lanes,
        "LANES": geometry.lanes,
        "ADDRESS_BITS": layer.ADDRESS_BITS,
        "BUS_ADDRESS_BITS": registers.ADDRESS_BITS,
        "WORD_BITS": layer.SIZE_BITS + 1,
        "CORE_PS": round(1e6 / core_mhz),
    }
    if memory_mhz is not None:
        defines["MEMORY_PS"] = round(1e6 / memory_mhz)
        sources += [MODELS / "sdram.v", MODELS / "flash.v"]
    return build(
        sources,
        HARNESS,
        PORTS,
        read_only=OUTPUTS,
        simulator=simulator,
        defines={name: str(value) for name, value in defines.items()},
    )


def clocks_mhz(geometry: Geometry) -> tuple[float, float | None]:
    """The core's clock and the memory's: those of the board, or what stands for them."""
    if geometry.name not in BOARDS:
        return CORE_MHZ, MEMORY_MHZ if geometry.sdram_bytes else None
    clocks = BOARDS[geometry.name].clocks
    return clocks.output_mhz, clocks.memory_mhz


def _gateware() -> str:
    """Tells versions of the gateware apart, and of what turns it into Verilog."""
    folders = [Path(package.__path__[0]) for package in (hw, isa)]
    sources = [path for folder in folders for path in sorted(folder.glob("*.py"))]
    digest = hashlib.sha256(metadata.version("amaranth").encode())
    for source in [*sources, Path(verilog.__file__)]:
        digest.update(source.read_bytes())
    return digest.hexdigest()[:16]


_IMPORTED = _gateware()


def elaborate(geometry: Geometry) -> Path:
    """A file with the Verilog of the accelerator, kept, as making it takes long."""
    folder = BUILD_ROOT / "rtl"
    folder.mkdir(parents=True, exist_ok=True)
    # Files that were edited since they were imported are not what would be elaborated.
    version = _IMPORTED if _gateware() == _IMPORTED else f"{_IMPORTED}-edited"
    path = folder / f"{geometry.name}-{geometry.digest:08x}-{version}.v"
    if not path.is_file():
        _, memory_mhz = clocks_mhz(geometry)
        design = Accelerator(geometry=geometry, memory_mhz=memory_mhz, test_bursts=TEST_BURSTS)
        text = verilog.to_verilog(design, DESIGN)
        # Whole or not at all: another process may want it, too.
        with tempfile.NamedTemporaryFile("w", dir=folder, delete=False) as file:
            file.write(text)
        Path(file.name).replace(path)
    return path


def _run(
    built: Built,
    geometry: Geometry,
    image: Image,
    frames: npt.NDArray[np.uint8],
    stalls: Stalls,
    source: Source,
    overlap: bool,
    flash: Flash | None,
    folder: Path,
    timeout_s: float,
) -> dict[str, Any]:
    """One simulation; returns what the session has found."""
    folder.mkdir(parents=True, exist_ok=True)
    input_room = geometry.sdram_frame_bytes or geometry.input_bytes
    raw = frames.reshape(len(frames), -1)
    pixels = np.pad(raw, ((0, 0), (0, -raw.shape[1] % 4))).view("<u4")
    words = np.array(image.words, "<u4")
    job = Job(
        image_words=len(words),
        frames=len(pixels),
        frame_words=pixels.shape[1],
        load_words=0 if source is Source.LINK else len(words),
        result=str(folder / "result.json"),
        classes=image.info.classes,
        top_k=geometry.top_k,
        source=source.name,
        stalls=stalls.kind,
        seed=stalls.seed,
        # A frame for which there is no room cannot be there before it is started.
        late_input=stalls.late_input or image.info.input_bytes > input_room,
        overlap=overlap,
        first_words=image.first_layer_words,
        startup=flash is not None and flash.host_after is None,
        idle=(flash and flash.host_after) or 0,
    )
    feed, sdram = folder / "bus.bin", folder / "sdram.hex"
    feed.write_bytes(np.concatenate([words, pixels.ravel()]).astype(">u4").tobytes())
    plusargs = {
        "job": folder / "job.json",
        "trace": folder / "trace.txt",
        "feed": feed,
        "feed_gaps": round(256 * STALLS[stalls.kind]),
        "feed_seed": stalls.seed,
    }
    if geometry.sdram_bytes:
        plusargs |= {"pauses": PAUSES[stalls.kind], "pause_seed": stalls.seed}
    if flash is not None:
        (folder / "flash.bin").write_bytes(flash.content)
        plusargs["flash"] = folder / "flash.bin"
    elif source is Source.SDRAM:
        # The image would take minutes over the bus. What the memory test overwrites goes there.
        sdram.write_text(beats_as_hex(words))
        plusargs["sdram"] = sdram
        job = dataclasses.replace(job, load_words=min(len(words), TEST_BURSTS * BURST_WORDS))
    Path(job.result).unlink(missing_ok=True)
    job.write(folder / "job.json")
    built.run(
        "sim.session",
        results=folder,
        plusargs=[f"+{name}={value}" for name, value in plusargs.items()],
        timeout_s=timeout_s,
    )
    found: dict[str, Any] = json.loads(Path(job.result).read_text())
    return found


def beats_as_hex(words: npt.NDArray[np.uint32]) -> str:
    """An image as `sdram.v` is preloaded with it: 16 bits a line, a word's lower half first."""
    digits = np.frombuffer(words.astype("<u4").view("<u2").byteswap().tobytes(), np.uint8)
    text = np.frombuffer(digits.tobytes().hex().encode(), np.uint8).reshape(-1, 4)
    return np.pad(text, ((0, 0), (0, 1)), constant_values=ord("\n")).tobytes().decode()


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
    return SimResult(
        logits=np.array([result["logits"] for result in results], np.int64),
        top=[[(index, logit) for index, logit in result["top"]] for result in results],
        cycles=[result["counters"]["cycles"] for result in results],
        counters=[result["counters"] for result in results],
        layers=max(len(frame.layers) for frame in expected),
        layer_cycles=[
            _layer_cycles(record, result["counters"]["cycles"])
            for record, result in zip(records, results, strict=True)
        ],
        compared_values=compared,
        mismatches=mismatches,
        differences=differences[:KEEP],
        end=records[-1].cycle,
    )


def top_classes(logits: IntArray, count: int) -> list[tuple[int, int]]:
    """The ``count`` largest logits with their classes, as in `isa.registers`."""
    order = np.argsort(-logits, kind="stable")[:count]
    top = [(int(index), int(logits[index])) for index in order]
    return top + [(registers.NO_CLASS, limits(LOGIT_BITS)[0])] * (count - len(top))


def _compare_result(number: int, logits: IntArray, result: Result) -> tuple[int, list[str]]:
    """Values compared, and the differences, of what the host reads at the end of a frame."""
    wrong = [
        f"Frame {number}, logit of class {index} read over the bus: expected {want}, found {found}"
        for index, (want, found) in enumerate(zip(logits.tolist(), result["logits"], strict=True))
        if want != found
    ]
    top = top_classes(logits, len(result["top"]))
    wrong += [
        f"Frame {number}, entry {place} of the largest logits: expected class {want[0]} with "
        f"{want[1]}, found class {found[0]} with {found[1]}"
        for place, (want, found) in enumerate(zip(top, result["top"], strict=True))
        if list(want) != list(found)
    ]
    return len(logits) + 2 * len(top), wrong


def _layer_cycles(record: FrameRecord, cycles: int) -> list[LayerCycles]:
    """Cycles by layer: the frame began ``cycles`` before its end."""
    start, layers = record.cycle - cycles, []
    for item in record.layers:
        layers.append(LayerCycles(item.index, item.kind, item.cycle - start, item.activity))
        start = item.cycle
    return layers
