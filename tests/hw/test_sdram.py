# amaranth: UnusedElaboratable=no
"""The SDRAM controller against a model of the chip, and the model against the data sheet."""

import json
from contextlib import nullcontext

import pytest

from hw.sdram import MAX_BURSTS, SdramController
from hw.sdram_chip import BURST_BEATS, SdramTiming
from sim.harness import MODELS
from sim.simulator import SimulationError, build
from sim.verilog import to_verilog
from tests.hw.cocotb_sdram import SETUP, beat

CLOCK_MHZ = 400 / 3  # 7.5 ns
TIMING = SdramTiming(power_up=2_500)
BENCH = "tests.hw.cocotb_sdram"
HERE = MODELS.parents[1] / "tests" / "hw"
PRELOADED = 3 * 64 * 4  # bursts: three rows of every bank


def bench(folder, *, simulator="verilator", timing=TIMING):
    controller = SdramController(clock_mhz=CLOCK_MHZ, timing=timing)
    design = folder / "controller.v"
    design.write_text(to_verilog(controller, "sdram_controller"))
    sources = [design, HERE / "sdram_bench.v", MODELS / "sdram.v", MODELS / "clock.v"]
    ports = [
        "clk", "rst", "requests__valid", "requests__ready", "requests__payload",
        "write_data__valid", "write_data__ready", "write_data__payload", "read_data", "read_valid",
        "ready", "command",
    ]  # fmt: skip
    return build(sources, "sdram_bench", ports, simulator=simulator)


@pytest.fixture(scope="module")
def controller(tmp_path_factory):
    return bench(tmp_path_factory.mktemp("controller"))


@pytest.fixture(scope="module")
def content(tmp_path_factory):
    path = tmp_path_factory.mktemp("sdram") / "content.hex"
    words = (beat(number, index) for number in range(PRELOADED) for index in range(BURST_BEATS))
    path.write_text("".join(f"{word:04x}\n" for word in words))
    return path


def run(built, folder, test, *, preload=None, **options):
    built.run(
        BENCH,
        results=folder,
        testcase=test,
        env={"SDRAM_OPTIONS": json.dumps({**options, "result": str(folder / "result.json")})},
        plusargs=[] if preload is None else [f"+sdram={preload}"],
        timeout_s=60,
    )
    result = folder / "result.json"
    return json.loads(result.read_text()) if result.is_file() else None


@pytest.mark.parametrize("length", [1, 16, MAX_BURSTS])
def test_a_long_stream_keeps_the_bus_busy(tmp_path, controller, content, length):
    result = run(
        controller, tmp_path, "stream", preload=content, start=3, bursts=PRELOADED - 3,
        length=length,
    )  # fmt: skip
    assert result["beats"] == (PRELOADED - 3) * BURST_BEATS
    assert result["cycles"] > 6 * TIMING.refresh_cycles(CLOCK_MHZ)  # refreshes are counted
    assert result["beats"] / result["cycles"] > 0.97


def test_a_single_read_takes_its_time(tmp_path, controller, content):
    result = run(controller, tmp_path, "latency", preload=content)
    row_opened, row_open = result["cycles"]
    assert row_open == SdramController.READ_LATENCY + BURST_BEATS
    assert row_opened == row_open + TIMING.cycles("rcd", CLOCK_MHZ)


@pytest.mark.parametrize("seed", range(3))
def test_reads_return_what_was_written(tmp_path, controller, seed):
    run(controller, tmp_path, "mixture", seed=seed, requests=600, gaps=seed > 0)


def test_on_icarus(tmp_path):
    built = bench(tmp_path, simulator="icarus")
    run(built, tmp_path, "mixture", seed=9, requests=300, gaps=True)


@pytest.mark.parametrize("write", [False, True], ids=["read", "write"])
def test_a_refresh_at_any_phase_leaves_a_stream_as_it_is(tmp_path, controller, content, write):
    """Due at every cycle of twenty bursts, with the change of row and bank behind the sixth."""
    refreshes = run(
        controller, tmp_path, "phases", preload=content, start=64 - 6, bursts=20, lead=190,
        period=TIMING.refresh_cycles(CLOCK_MHZ), clock_ps=7500, write=write,
    )  # fmt: skip
    assert [len(bursts) for bursts in refreshes] == [1] * 191
    # Between any two bursts, and before and behind them all.
    assert {bursts for [bursts] in refreshes} >= set(range(21))


RULES = {
    "time to power up": ([(1, "REFRESH", 0, 0)], {"bare": True}),
    "a command while the clock is disabled": ([], {"cke": 0}),
    "MODE before two refreshes": ([*SETUP[:2], SETUP[3]], {"bare": True}),
    "ACTIVE before the mode is set": ([*SETUP[:3], (9, "ACTIVE", 1, 7)], {"bare": True}),
    "tRCD": ([(5, "ACTIVE", 1, 7), (2, "READ", 1, 0)], {}),
    "tRP: ACTIVE": ([(5, "ACTIVE", 1, 7), (8, "PRECHARGE", 1, 0), (2, "ACTIVE", 1, 8)], {}),
    "tRP: REFRESH": ([(5, "ACTIVE", 1, 7), (9, "PRECHARGE", 1, 0), (2, "REFRESH", 0, 0)], {}),
    "tRP: MODE": ([(5, "ACTIVE", 1, 7), (9, "PRECHARGE", 1, 0), (2, "MODE", 0, 0x33)], {}),
    "tRAS: PRECHARGE": ([(5, "ACTIVE", 1, 7), (5, "PRECHARGE", 1, 0)], {}),
    "tRAS: a row is open for too long": (  # with refreshes in advance
        [*[(9, "REFRESH", 0, 0)] * 8, (9, "ACTIVE", 1, 7)], {"tail": 13_400},
    ),
    "tRC": ([(5, "ACTIVE", 1, 7), (6, "PRECHARGE", 1, 0), (2, "ACTIVE", 1, 8)], {}),
    "tRRD": ([(5, "ACTIVE", 1, 7), (1, "ACTIVE", 2, 8)], {}),
    "tRFC": ([(5, "REFRESH", 0, 0), (8, "ACTIVE", 1, 8)], {}),
    "tMRD": ([(5, "MODE", 0, 0x33), (1, "ACTIVE", 1, 8)], {}),
    "tWR": (
        [(5, "ACTIVE", 1, 7), (3, "WRITE", 1, 0), (8, "PRECHARGE", 1, 0)], {"drive": 1},
    ),
    "PRECHARGE cuts off a write": (
        [(5, "ACTIVE", 1, 7), (3, "WRITE", 1, 0), (5, "PRECHARGE", 1, 0)], {"drive": 1},
    ),
    "PRECHARGE cuts off a read": (
        [(5, "ACTIVE", 1, 7), (3, "READ", 1, 0), (4, "PRECHARGE", 1, 0)], {},
    ),
    "a beat of a write is not driven": ([(5, "ACTIVE", 1, 7), (3, "WRITE", 1, 0)], {}),
    "a burst is cut off": ([(5, "ACTIVE", 1, 7), (3, "READ", 1, 0), (7, "READ", 1, 8)], {}),
    "both sides drive": ([(5, "ACTIVE", 1, 7), (3, "READ", 1, 0)], {"drive": 1}),
    "closed bank": ([(5, "READ", 1, 0)], {}),
    "ACTIVE on an open bank": ([(5, "ACTIVE", 1, 7), (10, "ACTIVE", 1, 8)], {}),
    "REFRESH while a bank is open": ([(5, "ACTIVE", 1, 7), (9, "REFRESH", 0, 0)], {}),
    "MODE while a bank is open": ([(5, "ACTIVE", 1, 7), (9, "MODE", 0, 0x33)], {}),
    "MODE must be CAS latency 3": ([(5, "MODE", 0, 0x23)], {}),
    "BURST STOP": ([(5, "STOP", 0, 0)], {}),
    "automatic precharge": ([(5, "ACTIVE", 1, 7), (3, "READ", 1, 1024)], {}),
    "tREF": ([], {"tail": 10_000}),
}  # fmt: skip


def chip_alone(simulator="verilator", defines=None):
    sources = [HERE / "sdram_rules.v", MODELS / "sdram.v", MODELS / "clock.v"]
    ports = ["clk", "rst", "cke", "command", "bank", "address", "dq_drive"]
    return build(sources, "sdram_rules", ports, simulator=simulator, defines=defines)


@pytest.fixture(scope="module")
def chip():
    return chip_alone()


@pytest.mark.parametrize("rule", RULES)
def test_the_chip_complains(tmp_path, chip, rule):
    script, options = RULES[rule]
    with pytest.raises(SimulationError, match=f"Error: SDRAM in cycle [0-9]+: .*{rule}"):
        run(chip, tmp_path, "rule", script=script, **options)


@pytest.mark.parametrize(("clock_ps", "accepted"), [(6_999, False), (7_000, True)])
def test_the_chip_has_a_fastest_clock(tmp_path, clock_ps, accepted):
    chip = chip_alone("icarus", {"CLOCK_PS": str(clock_ps)})
    raises = pytest.raises(SimulationError, match="Error: SDRAM in cycle 0: tCK")
    with nullcontext() if accepted else raises:
        run(chip, tmp_path, "rule", script=SETUP[:1], bare=True)


def test_the_chip_accepts_what_is_just_in_time(tmp_path, chip):
    script = [
        (5, "ACTIVE", 1, 7), (3, "READ", 1, 0), (8, "PRECHARGE", 1, 0), (3, "ACTIVE", 1, 8),
        (2, "ACTIVE", 2, 8), (6, "PRECHARGE", 0, 1024), (3, "REFRESH", 0, 0), (9, "ACTIVE", 3, 1),
    ]  # fmt: skip
    run(chip, tmp_path, "rule", script=script)


def test_cycles_of_a_timing():
    timing = SdramTiming()
    assert [timing.cycles(name, CLOCK_MHZ) for name in ("rcd", "rp", "ras", "rfc", "wr")] == [
        3, 3, 6, 9, 2,
    ]  # fmt: skip
    assert timing.cycles("rcd", 100) == 2
    assert timing.cycles("rcd", 30) == 1
    assert timing.refresh_cycles(100) == 781 - 64


def test_a_controller_that_is_too_fast_is_caught(tmp_path):
    """One cycle less from ACTIVE to READ than the chip wants."""
    built = bench(tmp_path, timing=SdramTiming(rcd=14.0, power_up=2_500))
    with pytest.raises(SimulationError, match="tRCD"):
        run(built, tmp_path, "mixture", seed=1, requests=50, gaps=False)


@pytest.mark.parametrize("clock_mhz", [49.9, 143.1])
def test_clock_is_checked(clock_mhz):
    with pytest.raises(ValueError) as caught:
        SdramController(clock_mhz=clock_mhz)
    assert str(caught.value) == f"SDRAM clock must be between 50 and 143 MHz, not {clock_mhz!r}"


@pytest.mark.parametrize("bursts", [0, 65, 2.0])
def test_write_bursts_is_checked(bursts):
    with pytest.raises(ValueError) as caught:
        SdramController(clock_mhz=100.0, write_bursts=bursts)
    assert str(caught.value) == f"SDRAM write_bursts must be in 1..64, not {bursts!r}"
