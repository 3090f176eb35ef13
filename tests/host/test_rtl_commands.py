"""`rbonn run --backend rtl` and `rbonn sim` on a tiny network."""

import dataclasses
import json

import numpy as np
import pytest

from host import cli
from host.commands.sim import default_images
from isa.checkpoint import write_checkpoint
from isa.geometry import GEOMETRIES
from isa.network import UNTRAINED
from rbonn_train.integer import IntegerNetwork
from tests.geometries import TINY_SDRAM
from tests.networks import random_checkpoint, random_frames, small_network, write_model

NETWORK = small_network("one-pixel")
FRAMES = random_frames(NETWORK, 2)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rtl")
    info, tensors = random_checkpoint(NETWORK)
    info = dataclasses.replace(info, training={UNTRAINED: 0})
    write_checkpoint(folder / "net.safetensors", info, tensors)
    np.savez(folder / "frames.npz", images=FRAMES)
    name = write_model(folder / "net.yaml", NETWORK)
    return [
        *("--model", name, "--checkpoint", f"{folder}/net.safetensors", "--board", "tiny"),
        *("--images", f"{folder}/frames.npz"),
    ]


def test_rtl_equals_integer(model, tmp_path):
    results = {}
    for backend in ("integer", "rtl"):
        out = tmp_path / f"{backend}.json"
        assert cli.main(["run", *model, "--backend", backend, "--json", str(out)]) == 0
        results[backend] = json.loads(out.read_text())
    assert results["rtl"]["logits"] == results["integer"]["logits"]
    assert results["rtl"]["classes"] == results["integer"]["classes"]
    assert all(cycles > 500 for cycles in results["rtl"]["cycles"])


def test_sim(model, capsys):
    assert cli.main(["sim", *model, "--json", "-"]) == 0
    captured = capsys.readouterr()
    assert captured.err.splitlines()[-1].endswith(" cycles, UNTRAINED")
    result = json.loads(captured.out)
    assert set(result) == {"layers", "compared_values", "mismatches", "cycles"}
    assert result["mismatches"] == 0
    assert result["layers"] == 11
    assert result["compared_values"] > 500
    assert result["cycles"] > 1000


def test_sim_from_sdram_with_stalls(model, capsys, monkeypatch):
    monkeypatch.setitem(GEOMETRIES, TINY_SDRAM.name, TINY_SDRAM)
    more = ["--board", TINY_SDRAM.name, "--stalls", "heavy", "--json", "-"]
    assert cli.main(["sim", *model, *more]) == 0
    assert json.loads(capsys.readouterr().out)["mismatches"] == 0


def test_sim_takes_fewer_images_of_a_large_network():
    assert [default_images(cycles) for cycles in (900, 159_004, 707_326, 1_319_763, 9_000_000)] == [
        20, 20, 5, 2, 2,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "bits", "said"),
    [
        ("blocks.1", False, "blocks.1, residual at pixel (3, 2), channel 1: "),
        ("stem", True, "stem, bit at pixel (3, 2), channel 1: "),
        ("fc", False, "logit of class 1: "),
    ],
)
def test_sim_compares_every_layer_with_pytorch(model, capsys, monkeypatch, name, bits, said):
    right = IntegerNetwork.trace
    traced = []

    def wrong(self, images):
        found = right(self, images)
        traced.append(images)
        maps = found[name].bits if bits else found[name].residual
        if len(traced) == 2:
            maps[(0, 3, 2, 1) if maps.ndim == 4 else (0, 1)] ^= 1
        return found

    monkeypatch.setattr(IntegerNetwork, "trace", wrong)
    assert cli.main(["sim", *model, "--json", "-"]) == 1
    captured = capsys.readouterr()
    assert json.loads(captured.out)["mismatches"] == 1
    lines = captured.err.splitlines()
    assert lines[0].endswith("net.safetensors: seeded weights, UNTRAINED")
    assert "each against golden model and integer PyTorch: " in lines[1]
    assert lines[2].startswith(f"rbonn: error: Frame 1, {said}")
    assert " in PyTorch, " in lines[2]


def test_sim_names_the_first_difference(model, capsys, monkeypatch):
    """The golden model is made wrong, as the gateware cannot be."""
    from sim.golden import Golden

    right = Golden.run

    def wrong(self, frame):
        changed = frame.copy()
        changed.flat[0] ^= 0x80
        return right(self, changed)

    monkeypatch.setattr(Golden, "run", wrong)
    assert cli.main(["sim", *model, "--limit", "1"]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert lines[1].startswith("rbonn: error: Frame 0, layer 0 (stem), residual at pixel (0, 0)")
