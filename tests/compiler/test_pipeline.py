import json
import time

import numpy as np
import pytest

from compiler.evaluate import evaluate_folded, verification_frames
from compiler.pipeline import PASSES, compile_network, compile_tensors, describe
from isa.checkpoint import write_checkpoint
from isa.folding import fold_network
from isa.geometry import GEOMETRIES, TINY, ULX3S_25F
from isa.image import parse
from isa.network import Network
from tests.networks import SMALL_NETWORKS, convolve, max_pool, random_checkpoint, small_network


@pytest.mark.parametrize("geometry", GEOMETRIES.values(), ids=lambda g: g.name)
@pytest.mark.parametrize("network", SMALL_NETWORKS, ids=lambda n: n.name)
def test_every_level_of_every_small_network_agrees(network, geometry):
    compiled = compile_tensors(*random_checkpoint(network, 7), geometry)  # verifies itself
    assert compiled.image.info.name == network.name


def test_compiles_a_file_and_saves_every_level(tmp_path):
    path, folder = tmp_path / "net.safetensors", tmp_path / "deep" / "levels"
    checkpoint = random_checkpoint(small_network("odd-channels"))
    write_checkpoint(path, *checkpoint)
    compiled = compile_network(path, TINY, save_intermediates=folder)
    assert compiled.image == compile_tensors(*checkpoint, TINY).image
    names = ["lower", *(change.__name__ for change in PASSES)]
    expected = [f"{i:02}-{name}.{end}" for i, name in enumerate(names) for end in ("json", "npz")]
    last = f"{len(names):02}-pack.img"
    assert sorted(p.name for p in folder.iterdir()) == sorted([*expected, last])
    assert parse((folder / last).read_bytes(), TINY).words == compiled.image.words
    described = json.loads((folder / "07-describe_layers.json").read_text())
    assert described["layers"][1]["descriptor"]["channels"] == 12
    with np.load(folder / "04-tile_weights.npz") as arrays:
        found = arrays["program.layers.1.tiles.weights"]
    assert (found == compiled.program.layers[1].tiles.weights).all()


def test_the_same_checkpoint_gives_the_same_image():
    checkpoint = random_checkpoint(small_network("not-square"))
    first, second = (compile_tensors(*checkpoint, TINY).image.to_bytes() for _ in range(2))
    assert first == second


def test_expected_values_follow_the_float_network():
    """The folded network's residuals are those of the float network but for rounding: at the stem,
    which no sign precedes, to within a few LSBs."""
    for name in ("pooled-stem", "big-stem", "odd-channels"):
        network = small_network(name)
        info, tensors = random_checkpoint(network)
        frame, _ = verification_frames((*network.input_size, network.input_channels))
        found = evaluate_folded(fold_network(info, tensors), frame)["stem"]
        x = (frame[None] / 255 - network.mean) / network.std
        border = (np.floor(255 * np.asarray(network.mean) + 0.5) / 255 - network.mean) / network.std
        y = convolve(x, tensors["stem.conv.weight"], network.stem.stride, border)
        deviation = np.sqrt(tensors["stem.bn.running_var"] + 1e-5)
        y = (y - tensors["stem.bn.running_mean"]) / deviation * tensors["stem.bn.weight"]
        y += tensors["stem.bn.bias"]
        if network.stem.pool:
            y = max_pool(y)
        expected = np.clip(y[0] / info.quantisation.lsb("stem"), -256, 255)
        assert np.abs(found - expected).max() < 6
        assert np.abs(found).max() > 100


def test_report_is_plain_json_and_adds_up():
    compiled = compile_tensors(*random_checkpoint(small_network("three-stages")), ULX3S_25F)
    report = describe(compiled)
    assert json.loads(json.dumps(report)) == report
    packets, sizes = report["image"]["packets"], report["image"]
    assert sum(kind["words"] for kind in packets.values()) == sizes["frame_words"]
    assert sizes["words"] == sizes["header_words"] + sizes["frame_words"] == sizes["bytes"] // 4
    assert packets["LAYER"]["count"] == compiled.image.info.layers == len(report["layers"])
    assert report["order"] == list(range(len(report["layers"])))
    assert packets["PARAMS"]["count"] == sum(layer["tiles"] for layer in report["layers"])
    estimate = report["estimate"]
    assert estimate["cycles"] == sum(layer["cycles"] for layer in estimate["layers"])
    assert report["logit_lsb"] == compiled.image.info.logit_lsb
    assert report["memory"]["residual_words"]["used"] == 16 * 16 * 4
    assert report["peak_binary_macs"] == 16 * 32


def test_fmnist_s_compiles_in_seconds():
    network = Network("fmnist-s", (28, 28), 1, 10, (32, 64, 128), (2, 2, 2), (0.286,), (0.353,))
    checkpoint = random_checkpoint(network)
    begin = time.process_time()
    compiled = compile_tensors(*checkpoint, ULX3S_25F)
    assert time.process_time() - begin < 20
    assert compiled.report["source"] == "ram"
