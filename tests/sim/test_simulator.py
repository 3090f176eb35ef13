"""Builds and runs: cache, environment, and every way in which a simulation can end."""

import multiprocessing
import os
import time
from pathlib import Path

import pytest

from sim.simulator import SimulationError, build

BENCH = "tests.sim.cocotb_simulator"
DESIGN = "module wire_only(input a, output b); assign b = a; endmodule\n"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "wire_only.v"
    path.write_text(DESIGN)
    return path


@pytest.fixture
def built(source: Path):
    return build([source], "wire_only", ["a", "b"], simulator="icarus")


@pytest.mark.parametrize("simulator", ["verilator", "icarus"])
def test_passes_and_leaves_the_environment_alone(simulator, source, tmp_path):
    before = dict(os.environ)
    built = build([source], "wire_only", ["a", "b"], simulator=simulator)
    built.run(
        BENCH,
        testcase="passes",
        results=tmp_path / "out",
        env={"GREETING": "hello"},
        plusargs=["+answer=42"],
    )
    assert dict(os.environ) == before
    assert (tmp_path / "out" / "results.xml").is_file()


def test_failure_names_test_reason_and_log(built, tmp_path):
    with pytest.raises(SimulationError) as error:
        built.run(BENCH, testcase="fails", results=tmp_path)
    assert str(error.value) == (
        f"Simulation of {BENCH} on icarus: fails failed (ValueError: two and two are five); "
        f"the log is {tmp_path / 'sim.log'}"
    )
    assert "two and two are five" in (tmp_path / "sim.log").read_text()


def test_unknown_testcase(built, tmp_path):
    with pytest.raises(SimulationError, match=r"ran no test|ended abnormally"):
        built.run(BENCH, testcase="absent", results=tmp_path)


def test_unknown_module(built, tmp_path):
    with pytest.raises(SimulationError, match=r"Simulation of tests\.sim\.absent on icarus"):
        built.run("tests.sim.absent", results=tmp_path)


def test_abnormal_end(built, tmp_path):
    with pytest.raises(SimulationError, match=r"on icarus ended abnormally: .*; the log is /"):
        built.run(BENCH, testcase="dies", results=tmp_path)


def test_hang_is_killed_with_its_children(built, tmp_path):
    pid_file = tmp_path / "pid"
    started = time.monotonic()
    with pytest.raises(SimulationError) as error:
        built.run(
            BENCH,
            testcase="hangs",
            results=tmp_path,
            env={"PID_FILE": str(pid_file)},
            timeout_s=4,
        )
    assert str(error.value) == (
        f"Simulation of {BENCH} on icarus did not finish within 4 s; "
        f"the log is {tmp_path / 'sim.log'}"
    )
    assert time.monotonic() - started < 20
    pid = int(pid_file.read_text())
    for _ in range(100):
        stat = Path(f"/proc/{pid}/stat")
        # Nobody may have reaped the orphan yet, as in a container without an init.
        if not stat.exists() or stat.read_text().rsplit(")", 1)[1].split()[0] == "Z":
            return
        time.sleep(0.05)
    pytest.fail("the sleeping grandchild survived")


@pytest.mark.parametrize("simulator", ["verilator", "icarus"])
def test_build_error_names_the_reason(simulator, source, tmp_path):
    source.write_text("module wire_only(input a); nonsense!; endmodule\n")
    with pytest.raises(SimulationError) as error:
        build([source], "wire_only", ["a"], tmp_path, simulator=simulator)
    assert str(error.value).startswith(f"Build of wire_only with {simulator} failed: ")
    assert "wire_only.v:1" in str(error.value)
    assert str(error.value).endswith("build.log")


def test_cache(source, tmp_path):
    def made(**options):
        return build([source], "wire_only", ["a", "b"], tmp_path, simulator="icarus", **options)

    first = made()
    stamp = (first.directory / "built.json").stat().st_mtime_ns
    assert made() == first
    assert (first.directory / "built.json").stat().st_mtime_ns == stamp
    assert made(defines={"X": "1"}) != first
    source.write_text(DESIGN + "// changed\n")
    assert made() != first
    # A build that was cut short is made again.
    (first.directory / "built.json").unlink()
    source.write_text(DESIGN)
    assert made() == first
    assert (first.directory / "sim.vvp").is_file()


def test_what_simulations_have_in_common_is_compiled_once(source, tmp_path):
    first = build([source], "wire_only", ["a", "b"], tmp_path)
    second = build([source], "wire_only", ["a", "b"], tmp_path, read_only=["b"])
    assert (first.directory / "verilated.o").is_file()
    assert not (second.directory / "verilated.o").exists()
    second.run(
        BENCH,
        testcase="passes",
        results=tmp_path / "out",
        env={"GREETING": "hello"},
        plusargs=["+answer=42"],
    )


def _build_at_once(source, folder, queue):
    built = build([source], "wire_only", ["a", "b"], folder, simulator="icarus")
    queue.put((built.directory / "built.json").stat().st_mtime_ns)


def test_two_processes_build_once(source, tmp_path):
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    pair = [
        context.Process(target=_build_at_once, args=(source, tmp_path, queue)) for _ in range(2)
    ]
    for process in pair:
        process.start()
    stamps = [queue.get(timeout=60) for _ in pair]
    for process in pair:
        process.join()
    assert stamps[0] == stamps[1]


def test_bad_arguments(tmp_path):
    with pytest.raises(ValueError) as error:
        build([], "top", [], tmp_path, simulator="modelsim")
    assert str(error.value) == "Simulator must be one of verilator, icarus, not 'modelsim'"
    with pytest.raises(ValueError) as error:
        build([Path("/absent.v")], "top", [], tmp_path)
    assert str(error.value) == "Verilog source must be an existing file, not '/absent.v'"
