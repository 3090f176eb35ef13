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
    **{name: {"used": 1, "available": 4} for name in ("lut", "ff", "ebr", "dsp")},
}
METRICS = {"net": {"images": 10000, "accuracy_float": 0.9081, "accuracy_integer": 0.9079}}

TEXT = """# Title
<!-- numbers:results -->
old
<!-- /numbers -->
kept
<!-- numbers:accuracy -->
<!-- /numbers -->
"""


def test_blocks_are_written_and_nothing_else():
    text = numbers.fill(TEXT, [REPORT], METRICS)
    assert text.startswith("# Title\n<!-- numbers:results -->\n| network, board |")
    assert "old" not in text
    assert "<!-- /numbers -->\nkept\n<!-- numbers:accuracy -->\n" in text
    assert (
        "| net, ulx3s-25f | 71.2 MHz | 60.0 MHz | 140,123 | 428.2 | 176.4 | 90.81% | – |\n" in text
    )
    assert "| net | 10,000 | 90.81% | 90.79% |\n<!-- /numbers -->\n" in text
    # Again changes nothing.
    assert numbers.fill(text, [REPORT], METRICS) == text


def test_nothing_measured():
    text = numbers.fill(TEXT, [], {})
    assert "*Not measured yet: `make bitstream`, then `make report`.*" in text
    assert "*No checkpoint ships yet: `make train`.*" in text


@pytest.mark.parametrize("name", numbers.BLOCKS)
def test_every_block_is_a_table_with_equal_rows(name):
    lines = numbers.BLOCKS[name]([REPORT, REPORT], METRICS).splitlines()
    assert len(lines) >= 3
    assert len({line.count("|") for line in lines}) == 1


def test_unknown_block():
    with pytest.raises(UserError) as caught:
        numbers.fill("<!-- numbers:speed -->\n<!-- /numbers -->", [], {})
    assert str(caught.value) == (
        "Block of numbers must be one of results, efficiency, schedule, resources, accuracy, "
        "not 'speed'"
    )


def test_update_writes_changed_files_only(tmp_path):
    (tmp_path / "docs").mkdir()
    (tmp_path / "README.md").write_text(TEXT)
    (tmp_path / "docs" / "plain.md").write_text("no numbers here\n")
    assert numbers.update(tmp_path, [REPORT], METRICS) == [tmp_path / "README.md"]
    assert numbers.update(tmp_path, [REPORT], METRICS) == []
    assert "428" in (tmp_path / "README.md").read_text()
