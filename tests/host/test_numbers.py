"""The published numbers: only what stands between markers changes."""

import pytest

from host import numbers
from host.errors import UserError

REPORT = {
    "model": "net",
    "board": "ulx3s-25f",
    "fmax_mhz": 71.234,
    "clock_mhz": 60.0,
    "cycles_per_frame": 140123,
    "fps": 428.2,
    "end_to_end": {"uart_baud": 3_000_000, "bytes_per_frame": 1000, "fps": 176.44},
    "accuracy_float": 0.9081,
    "accuracy_integer": None,
    "array_busy": 0.81,
    "mac_utilisation": 0.5,
    "roofline_ratio": 0.9,
    "estimated_cycles": 141000,
    "cycles_in_sequence": 150000,
    "critical_path": 130000,
    "array_busy_where_it_binds": 0.99,
    "stream_efficiency": None,
    "seed": 3,
    "seeds": [{"seed": 3, "fmax_mhz": 71.234}, {"seed": 1, "fmax_mhz": None}],
    "tool_versions": {"router": "1.2"},
    **{name: {"used": 1, "available": 4} for name in ("lut", "ff", "ebr", "dsp")},
}
METRICS = {"net": {"images": 10000, "accuracy_float": 0.9081, "accuracy_integer": 0.9079}}
BENCHES = [
    {
        "what": "golden",
        "model": "net",
        "golden_fps": 155.7,
        "float_fps": 58.1,
        "golden_over_float": 2.679,
        "threads": 2,
        "cpu": "Some CPU",
        "torch": "2.1",
    },
    {
        "what": "board-sim",
        "model": "large",
        "board": "ulx3s-85f",
        "untrained": True,
        "batch_bytes_per_frame": 228,
        "batch_fps": 58.01,
        "bytes_per_frame": 164420,
        "clock_mhz": 80.0,
        "cycles_start_to_start": 1318191,
        "end_to_end_fps": 1.825,
        "kernel_fps": 60.69,
        "uart_baud": 3000000,
        "threads": 2,
        "cpu": "Some CPU",
        "torch": "2.1",
    },
    {
        "what": "train",
        "model": "net",
        "method": "paper",
        "train_batch": 64,
        "train_precision": "float32",
        "train_step_ms": 249.3,
        "train_step_ratio": 1.091,
        "train_step_over_real": 1.23,
        "train_peak_ratio": 0.976,
        "threads": 2,
        "cpu": "Some CPU",
        "torch": "2.1",
    },
    {
        "what": "rounding",
        "model": "net",
        "images": 10_000,
        "float": 0.9228,
        "simulated": 0.922,
        "integer": 0.9217,
        "float_to_integer": {"changed": 233, "lost": 107, "won": 96},
        "simulated_to_integer": {"changed": 171, "lost": 73, "won": 74},
    },
]
FIGURES = numbers.Figures([REPORT], METRICS, BENCHES)

TEXT = """# Title
<!-- numbers:results -->
old
<!-- /numbers -->
kept
<!-- numbers:accuracy -->
<!-- /numbers -->
"""


def test_blocks_are_written_and_nothing_else():
    text = numbers.fill(TEXT, FIGURES)
    assert text.startswith("# Title\n<!-- numbers:results -->\n| network, board |")
    assert "old" not in text
    assert "<!-- /numbers -->\nkept\n<!-- numbers:accuracy -->\n" in text
    assert (
        "| net, ulx3s-25f | 71.2 MHz | 60.0 MHz | 140,123 | 428.2 | 176.4 | 90.81% | – |\n" in text
    )
    assert "| net | 10,000 | 90.81% | 90.79% |\n<!-- /numbers -->\n" in text
    # Again changes nothing.
    assert numbers.fill(text, FIGURES) == text


def test_nothing_measured():
    text = numbers.fill(TEXT, numbers.Figures())
    assert "*Not measured yet: `make bitstream`, then `make report`.*" in text
    assert "*No checkpoint ships yet: `make train`.*" in text


@pytest.mark.parametrize("name", numbers.BLOCKS)
def test_every_block_is_a_table_with_equal_rows(name):
    lines = numbers.BLOCKS[name](numbers.Figures([REPORT, REPORT], METRICS, BENCHES)).splitlines()
    table = [line for line in lines if line.startswith("|")]
    assert len(table) >= 3
    assert len({line.count("|") for line in table}) == 1


def test_unknown_block():
    with pytest.raises(UserError) as caught:
        numbers.fill("<!-- numbers:speed -->\n<!-- /numbers -->", numbers.Figures())
    assert str(caught.value) == (
        "Block of numbers must be one of results, efficiency, schedule, resources, accuracy, "
        "routing, golden, board, training_cost, rounding, not 'speed'"
    )


def test_update_writes_changed_files_only(tmp_path):
    (tmp_path / "docs").mkdir()
    (tmp_path / "README.md").write_text(TEXT)
    (tmp_path / "docs" / "plain.md").write_text("no numbers here\n")
    assert numbers.update(tmp_path, FIGURES) == [tmp_path / "README.md"]
    assert numbers.update(tmp_path, FIGURES) == []
    assert "428" in (tmp_path / "README.md").read_text()


def test_seeds_of_a_sweep():
    text = numbers.routing(FIGURES)
    assert "| ulx3s-25f | 60.0 MHz | 3 (used) | 71.2 MHz |\n" in text
    assert "| ulx3s-25f | 60.0 MHz | 1 | missed |\n" in text
    assert text.endswith("\n\nTools: router 1.2.")


def test_what_benches_measured():
    on = "2 threads of Some CPU, torch 2.1"
    assert f"| net | 155.7 | 58.1 | 2.68 | {on} |" in numbers.golden(FIGURES)
    board = "| large (untrained), ulx3s-85f | 60.7 | 58.0 | 228 | 1.82 | 164,420 |"
    assert numbers.board(FIGURES).splitlines()[2:] == [board]
    row = f"| net, paper | 64, float32 | 249 ms | 1.09 | 1.23 | 0.98 | {on} |"
    assert row in numbers.training_cost(FIGURES)
    row = "| net | 10,000 | 92.28% | 92.17% | -0.11 | ± 0.14 | 2.33% | 1.07% | 0.96% | 1.71% |"
    assert numbers.rounding(FIGURES).splitlines()[2:] == [row]


@pytest.mark.parametrize("block", ["golden", "board"])
@pytest.mark.parametrize("untrained", [True, False])
def test_seeded_weights_are_labelled_in_what_benches_measured(block, untrained):
    benches = [{**bench, "untrained": untrained} for bench in BENCHES]
    text = numbers.BLOCKS[block](numbers.Figures(benches=benches))
    assert text.count("(untrained)") == untrained


def test_boards_that_nobody_measured():
    assert numbers.board(numbers.Figures()) == (
        "*Not measured yet: `rbonn bench board-sim`, then `rbonn report`.*"
    )


def test_damaged_bench_is_named(tmp_path):
    (tmp_path / "bench").mkdir()
    (tmp_path / "bench" / "train-net.json").write_text("{")
    with pytest.raises(UserError, match=r"train-net\.json must be what `rbonn bench` wrote"):
        numbers.kept_benches(tmp_path)
