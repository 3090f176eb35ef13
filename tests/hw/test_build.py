"""The way from a design to a bitstream, with nextpnr and ecppack replaced, and once for real."""

import json
from dataclasses import replace

import pytest

import hw.build
import hw.route
from hw.boards import get_board
from hw.build import BuildError, build_bitstream, build_digest, prepare, tool_versions
from hw.route import ClockReport, Routed, RouteReport
from tests.hw.echo import Echo

BOARD = get_board("ulx3s-25f")


@pytest.fixture
def fake_flow(monkeypatch):
    """Replaces the three tools; returns the list of what was called."""
    calls = []

    def synthesise(source, *, json, sites, log, on_line):
        assert sites == {}
        calls.append("synthesise")
        on_line("2.15. Executing OPT pass (performing simple optimizations).")
        json.write_text("{}")

    def route_best(netlist, lpf, board, *, seed, out_dir, clock_mhz, sweep, on_step):
        calls.append(f"route seed {seed} sweep {sweep}")
        on_step("place 1")
        config = out_dir / "route.config"
        config.write_text("config")
        report = RouteReport(
            clocks={"clk": ClockReport(91.239, BOARD.clock_mhz + 0.002)},
            utilisation={"lut": (10, 24288), "ff": (9, 24288), "ebr": (0, 56), "dsp": (0, 28)},
        )
        return Routed(seed, config, report, ((seed, 91.24),))

    def pack(config, *, log):
        calls.append("pack")
        config.with_suffix(".bit").write_bytes(b"bits")

    monkeypatch.setattr(hw.build, "synthesise", synthesise)
    monkeypatch.setattr(hw.build, "route_best", route_best)
    monkeypatch.setattr(hw.build, "pack", pack)
    return calls


def test_a_build_reports_what_it_made(tmp_path, fake_flow):
    stages = []
    result = build_bitstream(
        Echo(BOARD), BOARD, cache=tmp_path, progress=lambda stage, detail: stages.append(stage)
    )
    assert fake_flow == ["synthesise", f"route seed {BOARD.seed} sweep 0", "pack"]
    assert result.bitstream.read_bytes() == b"bits"
    assert result.config.read_text() == "config"
    assert (result.fmax_mhz, result.clock_mhz, result.seed) == (91.24, BOARD.clock_mhz, BOARD.seed)
    assert result.tried == ((BOARD.seed, 91.24),)
    assert result.utilisation["lut"] == (10, 24288)
    assert result.tool_versions == tool_versions()
    assert not result.cached
    assert list(dict.fromkeys(stages)) == [
        "elaborate",
        "synthesise",
        "place and route",
        "pack",
        "done",
    ]


def test_the_second_build_comes_from_the_cache(tmp_path, fake_flow):
    first = build_bitstream(Echo(BOARD), BOARD, cache=tmp_path)
    del fake_flow[:]
    second = build_bitstream(Echo(BOARD), "ulx3s-25f", cache=tmp_path)
    assert fake_flow == []
    assert second == replace(first, cached=True)
    assert [path.name for path in tmp_path.iterdir()] == [first.digest]


@pytest.mark.parametrize(
    "damage", ["truncate", "no record", "bad record", "no bitstream", "config"]
)
def test_a_damaged_cache_entry_is_built_again(tmp_path, fake_flow, damage):
    first = build_bitstream(Echo(BOARD), BOARD, cache=tmp_path)
    record = first.bitstream.with_name("result.json")
    if damage == "truncate":
        first.bitstream.write_bytes(b"bit")
    elif damage == "no record":
        record.unlink()
    elif damage == "bad record":
        record.write_text("[]")
    elif damage == "config":
        first.config.write_text("conf")
    else:
        first.bitstream.unlink()
    again = build_bitstream(Echo(BOARD), BOARD, cache=tmp_path)
    assert again == first
    assert again.bitstream.read_bytes() == b"bits"


def test_a_sweep_builds_anew(tmp_path, fake_flow):
    build_bitstream(Echo(BOARD), BOARD, cache=tmp_path)
    build_bitstream(Echo(BOARD), BOARD, cache=tmp_path, sweep=4)
    assert f"route seed {BOARD.seed} sweep 4" in fake_flow
    assert build_bitstream(Echo(BOARD), BOARD, cache=tmp_path).cached


def test_a_failed_build_leaves_no_result_and_the_next_one_starts_clean(
    tmp_path, fake_flow, monkeypatch
):
    with monkeypatch.context() as patch:

        def refuse(*args, **kwargs):
            raise BuildError("place and route failed with status 1: no (see log)")

        patch.setattr(hw.build, "route_best", refuse)
        with pytest.raises(BuildError, match="no"):
            build_bitstream(Echo(BOARD), BOARD, cache=tmp_path)
    assert [path.name.partition(".")[2][:5] for path in tmp_path.iterdir()] == ["part-"]
    result = build_bitstream(Echo(BOARD), BOARD, cache=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [result.digest]


def test_leftovers_of_dead_processes_go(tmp_path, fake_flow):
    digest = build_bitstream(Echo(BOARD), BOARD, cache=tmp_path / "a").digest
    cache = tmp_path / "b"
    # Above the largest process number that Linux gives out.
    (cache / f"{digest}.part-{2**22 + 1}").mkdir(parents=True)
    build_bitstream(Echo(BOARD), BOARD, cache=cache)
    assert [path.name for path in cache.iterdir()] == [digest]


def test_an_interrupted_routing_goes_on_with_its_netlist(tmp_path, fake_flow):
    digest = build_bitstream(Echo(BOARD), BOARD, cache=tmp_path / "a").digest
    cache = tmp_path / "b"
    left = cache / f"{digest}.part-{2**22 + 1}"
    left.mkdir(parents=True)
    (left / "route-7.log").write_text("Info: as far as it came\n")
    fake_flow.clear()
    result = build_bitstream(Echo(BOARD), BOARD, cache=cache)
    assert fake_flow == [f"route seed {BOARD.seed} sweep 0", "pack"]
    assert result.bitstream.with_name("route-7.log").is_file()
    assert [path.name for path in cache.iterdir()] == [digest]


def test_routing_at_another_clock_than_the_one_that_runs_is_an_error(tmp_path, fake_flow):
    with pytest.raises(BuildError) as error:
        build_bitstream(Echo(BOARD), BOARD, cache=tmp_path, clock_mhz=50.0)
    assert str(error.value) == (
        f"routing timed no clock at 50 MHz (it knows: clk at {BOARD.clock_mhz:.2f} MHz)"
    )


def test_the_digest_covers_what_the_bitstream_depends_on():
    sources = prepare(Echo(BOARD), BOARD)
    versions = tool_versions()
    base = build_digest(sources, BOARD, clock_mhz=60.0, versions=versions)
    others = [
        build_digest(replace(sources, rtlil=""), BOARD, clock_mhz=60.0, versions=versions),
        build_digest(replace(sources, lpf=""), BOARD, clock_mhz=60.0, versions=versions),
        build_digest(sources, get_board("ulx3s-85f"), clock_mhz=60.0, versions=versions),
        build_digest(sources, BOARD, clock_mhz=50.0, versions=versions),
        build_digest(sources, BOARD, clock_mhz=60.0, versions=versions, sites={"a": "X1/Y1/B"}),
        build_digest(sources, BOARD, clock_mhz=60.0, versions={**versions, "pyosys": "0"}),
        build_digest(sources, BOARD, clock_mhz=60.0, versions=versions, seed=3),
    ]
    assert len({base, *others}) == 8
    # The seed in the table is only a hint.
    hint = build_digest(sources, replace(BOARD, seed=99), clock_mhz=60.0, versions=versions)
    assert hint == base


def test_unknown_board_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"^Board must be .*, not 'icebreaker'$"):
        build_bitstream(Echo(BOARD), "icebreaker", cache=tmp_path)


@pytest.mark.full
def test_a_small_design_becomes_a_bitstream(tmp_path):
    result = build_bitstream(Echo(BOARD), BOARD, cache=tmp_path)
    assert result.clock_mhz == BOARD.clock_mhz
    assert result.fmax_mhz >= BOARD.clock_mhz
    assert result.seed == BOARD.seed
    assert result.utilisation["lut"][1] == 24288
    assert result.utilisation["ebr"] == (0, 56)
    # An ECP5 bitstream: a comment block, then the preamble.
    data = result.bitstream.read_bytes()
    assert data.startswith(b"\xff\x00")
    assert bytes.fromhex("ffffbdb3") in data
    again = build_bitstream(Echo(BOARD), BOARD, cache=tmp_path / "other")
    assert again.bitstream.read_bytes() == data


@pytest.mark.full
def test_nextpnr_derives_the_same_clock_from_the_pll(tmp_path):
    # Without our own constraint, nextpnr computes the frequency from the dividers.
    result = build_bitstream(Echo(BOARD), BOARD, cache=tmp_path)
    folder = result.bitstream.parent
    # Ours did name a net of the netlist.
    log = (folder / f"route-{BOARD.seed}.log").read_text()
    assert f"constraining clock net 'clocks.clk_sync' to {BOARD.clock_mhz:.2f} MHz" in log
    lines = (folder / "top.lpf").read_text().splitlines()
    bare = folder / "bare.lpf"
    bare.write_text("\n".join(line for line in lines if "FREQUENCY NET" not in line))
    _, report = hw.route.route(folder / "top.json", bare, BOARD, seed=5, out_dir=folder)
    clock = report.clock_at(BOARD.clock_mhz)
    assert clock.constraint_mhz == pytest.approx(BOARD.clock_mhz, rel=1e-3)


@pytest.mark.full
def test_missed_timing_is_an_error_that_names_seed_and_clock(tmp_path):
    fast = replace(BOARD, clock_mhz=400.0)
    with pytest.raises(BuildError) as error:
        build_bitstream(Echo(fast), fast, cache=tmp_path)
    assert "missed timing with seed" in str(error.value)
    assert "FAIL at 400" in str(error.value)
    assert "\n" not in str(error.value)
    assert not list(tmp_path.glob("*/result.json"))


def test_the_result_can_be_stored_as_json(tmp_path, fake_flow):
    result = build_bitstream(Echo(BOARD), BOARD, cache=tmp_path)
    record = json.loads(result.bitstream.with_name("result.json").read_text())
    assert record["seed"] == result.seed
    assert record["tool_versions"] == result.tool_versions
