"""The compiled simulation of a whole core, kept by geometry and by version of the gateware."""

import hashlib
import tempfile
from functools import lru_cache
from importlib import metadata
from pathlib import Path

import hw
import isa
from hw.accelerator import Accelerator
from hw.boards import BOARDS
from hw.memory_bus import CHUNK_BURSTS
from isa import layer, registers
from isa.geometry import Geometry
from isa.trace import ACTIVITIES, EXCLUSIVE
from sim import verilog
from sim.harness import MODELS
from sim.simulator import BUILD_ROOT, Built, build

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

#: Clocks where there is no board. Nothing but their ratio counts.
CORE_MHZ, MEMORY_MHZ = 100.0, 400 / 3

#: Of the SDRAM, tested at the start: all of it would take half a minute.
TEST_BURSTS = CHUNK_BURSTS


@lru_cache
def core_build(geometry: Geometry, simulator: str, netlist: tuple[Path, ...] = ()) -> Built:
    """The compiled simulation of one geometry, or of a netlist for it."""
    models = ("core_harness.v", "clock.v", "bus_feeder.v")
    sources = [*(MODELS / name for name in models), *netlist]
    _, memory_mhz = clocks_mhz(geometry)
    if not netlist:
        sources.append(elaborate(geometry))
    defines = {
        "POST_LANES": geometry.post_lanes,
        "LANES": geometry.lanes,
        "ADDRESS_BITS": layer.ADDRESS_BITS,
        "BUS_ADDRESS_BITS": registers.ADDRESS_BITS,
        "WORD_BITS": layer.SIZE_BITS + 1,
        "ACTIVITIES": len(ACTIVITIES),
        "EXCLUSIVE": sum(1 << ACTIVITIES.index(name) for name in EXCLUSIVE),
        "CORE_PS": core_ps(geometry),
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


def core_ps(geometry: Geometry) -> int:
    """The period of the core's clock in simulation."""
    return round(1e6 / clocks_mhz(geometry)[0])


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
    for source in [*sources, Path(verilog.__file__), Path(__file__)]:
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
