"""Which checkpoint a command works on, and what is made and kept on the way."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.numpy import load_file

from host import checkpoints, cli
from host.checkpoints import checkpoint_path
from host.errors import UserError
from host.models import MODELS
from host.numbers import kept_benches
from isa.checkpoint import read_checkpoint, read_info, write_checkpoint
from isa.geometry import ULX3S_85F
from isa.image import parse
from isa.network import UNTRAINED, Stem, network_from_dict
from tests.networks import random_checkpoint
from tests.rbonn_train.test_released import authors, images, save

NETWORK = """
  input_size: [64, 64]
  input_channels: 3
  classes: 7
  widths: [8, 16, 32, 64]
  blocks_per_stage: [2, 1, 2, 1]
  mean: [0.485, 0.456, 0.406]
  std: [0.229, 0.224, 0.225]
  stem: {kernel: 7, stride: 2, pool: true}
"""
RECIPE = """
recipe:
  binary_activations: {epochs: 1}
  binary_weights: {epochs: 2}
"""


@pytest.fixture
def model(tmp_path, monkeypatch):
    """A model file without a checkpoint, and an empty cache."""
    monkeypatch.setattr(checkpoints, "CACHE", tmp_path / "cache")
    path = tmp_path / "mine.yaml"
    path.write_text(f"network:{NETWORK}{RECIPE}")
    return path


@pytest.fixture
def released(tmp_path):
    return save(tmp_path / "theirs.pth.tar", authors())


@pytest.fixture
def typical(tmp_path):
    np.savez(tmp_path / "typical.npz", images=images(6))
    return tmp_path / "typical.npz"


def refused(*arguments, **options):
    with pytest.raises(UserError) as error:
        checkpoint_path(*arguments, **options)
    return str(error.value)


def test_the_one_that_ships(model):
    assert refused(str(model)) == (
        f"Model mine has no checkpoint at {model.with_suffix('.safetensors')}: train it with "
        f"`rbonn train --model {model}` and name the result with --checkpoint"
    )
    write_checkpoint(model.with_suffix(".safetensors"), *ours())
    assert checkpoint_path(str(model)) == model.with_suffix(".safetensors")
    assert refused(str(model), None, "x.npz") == (
        "Give --calibration together with the --checkpoint that it is for"
    )


def ours(**changes):
    """A random checkpoint of the model's network, but for ``changes``."""
    raw = yaml.safe_load(NETWORK) | {"name": "other"}
    return random_checkpoint(dataclasses.replace(network_from_dict(raw), **changes))


def test_one_of_ours_is_taken_as_it_is(model, tmp_path, capsys):
    """Whatever it is called."""
    path = tmp_path / "ours.safetensors"
    assert refused(str(model), path) == f"Checkpoint must be an existing file, not {path}"
    write_checkpoint(path, *ours())
    assert checkpoint_path(str(model), path) == path
    assert capsys.readouterr().err == ""


DIFFERENT = [
    ({"input_channels": 1, "mean": (0.5,), "std": (0.2,)}, "input_channels is 3, not 1"),
    ({"input_size": (32, 32), "classes": 4}, "classes is 7, not 4"),
    ({"widths": (8, 16, 32, 48)}, "widths is [8, 16, 32, 64], not [8, 16, 32, 48]"),
    ({"std": (0.2, 0.2, 0.2)}, "std is [0.229, 0.224, 0.225], not [0.2, 0.2, 0.2]"),
    ({"stem": Stem(), "input_size": (8, 8)}, "stem is {'kernel': 7, 'stride': 2, 'pool': True}, "
     "not {'kernel': 3, 'stride': 1, 'pool': False}"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "words"), DIFFERENT)
def test_another_network_than_the_models_is_refused(model, tmp_path, changes, words):
    path = tmp_path / "ours.safetensors"
    write_checkpoint(path, *ours(**changes))
    expected = (
        f"Checkpoint {path} must hold the network of model mine, whose {words}: give another "
        f"--checkpoint, or the --model that this one was trained as"
    )
    assert refused(str(model), path) == expected
    path.rename(model.with_suffix(".safetensors"))
    assert refused(str(model)) == expected.replace("ours.", "mine.")


def of_another_size(path):
    info, tensors = ours(input_size=(32, 96))
    info = dataclasses.replace(info, metrics={"accuracy_float": 0.9})
    write_checkpoint(path, info, tensors)
    return info, tensors


def test_another_input_size_is_the_models(model, typical, tmp_path, capsys):
    path = tmp_path / "ours.safetensors"
    info, tensors = of_another_size(path)
    found = checkpoint_path(str(model), path)
    said = f"{path}: trained for 32 x 96 pixels, taken for 64 x 64, without its accuracies"
    assert capsys.readouterr().err == f"{said} and with its scales\n"
    read, values = read_checkpoint(found)
    assert (read.network.input_size, read.network.name) == ((64, 64), "mine")
    assert (read.quantisation, read.training, read.metrics) == (
        info.quantisation, info.training, {},
    )  # fmt: skip
    assert all(np.array_equal(values[name], tensors[name]) for name in tensors)
    before = found.stat().st_mtime_ns
    assert checkpoint_path(str(model), path) == found
    assert found.stat().st_mtime_ns == before
    capsys.readouterr()
    # The images are of the model's size, and give other scales.
    again = read_checkpoint(checkpoint_path(str(model), path, typical))[0]
    assert capsys.readouterr().err == f"{said}\n"
    assert again.network == read.network
    assert again.quantisation != read.quantisation
    path.rename(model.with_suffix(".safetensors"))
    assert checkpoint_path(str(model)) == found


def test_commands_work_at_the_size_of_the_model(model, tmp_path, capsys):
    path, out = tmp_path / "ours.safetensors", tmp_path / "out"
    of_another_size(path)
    common = ["--model", str(model), "--checkpoint", str(path)]
    for command in (
        ["compile", *common, "--board", "ulx3s-85f", "-o", f"{out}.img"],
        ["calibrate", *common, "-o", f"{out}.safetensors", "--limit", "2"],
        ["run", *common, "--backend", "float", "--limit", "1", "--json", f"{out}.json"],
    ):
        assert cli.main(command) == 0
        assert "taken for 64 x 64" in capsys.readouterr().err
    image = parse(Path(f"{out}.img").read_bytes(), ULX3S_85F)
    assert image.info.input_shape == (64, 64, 3)
    assert read_info(f"{out}.safetensors").network.input_size == (64, 64)


@pytest.mark.parametrize(
    "command",
    [
        ["compile", "-o", "x.img"],
        ["sim"],
        ["bitstream"],
        ["run", "--backend", "integer"],
        ["run", "--backend", "golden"],
        ["eval", "--arith", "float"],
        ["bench"],
        ["bench", "golden"],
        ["bench", "board-sim"],
        ["calibrate", "-o", "x.safetensors"],
    ],
    ids=" ".join,
)
def test_every_command_refuses_another_network(command, tmp_path, monkeypatch, capsys):
    def compiled(*_, **__):
        raise AssertionError("compiled")

    monkeypatch.setattr("compiler.pipeline.compile_network", compiled)
    monkeypatch.chdir(tmp_path)
    path = MODELS / "tiny.safetensors"
    more = ["--model", "resnet18-imagenet", "--checkpoint", str(path)]
    assert cli.main([*command, *more]) == 1
    assert "whose input_channels is 3, not 1: give another" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_released_one_is_imported_and_calibrated_once(model, released, typical, monkeypatch):
    assert refused(str(model), released) == (
        f"Checkpoint {released} has no scales of the residual stream: name a few hundred typical "
        f"images with --calibration (.npz, .png or a folder)"
    )
    path = checkpoint_path(str(model), released, typical)
    info, _ = read_checkpoint(path)
    assert info.network.name == "mine"
    assert info.quantisation is not None
    # Floating point needs no scales.
    bare = checkpoint_path(str(model), released, calibrated=False)
    assert read_checkpoint(bare, calibrated=False)[0].quantisation is None
    assert {file.name for file in checkpoints.CACHE.iterdir()} == {path.name, bare.name}

    def fail(*_):
        raise AssertionError("made again")

    monkeypatch.setattr("rbonn_train.released.import_released", fail)
    monkeypatch.setattr("rbonn_train.calibrate.calibrate", fail)
    assert checkpoint_path(str(model), released, typical) == path


def test_the_checkpoint_is_refused_before_its_images(model, released, tmp_path):
    np.savez(tmp_path / "small.npz", images=images(2)[:, ::2, ::2])
    with pytest.raises(UserError, match=r"^Images must be 64 x 64 x 3 .* not 32 x 32 x 3"):
        checkpoint_path(str(model), released, tmp_path / "small.npz")
    with pytest.raises(
        ValueError, match=r"^Tensor conv1\.weight must have shape \(32, 1, 3, 3\) for "
    ):
        checkpoint_path("fmnist-s", released, tmp_path / "small.npz")


def test_weights_of_zero_are_told_of(model, released, typical, capsys):
    checkpoint_path(str(model), released, typical)
    assert capsys.readouterr().err == ""
    state = authors().state_dict()
    state["layer1.0.binary_conv.weight"][0, 0, 0, :2] = 0
    torch.save(state, released)
    checkpoint_path(str(model), released, typical)
    assert capsys.readouterr().err == (
        "theirs.pth.tar: 2 binary weights are exactly 0; they count as +1, in the original as 0\n"
    )


@pytest.mark.parametrize("name", ["a.pth.tar", "a.pth", "a.pt", "A.PTH"])
def test_released_files_are_known_by_their_names(name):
    assert checkpoints.is_released(Path(name))
    assert not checkpoints.is_released(Path(name).with_suffix(".safetensors"))


def test_calibrating_a_released_one_needs_its_model_and_images(model, released, tmp_path, capsys):
    command = ["calibrate", "--checkpoint", str(released), "-o", str(tmp_path / "x.safetensors")]
    assert cli.main(command) == 1
    assert capsys.readouterr().err == (
        f"rbonn: error: Checkpoint {released} needs --model, the network that it is of: for "
        f"example resnet18-imagenet\n"
    )
    assert cli.main([*command, "--model", str(model)]) == 1
    assert capsys.readouterr().err == (
        f"rbonn: error: Checkpoint {released} needs --calibration: a few hundred images of the "
        f"kind that it was trained on (.npz, .png or a folder)\n"
    )
    assert not (tmp_path / "x.safetensors").exists()


def test_other_images_or_another_file_are_imported_anew(model, released, typical, tmp_path):
    first = checkpoint_path(str(model), released, typical)
    np.savez(typical, images=images(6) // 2)
    second = checkpoint_path(str(model), released, typical)
    state = authors().state_dict()
    state["fc.bias"] += 1
    torch.save(state, tmp_path / "other.pth")
    third = checkpoint_path(str(model), tmp_path / "other.pth", typical)
    assert len({first, second, third}) == 3


def test_a_failed_import_leaves_nothing(model, released, typical):
    state = authors().state_dict()
    del state["fc.bias"]
    torch.save(state, released)
    with pytest.raises(ValueError, match=r"must have the tensor fc\.bias"):
        checkpoint_path(str(model), released, typical)
    assert not list(checkpoints.CACHE.glob("*"))


def test_seeded_weights_stand_in_where_the_model_says_so(model, capsys):
    with model.open("a") as file:
        file.write("untrained_seed: 3\n")
    path = checkpoint_path(str(model))
    assert read_checkpoint(path)[0].untrained
    assert "UNTRAINED" in capsys.readouterr().err
    before = path.stat().st_mtime_ns
    assert checkpoint_path(str(model)).stat().st_mtime_ns == before


def test_what_seeded_weights_made_says_untrained(model, released, typical, tmp_path, capsys):
    with model.open("a") as file:
        file.write("untrained_seed: 3\n")
    out = tmp_path / "x.img"
    command = ["compile", "--model", str(model), "--board", "ulx3s-85f", "--source", "link"]
    command += ["-o", str(out)]
    assert cli.main(command) == 0
    assert capsys.readouterr().out.endswith(" for ulx3s-85f, UNTRAINED\n")
    assert json.loads(out.with_suffix(".json").read_text())["untrained"] is True
    assert cli.main([*command, "--checkpoint", str(released), "--calibration", str(typical)]) == 0
    assert capsys.readouterr().out.endswith(" for ulx3s-85f\n")
    assert json.loads(out.with_suffix(".json").read_text())["untrained"] is False


def test_a_file_of_seeded_weights_says_untrained(model, tmp_path, capsys, monkeypatch):
    """Given or beside the model; in what `rbonn bench` keeps as well."""
    path = tmp_path / "ours.safetensors"
    info, tensors = ours()
    write_checkpoint(path, dataclasses.replace(info, training={UNTRAINED: 0}), tensors)
    common = ["--model", str(model), "--checkpoint", str(path), "--board", "ulx3s-85f"]
    run = ["run", *common, "--backend", "golden", "--limit", "2"]
    said = f"{path}: seeded weights, UNTRAINED\n"
    assert cli.main(run) == 0
    captured = capsys.readouterr()
    assert captured.out.endswith(" over 2 images, UNTRAINED\n")
    assert captured.err == said
    bench = ["bench", "golden", *common, "--build", str(tmp_path / "build"), "--json", "-"]
    monkeypatch.setattr("host.commands.bench.golden_alone", lambda *_: {"golden_fps": 1.0})
    assert cli.main(bench) == 0
    captured = capsys.readouterr()
    assert captured.err == said
    assert json.loads(captured.out)["untrained"] is True
    assert kept_benches(tmp_path / "build") == [json.loads(captured.out)]
    out = tmp_path / "out.safetensors"
    calibrate = ["calibrate", "--checkpoint", str(path), "-o", str(out), "--limit", "2"]
    assert cli.main(calibrate) == 0
    assert capsys.readouterr().out.endswith(", UNTRAINED\n")
    monkeypatch.setattr(
        "rbonn_train.evaluate.evaluate", lambda *_, **__: {"accuracy": 0, "images": 5}
    )
    evaluate = ["eval", "--model", str(model), "--arith", "float"]
    assert cli.main([*evaluate, "--checkpoint", str(path)]) == 0
    assert capsys.readouterr().out == "accuracy: 0.0000 over 5 images, UNTRAINED\n"
    # Beside the model; and weights that have been trained are not called so.
    path.rename(model.with_suffix(".safetensors"))
    assert cli.main(evaluate) == 0
    assert capsys.readouterr().err == said.replace("ours.", "mine.")
    write_checkpoint(model.with_suffix(".safetensors"), info, tensors)
    assert cli.main(evaluate) == 0
    assert capsys.readouterr() == ("accuracy: 0.0000 over 5 images\n", "")
    assert cli.main(["run", "--model", str(model), "--backend", "float", "--limit", "2"]) == 0
    assert capsys.readouterr().out.endswith(" over 2 images\n")


def test_accuracy_is_not_that_of_another_data_set(model, capsys):
    run = ["run", "--model", str(model), "--backend", "float", "--limit", "2"]
    with model.open("a") as file:
        file.write("untrained_seed: 3\n")
    assert cli.main(run) == 0
    assert "accuracy" in capsys.readouterr().out  # seven classes may be Fashion-MNIST's
    model.write_text(model.read_text().replace("classes: 7", "classes: 20"))
    assert cli.main(run) == 0
    assert "accuracy" not in capsys.readouterr().out


def test_commands_take_released_checkpoints(model, released, typical, tmp_path, capsys):
    common = ["--model", str(model), "--checkpoint", str(released)]
    out = tmp_path / "ours.safetensors"
    options = ["--checkpoint", str(released), "--model", str(model), "-o", str(out)]
    assert cli.main(["calibrate", *options, "--calibration", str(typical)]) == 0
    imported = checkpoint_path(str(model), released, typical)
    calibrated = load_file(out)
    for name, value in load_file(imported).items():
        assert np.array_equal(calibrated[name], value)
    classes = []
    for backend in ("float", "integer"):
        more = ["--backend", backend, "--images", str(typical), "--json", str(tmp_path / backend)]
        calibration = ["--calibration", str(typical)] if backend == "integer" else []
        assert cli.main(["run", *common, *more, *calibration]) == 0
        classes.append(capsys.readouterr().out)
    assert cli.main(["run", *common, "--backend", "integer", "--images", str(typical)]) == 1
    assert "name a few hundred typical images with --calibration" in capsys.readouterr().err
