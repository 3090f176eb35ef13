"""The memory system against a model of the chip that checks its timing, at unrelated clocks."""
# amaranth: UnusedElaboratable=no

import json

import pytest

from hw.memory import MemorySystem
from hw.memory_bus import BURST_WORDS, CHUNK_WORDS
from hw.sdram_chip import SdramTiming
from sim.harness import MODELS
from sim.simulator import build
from sim.verilog import to_verilog
from tests.hw.cocotb_memory import word

CLOCK_MHZ = 400 / 3  # 7.5 ns
TIMING = SdramTiming(power_up=2_500)
HERE = MODELS.parents[1] / "tests" / "hw"
PRELOADED = 12_000  # words
RING_BURSTS = 128
RING_WORDS = RING_BURSTS * BURST_WORDS
TESTED_BURSTS = 1024
PORTS = [
    "clk", "rst", "image_write__valid", "image_write__ready", "image_write__address",
    "image_write__data", "image__rewind", "image__address", "image__words__valid",
    "image__words__ready", "image__words__payload", "input__valid", "input__ready",
    "input__payload", "frames__valid", "frames__ready", "frames__payload", "abort", "ready",
    "fault", "fault_address", "memory_cycles", "writes",
]  # fmt: skip
#: Picoseconds of the core's cycle: 60, 80 and 100 MHz, but for what makes every phase come up.
CORE_PS = (16_671, 12_497, 10_007)


def bench(folder, *, simulator="verilator", **options):
    system = MemorySystem(clock_mhz=CLOCK_MHZ, timing=TIMING, frame_bursts=RING_BURSTS, **options)
    design = folder / "memory.v"
    design.write_text(to_verilog(system, "memory_system"))
    sources = [design, HERE / "memory_bench.v", MODELS / "sdram.v", MODELS / "clock.v"]
    return build(sources, "memory_bench", PORTS, simulator=simulator)


@pytest.fixture(scope="module")
def memory(tmp_path_factory):
    return bench(tmp_path_factory.mktemp("memory"), test_bursts=0)


@pytest.fixture(scope="module")
def content(tmp_path_factory):
    path = tmp_path_factory.mktemp("sdram") / "content.hex"
    values = map(word, range(PRELOADED))
    path.write_text("".join(f"{value & 0xFFFF:04x}\n{value >> 16:04x}\n" for value in values))
    return path


def run(built, folder, test, *plusargs, core_ps=CORE_PS[2], preload=None, **options):
    result = folder / "result.json"
    built.run(
        "tests.hw.cocotb_memory",
        results=folder,
        testcase=test,
        env={
            "MEMORY_OPTIONS": json.dumps({**options, "preloaded": PRELOADED, "result": str(result)})
        },
        plusargs=[
            f"+core_ps={core_ps}",
            *plusargs,
            *([] if preload is None else [f"+sdram={preload}"]),
        ],
        timeout_s=120,
    )
    return json.loads(result.read_text()) if result.is_file() else None


@pytest.mark.parametrize("core_ps", CORE_PS)
def test_a_long_stream_is_as_fast_as_memory_or_core(tmp_path, memory, content, core_ps):
    """Two cycles a word is the bus's peak; the core may be slower than that."""
    words = 6000
    result = run(
        memory, tmp_path, "stream", core_ps=core_ps, preload=content, start=5, skip=600,
        words=words,
    )  # fmt: skip
    peak = max(2.0, core_ps / 7500)
    assert result["cycles"] > 3 * TIMING.refresh_cycles(CLOCK_MHZ)  # refreshes are counted
    assert words * peak / result["cycles"] > 0.95


def test_frames_go_straight_on_beside_the_stream(tmp_path, memory, content):
    result = run(
        memory, tmp_path, "stream", preload=content, start=64, skip=10, words=4000, uploads=3000
    )
    assert result["frames"] == 3000
    assert result["writes"] == 0
    assert 4000 * 2 / result["cycles"] > 0.9


@pytest.mark.parametrize(("seed", "core_ps"), list(enumerate(CORE_PS)))
def test_rewinds(tmp_path, memory, content, seed, core_ps):
    run(
        memory, tmp_path, "rewinds", core_ps=core_ps, preload=content, seed=seed, rewinds=40,
        image_stall=(0.0, 0.3, 0.8)[seed],
    )  # fmt: skip


@pytest.mark.parametrize(("seed", "core_ps"), list(enumerate(CORE_PS)))
def test_a_rewind_reads_what_was_written_before_it(tmp_path, memory, content, seed, core_ps):
    run(memory, tmp_path, "writes", core_ps=core_ps, preload=content, seed=seed, rounds=15)


@pytest.mark.parametrize(("seed", "core_ps"), list(enumerate(CORE_PS)))
def test_frames_pass_in_order(tmp_path, memory, content, seed, core_ps):
    result = run(
        memory, tmp_path, "frames", core_ps=core_ps, preload=content, seed=seed, words=8000,
        image=seed != 0,
    )  # fmt: skip
    assert result["writes"] >= 16  # some went through the ring
    assert seed == 0 or result["image"] > 3000


def test_a_full_ring_is_back_pressure(tmp_path, memory, content):
    result = run(memory, tmp_path, "full", words=RING_WORDS + 2000)
    assert RING_WORDS + CHUNK_WORDS < result["full"] < RING_WORDS + 1100


@pytest.mark.parametrize(("seed", "core_ps"), list(enumerate(CORE_PS)))
def test_aborts(tmp_path, memory, content, seed, core_ps):
    run(memory, tmp_path, "aborts", core_ps=core_ps, preload=content, seed=seed, aborts=30)


@pytest.fixture(scope="module")
def tested(tmp_path_factory):
    return bench(tmp_path_factory.mktemp("tested"), test_bursts=TESTED_BURSTS)


# Address pin 4 is bit 4 of the column and of the row; bursts 0 and 2 share their places.
FAULTS = {
    "none": (None, (), 0),
    "data bit": (0, ("+stuck_data=11",), 1),
    "address bit": (0, ("+stuck_address=4",), 1),
    "row bit": (0, ("+stuck_address=1",), 1),
    "cell": (777, (f"+stuck_cell={777 * 8 + 3:x}",), 0),
    "cell of the last burst": (1023, (f"+stuck_cell={1023 * 8 + 7:x}",), 0),
    "cell behind the last burst": (None, (f"+stuck_cell={1024 * 8:x}",), 0),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_the_memory_test_names_the_first_faulty_burst(tmp_path, tested, fault):
    address, plusargs, broken = FAULTS[fault]
    result = run(tested, tmp_path, "check", *plusargs)
    assert (result["fault"], result["address"]) == (address is not None, address or 0)
    assert bool(result["wrong"]) == bool(broken and fault != "row bit")  # it goes on working
    # Twice written, twice read; a write waits for its beats.
    assert result["cycles"] < 2 * TESTED_BURSTS * 8 * 3.6 + 1000


@pytest.mark.parametrize("bursts", [8, -16, (1 << 21) + 16, 16.0])
def test_test_bursts_is_checked(bursts):
    with pytest.raises(ValueError) as caught:
        MemorySystem(clock_mhz=100.0, test_bursts=bursts)
    assert str(caught.value) == (
        f"Memory test bursts must be a multiple of 16 in 0..2097152, not {bursts!r}"
    )


@pytest.mark.parametrize("bursts", [8, 48, 1 << 22])
def test_frame_bursts_is_checked(bursts):
    with pytest.raises(ValueError) as caught:
        MemorySystem(clock_mhz=100.0, frame_bursts=bursts)
    assert str(caught.value) == (
        f"Frame queue bursts must be a power of two in 16..2097152, not {bursts!r}"
    )
