"""Place and route with nextpnr-ecp5: one seed, or a sweep, and what its report says."""

import json
import re
from dataclasses import dataclass, replace
from pathlib import Path

from hw.tools import BuildError, run_tool, yowasp_command

# Seeds tried after the known-good one has missed timing, before giving up.
RETRY_SEEDS = 8
# Rounds of rerouting that leave as many arcs late as before, until the router is stopped: by itself
# it would try a thousand. Those that met timing in the end had 22 of them at most.
STALLED_ROUNDS = 100
# What a log ends with, once its seed need not be tried again: our words and nextpnr's.
STOPPED = "Stopped: no progress."
ENDS = (STOPPED, "Info: Program finished normally.")
# nextpnr rounds a constraint to whole picoseconds of period.
CONSTRAINT_TOLERANCE = 1e-3
# Names in our reports, and the cells that nextpnr counts. COMB is every LUT4 site in use: as
# logic, as half a carry, or as distributed RAM.
RESOURCES = {
    "lut": "TRELLIS_COMB",
    "ff": "TRELLIS_FF",
    "ebr": "DP16KD",
    "dsp": "MULT18X18D",
}

_STEPS = (
    (re.compile(r"Info: Packing (\w+)"), "pack {}"),
    (re.compile(r"Info:\s+at iteration #(\d+), type ALL: .*legal = (\d+)"), "place {}, wires {}"),
    (re.compile(r"Info: iter=(\d+) steplen="), "place {}"),
    (re.compile(r"Info:\s+at iteration #(\d+): temp.*wirelen = (\d+)"), "refine {}, wires {}"),
    (re.compile(r"Info:\s+\d+ \|.*\|\s*(\d+)\|\s+[\d.]+"), "route, {} arcs to go"),
    (
        re.compile(r"Info:\s+iter=(\d+) .*overused=(\d+) .*tmgfail=(\d+)"),
        "route {}, {} wires used twice, {} arcs late",
    ),
    (re.compile(r"Info:\s+iter=(\d+) .*overused=(\d+)"), "route {}, {} wires used twice"),
)


@dataclass(frozen=True)
class ClockReport:
    """A clock after routing: what it reaches and what it was asked for, in MHz."""

    achieved_mhz: float
    constraint_mhz: float


@dataclass(frozen=True)
class RouteReport:
    """nextpnr's report: clocks by net name, and (used, available) by resource."""

    clocks: dict
    utilisation: dict

    def clock_at(self, mhz):
        """The report of the clock that is constrained to `mhz`; BuildError if there is none.

        Where several are, the slowest. None means that nextpnr timed the design at another
        frequency than the one it will run at.
        """
        found = [
            clock
            for clock in self.clocks.values()
            if abs(clock.constraint_mhz - mhz) <= mhz * CONSTRAINT_TOLERANCE
        ]
        if not found:
            known = ", ".join(
                f"{name} at {clock.constraint_mhz:.2f} MHz" for name, clock in self.clocks.items()
            )
            raise BuildError(
                f"routing timed no clock at {mhz:g} MHz (it knows: {known or 'no clock'})"
            )
        return min(found, key=lambda clock: clock.achieved_mhz)


@dataclass(frozen=True)
class Routed:
    """A design that met timing: with which seed, its configuration, and what it reached.

    `tried`: (seed, achieved MHz of the target clock) in the order tried, None where it missed.
    """

    seed: int
    config: Path
    report: RouteReport
    tried: tuple = ()


class TimingError(BuildError):
    """A routed design is slower than its constraints: another seed may do."""


def parse_report(text):
    """The RouteReport in nextpnr's `--report` JSON; BuildError if it is something else."""
    try:
        report = json.loads(text)
        return RouteReport(
            clocks={
                name: ClockReport(float(clock["achieved"]), float(clock["constraint"]))
                for name, clock in report["fmax"].items()
            },
            utilisation={
                name: (
                    int(report["utilization"][cell]["used"]),
                    int(report["utilization"][cell]["available"]),
                )
                for name, cell in RESOURCES.items()
            },
        )
    except (ValueError, KeyError, TypeError, AttributeError) as problem:
        raise BuildError(f"routing report must be nextpnr's JSON, not this: {problem!r}") from None


_LATE = re.compile(r"Info:\s+iter=\d+ .*overused=0 .*tmgfail=([1-9]\d*)")


class _Stalled(Exception):
    """The router goes round in circles."""


class _Log:
    """nextpnr's log, read line by line.

    `missed`: how timing was missed, or None. `stalled`: only late arcs are left, and as many as
    STALLED_ROUNDS rounds before.
    """

    def __init__(self):
        self.missed = None
        self._said = self._late = None
        self._rounds = 0

    def hear(self, line):
        """Takes a line; returns what it says about progress, in a few words, or None."""
        if line.startswith("ERROR: Max frequency") and "(FAIL at" in line:
            self.missed = line.removeprefix("ERROR: ")
        elif line == "ERROR: giving up" and self._said is not None:
            self.missed = f"gave up after {self._said}"
        elif line == STOPPED:
            self.missed = f"no progress in {STALLED_ROUNDS} rounds, at {self._said}"
        words = describe(line)
        self._said = words or self._said
        if "iter=" in line:
            late = match.group(1) if (match := _LATE.match(line)) else None
            self._rounds = self._rounds + 1 if late is not None and late == self._late else 0
            self._late = late
        return words

    @property
    def stalled(self):
        return self._rounds >= STALLED_ROUNDS


def describe(line):
    """What a line of nextpnr's log says about its progress, in a few words, or None."""
    for pattern, words in _STEPS:
        if match := pattern.match(line):
            return words.format(*match.groups())
    return None


def route(netlist, lpf, board, *, seed, out_dir, on_step=None):
    """Place and route `netlist` (JSON) on `board` with `seed`; both files are within `out_dir`.

    Writes route-SEED.config and route-SEED.log to `out_dir`; returns (config path, RouteReport).
    `on_step` is called with a few words at each step of progress. What an earlier run with this
    seed has left there is taken, if it came to its end. TimingError if a clock misses its
    constraint, BuildError if anything else fails.
    """
    out_dir = Path(out_dir)
    config = out_dir / f"route-{seed}.config"
    report = out_dir / f"route-{seed}.json"
    log = out_dir / f"route-{seed}.log"
    said = _Log()
    if log.is_file() and (text := log.read_text(errors="replace").rstrip()).endswith(ENDS):
        for line in text.splitlines():
            said.hear(line)
        if said.missed is None and config.is_file() and report.is_file():
            return config, parse_report(report.read_text())

    def on_line(line):
        words = said.hear(line)
        if words is not None and on_step is not None:
            on_step(words)
        if said.stalled:
            raise _Stalled

    command = yowasp_command("nextpnr-ecp5")
    command += board.nextpnr_options
    # By name: the WebAssembly sandbox shows the working folder, but hides the system's /tmp.
    command += ["--json", Path(netlist).name, "--lpf", Path(lpf).name]
    command += ["--seed", str(seed), "--textcfg", config.name, "--report", report.name]
    if said.missed is None:
        try:
            run_tool(
                "place and route", command, log=log, cwd=out_dir, on_line=on_line, terminal=True
            )
            return config, parse_report(report.read_text())
        except _Stalled:
            said.hear(STOPPED)
            with log.open("a") as out:
                out.write(f"{STOPPED}\n")
        except BuildError:
            if said.missed is None:
                raise
    raise TimingError(
        f"place and route missed timing with seed {seed}: {said.missed} (see {log.resolve()})"
    )


def route_best(netlist, lpf, board, *, seed, out_dir, clock_mhz, sweep=0, on_step=None):
    """Route with the first seed that meets timing, or the best of `sweep` seeds.

    `seed` is tried first, then seeds counting up from 1. With `sweep` 0, it stops at the first
    success, after at most RETRY_SEEDS more; otherwise it tries `sweep` seeds and keeps the one
    with the highest Fmax. Returns a Routed; the last TimingError if no seed meets timing.
    """
    others = [other for other in range(1, max(sweep, RETRY_SEEDS) + 2) if other != seed]
    seeds = [seed, *others][: sweep or RETRY_SEEDS + 1]
    best = best_mhz = last_miss = None
    tried = []
    for count, candidate in enumerate(seeds, start=1):
        prefix = f"seed {candidate}"
        if count > 1 or sweep:
            prefix += f" ({count} of {len(seeds)})"
            if best is not None:
                prefix += f", best {best_mhz:.2f} MHz"
        step = None if on_step is None else lambda words, p=prefix: on_step(f"{p}: {words}")
        try:
            config, report = route(
                netlist, lpf, board, seed=candidate, out_dir=out_dir, on_step=step
            )
        except TimingError as miss:
            last_miss = miss
            tried.append((candidate, None))
            if on_step is not None:
                on_step(f"{prefix}: missed timing")
            continue
        achieved = report.clock_at(clock_mhz).achieved_mhz
        tried.append((candidate, round(achieved, 2)))
        if best is None or achieved > best_mhz:
            best, best_mhz = Routed(candidate, config, report), achieved
        if not sweep:
            break
    if best is None:
        raise last_miss
    return replace(best, tried=tuple(tried))
