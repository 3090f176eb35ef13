"""report.json and its page, from a compiled network and a build that is made up."""

import json
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from types import SimpleNamespace

import pytest

from compiler.pipeline import compile_tensors
from host import numbers
from host.errors import UserError
from host.html import CYCLES, percent, render
from host.report import LayerMeasured, Measured, build_report, find_reports, read_report
from isa.geometry import ULX3S_25F
from isa.network import CheckpointInfo
from isa.trace import ACTIVITIES, EXCLUSIVE
from tests.networks import DEEP, random_checkpoint, small_network

COUNTERS = {
    "cycles": 10_000,
    "binary_cycles": 8_000,
    "array_busy": 7_200,
    "mac_busy": 900,
    "wait_weights": 300,
    "wait_input": 0,
    "wait_post": 120,
    "wait_load": 40,
    "stream_busy": 4_000,
    "wait_stream": 500,
    "reduce_busy": 1_100,
    "begin_layer": 50,
    "drain_layer": 270,
    "scan_logits": 19,
    "wait_crc": 1,
}
BUILD = SimpleNamespace(
    fmax_mhz=72.5,
    clock_mhz=60.0,
    seed=3,
    tried=((3, 80.7),),
    utilisation={"lut": (9000, 24288), "ff": (9500, 24288), "ebr": (40, 56), "dsp": (20, 28)},
    tool_versions={"amaranth": "0.5.10"},
)
KEYS = (
    "model board fmax_mhz clock_mhz cycles_per_frame fps array_busy mac_utilisation roofline_ratio "
    "lut ff ebr dsp image_bytes accuracy_float accuracy_integer checkpoint tool_versions seed"
)


@pytest.fixture(scope="module")
def compiled():
    return compile_tensors(*random_checkpoint(small_network("three-stages")), ULX3S_25F)


@pytest.fixture
def report(compiled, tmp_path):
    return build_report(
        model="three<stages>",
        geometry=ULX3S_25F,
        checkpoint=tmp_path / "net.safetensors",
        info=CheckpointInfo(
            small_network("three-stages"),
            None,
            metrics={"accuracy_float": 0.91, "accuracy_integer": 0.9087},
        ),
        image_bytes=4 * len(compiled.image.words),
        compiled=compiled.report,
        measured=Measured(10_000, COUNTERS),
        build=BUILD,
    )


def test_seeded_weights_are_labelled_wherever_accuracy_would_stand(report):
    assert report["untrained"] is False
    untrained = {**report, "untrained": True, "accuracy_float": None, "accuracy_integer": None}
    page = render(untrained)
    assert "untrained" in page
    assert "they classify nothing" in page
    assert "what the board computes" not in page
    assert "untrained" not in render(report)
    assert numbers.results(numbers.Figures([untrained])).count("untrained") == 2


def test_every_number_that_other_tools_rely_on(report, compiled):
    assert set(KEYS.split()) <= set(report)
    assert report["fps"] == 6000.0  # 60 MHz / 10,000 cycles
    assert report["array_busy"] == 0.9
    assert report["lut"] == {"used": 9000, "available": 24288}
    assert report["image_bytes"] == compiled.report["image"]["bytes"]
    assert (report["accuracy_float"], report["accuracy_integer"]) == (0.91, 0.9087)
    # 16 x 32 binary products a cycle are the peak.
    useful = sum(layer["binary_macs"] for layer in report["layers"])
    assert report["mac_utilisation"] == pytest.approx(useful / (512 * 10_000), abs=1e-4)
    path = compiled.report["roofline"]["critical_path"]
    assert report["roofline_ratio"] == pytest.approx(path / 10_000, abs=1e-4)
    assert json.loads(json.dumps(report)) == report


def test_layer_cycles_are_simulated_where_known(compiled, report):
    names = [layer["name"] for layer in compiled.report["layers"]]
    assert [layer["name"] for layer in report["layers"]] == names
    assert all(layer["cycles"] is None for layer in report["layers"])
    layers = [LayerMeasured(count, {"array_busy": 7}) for count in range(1, len(names) + 1)]
    measured = Measured(10_000, COUNTERS, layers)
    again = build_report(
        model="x", geometry=ULX3S_25F, checkpoint="x",
        info=CheckpointInfo(small_network("plain"), None), image_bytes=4,
        compiled=compiled.report, measured=measured, build=BUILD,
    )  # fmt: skip
    assert [layer["cycles"] for layer in again["layers"]] == list(range(1, len(names) + 1))
    assert again["layers"][0]["activity"] == {"array_busy": 7}
    assert "Where the cycles of each layer went" in render(again)
    assert again["accuracy_integer"] is None
    assert "not measured" in render(again)


def test_how_busy_is_what_binds(compiled):
    """The array in its layers; the stream in its, of the words that could have come."""
    bounds = [layer["bound"] for layer in compiled.report["roofline"]["layers"]]
    assert {"xnor", "stream"} <= set(bounds)
    layers = [
        LayerMeasured(100, {"array_busy": 90 if bound == "xnor" else 5, "stream_busy": 36,
                            "wait_stream": 12 if bound == "stream" else 50})
        for bound in bounds
    ]  # fmt: skip
    report = build_report(
        model="x", geometry=ULX3S_25F, checkpoint="x",
        info=CheckpointInfo(small_network("plain"), None), image_bytes=4,
        compiled=compiled.report, measured=Measured(10_000, COUNTERS, layers), build=BUILD,
        stream_peak=0.8,
    )  # fmt: skip
    assert report["array_busy_where_it_binds"] == 0.9
    assert report["stream_efficiency"] == 36 / 48 / 0.8 == 0.9375
    assert "93.8%" in render(report)


def test_parts_of_a_layer_are_summed():
    """And the stem that is computed is said to be the next frame's."""
    compiled = compile_tensors(*random_checkpoint(DEEP), ULX3S_25F, verify=False)
    order = compiled.report["order"]
    assert compiled.report["overlap"]
    layers = [LayerMeasured(10 + index, {"mac_busy": index}) for index in range(len(order))]
    report = build_report(
        model="x", geometry=ULX3S_25F, checkpoint="x", info=CheckpointInfo(DEEP, None),
        image_bytes=4, compiled=compiled.report, measured=Measured(10_000, COUNTERS, layers),
        build=BUILD,
    )  # fmt: skip
    names = [layer.name for layer in compiled.program.layers]
    assert [layer["name"] for layer in report["layers"]] == list(dict.fromkeys(names))
    stem, first = report["layers"][:2]
    parts = [index for index, layer in enumerate(order) if layer == 0]
    assert stem["parts"] == len(parts) > 2
    assert stem["cycles"] == sum(10 + index for index in parts)
    assert stem["activity"] == {"mac_busy": sum(parts)}
    assert (first["parts"], first["cycles"], first["activity"]) == (1, 10, {"mac_busy": 0})
    page = render(report)
    assert "stem (next frame)" in page
    assert "blocks.0 (next frame)" not in page


def test_every_cycle_of_a_layer_is_in_one_column(compiled):
    """And in one part of its bar, the frame's end as well; what never occurs has neither."""
    assert set(CYCLES) == set(EXCLUSIVE)
    activity = dict.fromkeys(ACTIVITIES, 0) | {
        "mac_busy": 1000, "wait_weights": 234, "wait_post": 50, "begin_layer": 6, "drain_layer": 40,
        "stream_busy": 777, "wait_stream": 300,
    }  # fmt: skip
    end = dict.fromkeys(ACTIVITIES, 0) | {"scan_logits": 15, "wait_crc": 2}
    layers = [LayerMeasured(1330, activity)] * len(compiled.report["order"])
    report = build_report(
        model="x", geometry=ULX3S_25F, checkpoint="x",
        info=CheckpointInfo(small_network("plain"), None), image_bytes=4,
        compiled=compiled.report, build=BUILD,
        measured=Measured(10_000, COUNTERS, layers, LayerMeasured(17, end)),
    )  # fmt: skip
    assert report["layers"][3]["activity"] == activity
    assert report["tail"] == {"cycles": 17, "activity": end}
    assert json.loads(json.dumps(report)) == report
    section = (
        render(report).split("Where the cycles of each layer went", 1)[1].split("</section>")[0]
    )
    head, first, *_, last = section.split("<tr>")[1:]
    columns = [part.split("</th>")[0] for part in head.split("<th>")[1:]]
    assert columns == [
        "layer", "cycles", "MAC array works", "waits for weights", "waits for post-process",
        "layer begins", "last results drain", "largest logits", "waits for the CRC",
        "words come", "waits for words",
    ]  # fmt: skip
    cells = [part.split("</td>")[0] for part in first.split("<td>")[1:]]
    assert cells == ["stem", "1,330", "1,000", "234", "50", "6", "40", "", "", "777", "300"]
    cells = [part.split("</td>")[0] for part in last.split("<td>")[1:]]
    assert cells == ["frame&#x27;s end", "17", *[""] * 5, "15", "2", "", ""]
    bars = section.split("</svg>")[0]
    assert bars.count("<title>waits for weights: 234</title>") == len(layers)
    assert bars.count("<title>largest logits: 15</title>") == 1
    assert "not counted" not in render(report)
    assert len(checked_charts(render(report))) == 6


def test_reports_of_earlier_versions_say_what_was_not_counted(report):
    old = {**report, "counters": {"cycles": 10_000, "array_busy": 7_200, "mac_busy": 900}}
    del old["tail"]
    assert "not counted: 1,900" in render(old)
    assert "not counted" not in render(report)


class Checker(HTMLParser):
    """Every element is closed, nothing is fetched."""

    VOID = ("meta", "br")

    def __init__(self):
        super().__init__()
        self.open, self.names = [], []

    def handle_starttag(self, tag, attrs):
        self.names.append(tag)
        assert not {"src", "href", "xlink:href"} & {name for name, _ in attrs}
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.names.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_is_complete_and_self_contained(report):
    page = render(report)
    checker = Checker()
    checker.feed(page)
    assert checker.open == []
    assert "script" not in checker.names
    assert "@@" not in page
    assert "http" not in page
    assert "@import" not in page
    assert "url(" not in page
    assert "three&lt;stages&gt; on ulx3s-25f" in page
    for text in ("6,000", "72.5 MHz", "90.87%", "Roofline by layer", "Memory map", "seed 3"):
        assert text in page


def checked_charts(page):
    """All of them, well formed and inside their boxes."""
    charts = [part.split("</svg>")[0] + "</svg>" for part in page.split("<svg")[1:]]
    for chart in charts:
        root = ET.fromstring("<svg" + chart)
        width, height = (float(value) for value in root.get("viewBox").split()[2:])
        for rect in root.iter("rect"):
            x, y, w, h = (float(rect.get(name)) for name in ("x", "y", "width", "height"))
            assert -2 <= x <= x + w <= width + 2
            assert -3 <= y <= y + h <= height + 3
    return charts


def test_charts_are_well_formed_and_inside_their_box(report):
    assert len(checked_charts(render(report))) == 5


def test_percent():
    assert percent(0.12345) == "12.3%"
    assert percent(None) == "not measured"


def test_reading_reports(tmp_path, report):
    path = tmp_path / "net" / "ulx3s-25f" / "report.json"
    with pytest.raises(UserError, match="must exist before it can be written again"):
        read_report(path)
    path.parent.mkdir(parents=True)
    for content in ("", "{", "[]", '{"a": 1}'):
        path.write_text(content)
        with pytest.raises(UserError, match=f"not {path}"):
            read_report(path)
    path.write_text(json.dumps(report))
    assert read_report(path) == report
    assert find_reports(tmp_path) == [path]
