"""nextpnr's report and log are read right, and seeds are tried in the order that is promised."""

import json
import sys

import pytest

import hw.route
from hw.boards import get_board
from hw.route import (
    RETRY_SEEDS,
    BuildError,
    ClockReport,
    RouteReport,
    TimingError,
    describe,
    parse_report,
    route,
    route_best,
)

BOARD = get_board("ulx3s-25f")
REPORT = {
    "critical_paths": [],
    "fmax": {
        "$glbnet$clk": {"achieved": 71.25, "constraint": 60.00239944458008},
        "pll_loop": {"achieved": 300.0, "constraint": 25.0},
    },
    "utilization": {
        "TRELLIS_COMB": {"available": 24288, "used": 11000},
        "TRELLIS_FF": {"available": 24288, "used": 9000},
        "DP16KD": {"available": 56, "used": 40},
        "MULT18X18D": {"available": 28, "used": 16},
    },
}


def test_report_is_parsed():
    report = parse_report(json.dumps(REPORT))
    assert report.clocks["pll_loop"] == ClockReport(300.0, 25.0)
    assert report.clock_at(60.0).achieved_mhz == 71.25
    assert report.utilisation == {
        "lut": (11000, 24288),
        "ff": (9000, 24288),
        "ebr": (40, 56),
        "dsp": (16, 28),
    }


def test_of_several_clocks_the_slowest_counts():
    clocks = {"a": ClockReport(90.0, 60.0), "b": ClockReport(61.0, 60.0)}
    assert RouteReport(clocks, {}).clock_at(60.0).achieved_mhz == 61.0


def test_a_clock_that_was_not_timed_is_an_error():
    with pytest.raises(BuildError) as error:
        RouteReport({}, {}).clock_at(60.0)
    assert str(error.value) == "routing timed no clock at 60 MHz (it knows: no clock)"


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"fmax": {}, "utilization": {}}'])
def test_other_reports_are_refused(text):
    with pytest.raises(BuildError, match=r"^routing report must be nextpnr's JSON, not this: "):
        parse_report(text)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("Info: Packing carries...", "pack carries"),
        (
            "Info:     at iteration #1, type ALL: wirelen solved = 132, spread = 133, "
            "legal = 140; time = 0.01s",
            "place 1, wires 140",
        ),
        (
            "Info:   at iteration #2: temp = 0.000000, timing cost = 12, wirelen = 149 ",
            "refine 2, wires 149",
        ),
        (
            "Info:        123 |        0        107 |    0   107 |        16|"
            "       0.01       0.01|",
            "route, 16 arcs to go",
        ),
        ("Info: iter=237 steplen=1.139945 a=120.694832 penalty=[0.01, 0.01]", "place 237"),
        (
            "Info:     iter=11 wires=1276366 overused=1869 overuse=1874 archfail=NA",
            "route 11, 1869 wires used twice",
        ),
        (
            "Info:     iter=70 wires=1280984 overused=1 overuse=1 tmgfail=12 archfail=NA",
            "route 70, 1 wires used twice, 12 arcs late",
        ),
        ("Info: Checksum: 0xc7ecdabf", None),
    ],
)
def test_progress_is_read_from_the_log(line, words):
    assert describe(line) == words


def fake_router(monkeypatch, fmax_of_seed):
    tried = []

    def fake(netlist, lpf, board, *, seed, out_dir, on_step=None):
        tried.append(seed)
        if on_step is not None:
            on_step("place 1")
        achieved = fmax_of_seed(seed)
        if achieved < 60.0:
            raise TimingError(f"seed {seed} missed")
        return f"config {seed}", RouteReport({"clk": ClockReport(achieved, 60.0)}, {})

    monkeypatch.setattr(hw.route, "route", fake)
    return tried


def best(seed, **options):
    return route_best("n", "l", BOARD, seed=seed, out_dir=".", clock_mhz=60.0, **options)


def test_the_known_good_seed_is_enough(monkeypatch):
    tried = fake_router(monkeypatch, lambda seed: 61.0)
    routed = best(7)
    assert (routed.seed, routed.config, routed.tried) == (7, "config 7", ((7, 61.0),))
    assert tried == [7]


def test_other_seeds_follow_until_one_meets_timing(monkeypatch):
    tried = fake_router(monkeypatch, lambda seed: 61.0 if seed == 3 else 59.0)
    steps = []
    assert best(2, on_step=steps.append).seed == 3
    assert tried == [2, 1, 3]
    assert steps[:2] == ["seed 2: place 1", "seed 2: missed timing"]
    assert steps[2] == "seed 1 (2 of 9): place 1"


def test_no_seed_meets_timing(monkeypatch):
    tried = fake_router(monkeypatch, lambda seed: 50.0)
    with pytest.raises(TimingError, match="missed"):
        best(2)
    assert len(tried) == len(set(tried)) == RETRY_SEEDS + 1


def test_a_sweep_keeps_the_fastest(monkeypatch):
    tried = fake_router(monkeypatch, lambda seed: {1: 62.0, 2: 50.0, 3: 70.0, 4: 65.0}[seed])
    steps = []
    routed = best(2, sweep=4, on_step=steps.append)
    assert routed.seed == 3
    assert routed.tried == ((2, None), (1, 62.0), (3, 70.0), (4, 65.0))
    assert tried == [2, 1, 3, 4]
    assert steps[-1] == "seed 4 (4 of 4), best 70.00 MHz: place 1"


def script(monkeypatch, body):
    """Replaces nextpnr by a line of Python that sees its arguments."""
    monkeypatch.setattr(hw.route, "yowasp_command", lambda tool: [sys.executable, "-c", body])


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        (
            ["ERROR: Max frequency for clock 'clk': 55.00 MHz (FAIL at 60.00 MHz)"],
            "Max frequency for clock 'clk': 55.00 MHz (FAIL at 60.00 MHz)",
        ),
        (  # What is late is rerouted for a thousand rounds.
            [
                "Info:     iter=999 wires=1280 overused=3 overuse=3 tmgfail=57 archfail=NA",
                "ERROR: giving up",
            ],
            "gave up after route 999, 3 wires used twice, 57 arcs late",
        ),
        (
            [
                f"Info:     iter={n} wires=1280 overused=0 overuse=0 tmgfail=17 archfail=NA"
                for n in range(300)
            ],
            "no progress in 100 rounds, at route 100, 0 wires used twice, 17 arcs late",
        ),
    ],
)
def test_missed_timing_is_told_from_other_failures(lines, reason, tmp_path, monkeypatch):
    script(monkeypatch, f"print(*{lines!r}, sep='\\n'); raise SystemExit(1)")
    with pytest.raises(TimingError) as error:
        route("n.json", "l.lpf", BOARD, seed=4, out_dir=tmp_path)
    assert str(error.value) == (
        f"place and route missed timing with seed 4: {reason} (see {tmp_path / 'route-4.log'})"
    )


@pytest.mark.parametrize(
    "changing", ["overused=1 overuse=1 tmgfail=17", "overused=0 overuse=0 tmgfail={}"]
)
def test_a_router_that_goes_on_is_left_alone(changing, tmp_path, monkeypatch):
    lines = [f"Info:     iter={n} wires=1280 {changing.format(n)} archfail=NA" for n in range(300)]
    script(
        monkeypatch,
        f"import sys; print(*{lines!r}, sep='\\n');"
        f"a = sys.argv; open(a[a.index('--report') + 1], 'w').write({json.dumps(REPORT)!r})",
    )
    assert route("n.json", "l.lpf", BOARD, seed=4, out_dir=tmp_path)[1] == parse_report(
        json.dumps(REPORT)
    )


END = "Info: Program finished normally."
FAIL = "ERROR: Max frequency for clock 'clk': 55.00 MHz (FAIL at 60.00 MHz)"
CIRCLES = ["Info:     iter=1 wires=1 overused=0 overuse=0 tmgfail=1 archfail=NA"] * 300


@pytest.mark.parametrize("lines", [[FAIL, END], CIRCLES])
def test_a_seed_that_missed_is_not_tried_again(lines, tmp_path, monkeypatch):
    script(monkeypatch, f"print(*{lines!r}, sep='\\n'); raise SystemExit(1)")
    with pytest.raises(TimingError) as first:
        route("n.json", "l.lpf", BOARD, seed=4, out_dir=tmp_path)
    script(monkeypatch, "raise SystemExit('started again')")
    with pytest.raises(TimingError) as again:
        route("n.json", "l.lpf", BOARD, seed=4, out_dir=tmp_path)
    assert str(again.value) == str(first.value)


@pytest.mark.parametrize(("log", "runs"), [(f"Info: route\n{END}\n", 0), ("Info: route\n", 1)])
def test_a_routed_seed_is_taken_if_it_came_to_its_end(log, runs, tmp_path, monkeypatch):
    (tmp_path / "route-4.log").write_text(log)
    (tmp_path / "route-4.config").write_text("config")
    (tmp_path / "route-4.json").write_text(json.dumps(REPORT))
    script(monkeypatch, "open('ran', 'w')")
    config, report = route("n.json", "l.lpf", BOARD, seed=4, out_dir=tmp_path)
    assert (config.read_text(), report) == ("config", parse_report(json.dumps(REPORT)))
    assert len(list(tmp_path.glob("ran"))) == runs


def test_other_failures_are_not_retried(tmp_path, monkeypatch):
    script(monkeypatch, "print('ERROR: no such pin'); raise SystemExit(255)")
    with pytest.raises(BuildError) as error:
        route_best("n", "l", BOARD, seed=1, out_dir=tmp_path, clock_mhz=60.0)
    assert not isinstance(error.value, TimingError)
    assert str(error.value) == (
        "place and route failed with status 255: ERROR: no such pin "
        f"(see {tmp_path / 'route-1.log'})"
    )


def test_nextpnr_is_never_told_to_accept_missed_timing(tmp_path, monkeypatch):
    script(
        monkeypatch,
        "import json, pathlib, sys; a = sys.argv;"
        "pathlib.Path('args.json').write_text(json.dumps(a[1:]));"
        f"pathlib.Path(a[a.index('--report') + 1]).write_text({json.dumps(REPORT)!r})",
    )
    config, report = route("n.json", "l.lpf", BOARD, seed=4, out_dir=tmp_path)
    assert config == tmp_path / "route-4.config"
    assert report == parse_report(json.dumps(REPORT))
    args = json.loads((tmp_path / "args.json").read_text())
    assert "--timing-allow-fail" not in args
    assert args[:5] == ["--25k", "--package", "CABGA381", "--speed", "6"]
    assert args[args.index("--seed") + 1] == "4"
