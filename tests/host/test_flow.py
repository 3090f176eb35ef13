"""The order of a build, with place and route and the simulation replaced."""

import dataclasses
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from host import cli, flow
from host.errors import UserError
from host.report import LayerMeasured
from isa.checkpoint import write_checkpoint
from isa.geometry import TINY, ULX3S_25F, ULX3S_85F
from isa.image import parse, words_to_bytes
from isa.network import UNTRAINED
from tests.networks import random_checkpoint, small_network, write_model

# What the images that ship can be made to fit.
NETWORK = small_network("plain")


def sim_result(layers, **changes):
    layer = SimpleNamespace(cycles=100, activity={"array_busy": 60})
    counters = dict.fromkeys(
        ("binary_layer", "array_busy", "mac_busy", "wait_weights", "wait_input", "wait_post",
         "wait_load"), 10,
    )  # fmt: skip
    values = {
        "cycles": [2000, 1500, 1300],
        "counters": [{}, {"cycles": 1500, **counters}, {}],
        "layer_cycles": [[], [layer] * layers, []],
        "tails": [None, SimpleNamespace(cycles=12, activity={"scan_logits": 12}), None],
        "mismatches": 0,
        "first": None,
    }
    return SimpleNamespace(**{**values, **changes})


@pytest.fixture
def stage(tmp_path, monkeypatch):
    """A model, its checkpoint, and stand-ins for what takes minutes."""
    checkpoint = tmp_path / "net.safetensors"
    write_checkpoint(checkpoint, *random_checkpoint(NETWORK))
    stage = SimpleNamespace(
        model=write_model(tmp_path / "tiny.yaml", NETWORK),
        checkpoint=checkpoint,
        build=tmp_path / "build",
        result=sim_result,
        built=[],
    )

    def simulate(geometry, image, frames, *, simulator):
        assert frames.shape == (flow.SIMULATED_FRAMES, *image.info.input_shape)
        assert frames.dtype == np.uint8
        return stage.result(image.info.layers)

    def build_bitstream(top, board, **options):
        stage.built.append(options)
        path = options["cache"] / "digest" / "top.bit"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"bits")
        return SimpleNamespace(
            bitstream=path, config=path.with_name("top.config"), fmax_mhz=70.0, clock_mhz=60.0,
            seed=4, tried=((2, None), (4, 70.0)), tool_versions={"a": "1"},
            utilisation=dict.fromkeys(("lut", "ff", "ebr", "dsp"), (1, 2)),
        )  # fmt: skip

    def prefill(config, image, *, words):
        assert config == stage.build / "cache" / "digest" / "top.config"
        assert words == ULX3S_25F.image_words
        return b"bits with " + words_to_bytes(image)

    monkeypatch.setattr("sim.runner.simulate", simulate)
    monkeypatch.setattr("hw.bitstream.prefill", prefill)
    monkeypatch.setattr("hw.build.build_bitstream", build_bitstream)
    return stage


def arguments(stage, *more):
    return [
        "bitstream", "--model", stage.model, "--checkpoint", str(stage.checkpoint), "--build",
        str(stage.build), *more,
    ]  # fmt: skip


def test_everything_is_written(stage, capsys):
    assert cli.main(arguments(stage, "--sweep", "3")) == 0
    folder = stage.build / "tiny" / "ulx3s-25f"
    names = {"top.bit", "model.img", "report.json", "report.html"}
    assert {path.name for path in folder.iterdir()} == names
    image = (folder / "model.img").read_bytes()
    assert parse(image, ULX3S_25F).info.name == "plain"
    assert (folder / "top.bit").read_bytes() == b"bits with " + image
    report = json.loads((folder / "report.json").read_text())
    assert report["cycles_per_frame"] == 1500  # of the last frame
    assert report["fps"] == 40_000.0
    line = report["end_to_end"]
    # The frame is sent, then computed; ten bits a byte.
    assert line["fps"] == round(1 / (10 * line["bytes_per_frame"] / 3e6 + 1 / 40_000), 2)
    assert report["seed"] == 4
    assert report["seeds"] == [{"seed": 2, "fmax_mhz": None}, {"seed": 4, "fmax_mhz": 70.0}]
    assert report["layers"][0]["cycles"] == 100
    assert stage.built == [
        {
            "cache": stage.build / "cache",
            "seed": None,
            "sweep": 3,
            "progress": stage.built[0]["progress"],
        }
    ]
    out = capsys.readouterr().out
    assert "40,000 frames/s: 1,500 cycles at 60.0 MHz (routed for 70.0 MHz); " in out
    assert f" {line['fps']:,.1f} with pixels and logits over the UART\n" in out
    page = (folder / "report.html").read_text()
    assert "frames per second with pixels and logits over the UART at 3,000,000 baud" in page


def test_an_image_for_sdram_is_not_in_the_bitstream(stage):
    assert cli.main(arguments(stage, "--board", "ulx3s-85f")) == 0
    folder = stage.build / "tiny" / "ulx3s-85f"
    assert (folder / "top.bit").read_bytes() == b"bits"
    line = json.loads((folder / "report.json").read_text())["end_to_end"]
    # The next frame is sent while one is computed.
    assert line["fps"] == round(3e5 / line["bytes_per_frame"], 2)
    assert parse((folder / "model.img").read_bytes(), ULX3S_85F).info.name == "plain"


def test_untrained_weights_are_called_so(stage, capsys):
    info, tensors = random_checkpoint(NETWORK)
    info = dataclasses.replace(info, training={UNTRAINED: 0})
    write_checkpoint(stage.checkpoint, info, tensors)
    assert cli.main(arguments(stage)) == 0
    assert "UNTRAINED, 40,000 frames/s" in capsys.readouterr().out
    folder = stage.build / "tiny" / "ulx3s-25f"
    assert json.loads((folder / "report.json").read_text())["untrained"] is True
    assert "untrained" in (folder / "report.html").read_text()


def test_gateware_that_differs_is_not_built(stage, capsys):
    stage.result = lambda layers: sim_result(layers, mismatches=2, first="Frame 0, layer 3 ...")
    assert cli.main(arguments(stage)) == 1
    assert capsys.readouterr().err.splitlines()[-1] == (
        "rbonn: error: Gateware must equal the golden model, but: Frame 0, layer 3 ..."
    )
    assert not stage.built
    assert not (stage.build / "tiny").exists()


def test_a_failing_build_leaves_the_old_files(stage, monkeypatch, capsys):
    assert cli.main(arguments(stage)) == 0
    folder = stage.build / "tiny" / "ulx3s-25f"
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def fail(*_, **__):
        raise RuntimeError("Place and route must meet 60 MHz, not 55 MHz")

    monkeypatch.setattr("hw.build.build_bitstream", fail)
    assert cli.main(arguments(stage)) == 1
    assert "must meet 60 MHz" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_network_too_large(stage, capsys):
    network = small_network("plain")
    large = dataclasses.replace(network, input_size=(64, 64))
    write_checkpoint(stage.checkpoint, *random_checkpoint(large))
    write_model(Path(stage.model), large)
    assert cli.main(arguments(stage)) == 1
    line = capsys.readouterr().err.splitlines()[-1]
    assert "of geometry ulx3s-25f, not " in line
    assert "too many" in line
    assert not stage.built


def test_measure_takes_the_middle_frame(stage, monkeypatch):
    image = SimpleNamespace(info=SimpleNamespace(input_shape=(8, 8, 1), layers=2))
    measured = flow.measure(TINY, image)
    assert measured.cycles == 1500
    assert measured.counters["binary_cycles"] == 10
    assert [layer.cycles for layer in measured.layers] == [100, 100]
    assert measured.tail == LayerMeasured(12, {"scan_logits": 12})
    stage.result = lambda layers: sim_result(layers, mismatches=1, first="x")
    with pytest.raises(UserError, match="must equal the golden model, but: x"):
        flow.measure(TINY, image)


def test_report_command_renders_again(stage, monkeypatch, tmp_path, capsys):
    assert cli.main(arguments(stage)) == 0
    page = stage.build / "tiny" / "ulx3s-25f" / "report.html"
    page.write_text("old")
    root = tmp_path / "root"
    root.mkdir()
    text = "<!-- numbers:results -->\n<!-- /numbers -->\n"
    (root / "README.md").write_text(text)
    monkeypatch.setattr("host.commands.report.ROOT", root)
    arguments_ = ["report", "--model", "tiny", "--build", str(stage.build)]
    assert cli.main(arguments_) == 0
    assert "ulx3s-25f" in page.read_text()
    assert "| tiny, ulx3s-25f | 70.0 MHz |" in (root / "README.md").read_text()
    # Networks that ship are published, with or without a checkpoint; others are not.
    report = json.loads(page.with_name("report.json").read_text())
    for model in ("resnet18-imagenet", "mine"):
        folder = stage.build / model / "ulx3s-85f"
        folder.mkdir(parents=True)
        (folder / "report.json").write_text(json.dumps({**report, "model": model}))
    assert cli.main(arguments_) == 0
    published = (root / "README.md").read_text()
    assert "| resnet18-imagenet, " in published
    assert "mine" not in published
    shutil.rmtree(stage.build / "tiny")
    assert cli.main(arguments_) == 1
    assert "build it with `rbonn bitstream`" in capsys.readouterr().err
