"""The command line as other tools see it: exit status, one line of error, JSON."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from host import cli, numbers
from host.errors import describe
from isa.checkpoint import write_checkpoint
from isa.folding import fold_network
from isa.geometry import TINY
from isa.image import HEADER_WORDS, parse
from rbonn_train.data import Dataset
from rbonn_train.integer import IntegerNetwork
from tests.networks import random_checkpoint, random_frames, small_network, write_model

NETWORK = small_network("odd-channels")
FRAMES = random_frames(NETWORK, 4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A random network as model, checkpoint and image, and frames for it."""
    path = tmp_path_factory.mktemp("cli")
    model = write_model(path / "net.yaml", NETWORK)
    write_checkpoint(path / "net.safetensors", *random_checkpoint(NETWORK))
    np.savez(path / "frames.npz", images=FRAMES, labels=np.arange(len(FRAMES)))
    status = cli.main(
        [
            *("compile", "--model", model, "--checkpoint", str(path / "net.safetensors")),
            *("--board", "tiny", "-o", str(path / "net.img")),
        ]
    )
    assert status == 0
    return path


def fails(capsys, *arguments, status=1):
    """Runs a command that must fail with one line on stderr; returns that line."""
    assert cli.main([str(argument) for argument in arguments]) == status
    captured = capsys.readouterr()
    lines = captured.err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("rbonn: error: ")
    return lines[0].removeprefix("rbonn: error: ")


def test_compile_writes_image_and_json(folder):
    image = parse((folder / "net.img").read_bytes(), TINY)
    assert image.info.name == "odd-channels"
    report = json.loads((folder / "net.json").read_text())
    assert report["image"]["bytes"] == (folder / "net.img").stat().st_size
    assert report["estimate"]["cycles"] > 0
    # Nothing temporary stays behind.
    assert {p.name for p in folder.iterdir()} >= {"net.img", "net.json"}
    assert not [p for p in folder.iterdir() if p.name.startswith(".")]


def test_run_gives_the_same_integers_from_model_and_image(folder, capsys):
    base = ["run", "--images", f"{folder}/frames.npz", "--board", "tiny"]
    model = ["--model", f"{folder}/net.yaml", "--checkpoint", f"{folder}/net.safetensors"]
    found = {}
    for name, arguments in {
        "integer": [*model, "--backend", "integer"],
        "golden": [*model, "--backend", "golden"],
        "image": ["--image-file", f"{folder}/net.img", "--backend", "golden"],
    }.items():
        assert cli.main([*base, *arguments, "--json", f"{folder}/{name}.json"]) == 0
        found[name] = json.loads((folder / f"{name}.json").read_text())
    assert found["integer"] == found["golden"] == found["image"]
    logits = np.array(found["golden"]["logits"])
    assert logits.shape == (len(FRAMES), NETWORK.classes)
    assert found["golden"]["classes"] == logits.argmax(axis=1).tolist()
    assert found["golden"]["cycles"] == [None] * len(FRAMES)
    assert "frames.npz[0]: class " in capsys.readouterr().out


def test_float_is_near_the_integers(folder, capsys):
    arguments = ["run", "--images", f"{folder}/frames.npz", "--model", f"{folder}/net.yaml"]
    arguments += ["--checkpoint", f"{folder}/net.safetensors"]
    arguments += ["--backend", "float", "--json", "-", "--limit", "2"]
    assert cli.main(arguments) == 0
    captured = capsys.readouterr()
    result = json.loads(captured.out)  # nothing else on stdout
    assert np.array(result["logits"]).shape == (2, NETWORK.classes)
    assert isinstance(result["logits"][0][0], float)


def test_the_geometry_of_an_image_file_is_its_own(folder, capsys):
    # The default board is another one, and only counts if it is asked for.
    arguments = ["run", "--image-file", f"{folder}/net.img", "--backend", "golden"]
    arguments += ["--images", f"{folder}/frames.npz"]
    assert cli.main(arguments) == 0
    capsys.readouterr()
    line = fails(capsys, *arguments, "--board", "ulx3s-25f")
    assert "Image must be compiled for geometry ulx3s-25f" in line
    assert line.startswith(f"{folder}/net.img: ")


def damage(folder, change):
    raw = bytearray((folder / "net.img").read_bytes())
    (folder / "bad.img").write_bytes(change(raw))
    return folder / "bad.img"


def flip(raw, position):
    raw[position] ^= 0x10
    return raw


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda raw: raw[:-8], "truncated?"),
        (lambda raw: raw[:10], "truncated?"),
        (lambda raw: b"", "truncated?"),
        (lambda raw: flip(raw, 0), "Image must begin with 0x4e4e4252 ('RBNN')"),
        (lambda raw: flip(raw, 20), "Image header must match its CRC-32"),
        (lambda raw: flip(raw, 4 * HEADER_WORDS), "must match its CRC-8"),
        (lambda raw: flip(raw, 4 * HEADER_WORDS + 4), "Image frame must match its CRC-32"),
        (lambda raw: raw + b"xx", "whole number of 32-bit words"),
    ],
)
def test_bad_images(folder, capsys, change, words):
    path = damage(folder, change)
    line = fails(capsys, "run", "--image-file", path, "--backend", "golden", "--board", "tiny")
    assert line.startswith(f"{path}: ")
    assert words in line


def test_missing_files(folder, capsys):
    line = fails(capsys, "run", "--image-file", "no.img", "--backend", "golden")
    assert line == "Image must be a readable file, not no.img: No such file or directory"
    line = fails(
        capsys, "run", "--model", "tiny", "--backend", "golden", "--checkpoint", "no.safetensors"
    )
    assert line == "Checkpoint must be an existing file, not no.safetensors"
    run = ["run", "--image-file", folder / "net.img", "--backend", "golden"]
    line = fails(capsys, *run, "--images", "no.npz")
    assert line == "Images must be an existing .npz or .png file or a folder, not no.npz"


def test_broken_checkpoint(folder, capsys):
    raw = (folder / "net.safetensors").read_bytes()
    (folder / "cut.safetensors").write_bytes(raw[: len(raw) // 2])
    (folder / "junk.safetensors").write_bytes(b"hello")
    for name in ("cut", "junk"):
        path = folder / f"{name}.safetensors"
        line = fails(
            capsys, "compile", "--model", "tiny", "--checkpoint", path, "-o", folder / "x.img"
        )
        assert line.startswith(f"Checkpoint {path} must be a safetensors file")
    assert not (folder / "x.img").exists()


@pytest.mark.parametrize("name", ["integer", "golden"])
def test_nan_in_a_checkpoint(folder, tmp_path, capsys, name):
    from safetensors.numpy import load, save

    info, tensors = random_checkpoint(NETWORK)
    write_checkpoint(tmp_path / "x.safetensors", info, tensors)
    tensors["blocks.0.bias1"][3] = np.nan
    raw = (tmp_path / "x.safetensors").read_bytes()
    assert "blocks.0.bias1" in load(raw)
    (tmp_path / "x.safetensors").write_bytes(save(tensors, metadata={"rbonn": info.to_json()}))
    line = fails(
        capsys, "run", "--model", folder / "net.yaml", "--checkpoint", tmp_path / "x.safetensors",
        "--backend", name,
    )  # fmt: skip
    assert "Tensor blocks.0.bias1 must be finite, not NaN or infinite in 1 of " in line


def test_images_of_the_wrong_size(folder, capsys):
    np.savez(folder / "small.npz", images=FRAMES[:, :4])
    run = ["run", "--image-file", folder / "net.img", "--backend", "golden"]
    line = fails(capsys, *run, "--images", folder / "small.npz")
    assert line == (
        "Images must be 8 x 8 x 3 (height x width x channels) for this network, not 4 x 8 x 3: "
        f"{folder}/small.npz"
    )


def test_unknown_names(capsys):
    line = fails(capsys, "run", "--model", "resnet", "--backend", "golden")
    assert line.startswith("Model must be one of ")
    assert line.endswith(", not 'resnet'")
    line = fails(capsys, "compile", "--model", "tiny", "--board", "de10", "-o", "x.img")
    assert line == "Board must be one of tiny, ulx3s-25f, ulx3s-85f, not 'de10'"
    line = fails(capsys, "bitstream", "--model", "tiny", "--board", "tiny")
    assert line == "Board must be one of ulx3s-25f, ulx3s-85f, not 'tiny'"


def test_a_network_too_large_for_a_board(capsys, tmp_path):
    """The model's source is its own board's: this one has no SDRAM."""
    out = tmp_path / "x.img"
    line = fails(capsys, "compile", "--model", "resnet18", "--board", "ulx3s-25f", "-o", str(out))
    assert line.startswith("Weight ring must fit 512 128-bit words of geometry ulx3s-25f, not 576 ")
    assert line.endswith("; the smallest known geometry that fits is ulx3s-85f")
    assert not out.exists()


@pytest.mark.parametrize(
    ("board", "source", "there"),
    [("ulx3s-25f", "sdram", "ram or link"), ("ulx3s-85f", "ram", "link or sdram")],
)
def test_sources_that_a_board_has_not(capsys, tmp_path, board, source, there):
    arguments = ["--model", "tiny", "--board", board, "--source", source]
    line = fails(capsys, "compile", *arguments, "-o", str(tmp_path / "x.img"))
    assert line == f"Source must be {there} on {board}, not {source}"
    line = fails(capsys, "run", "--model", "tiny", "--backend", "gpu")
    assert line == "Backend must be float, integer, golden, rtl or serial:PORT, not 'gpu'"
    line = fails(capsys, "run", "--backend", "golden")
    assert line == "Give either --model or --image-file"


def test_wrong_usage(capsys):
    assert "invalid choice: 'fly'" in fails(capsys, "fly", status=2)
    line = fails(capsys, "compile", "--model", "tiny", status=2)
    assert line == "the following arguments are required: -o (see `rbonn compile --help`)"
    fails(capsys, "train", "--model", "tiny", "--epochs", "0", status=2)


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_every_command_has_help(capsys, command):
    with pytest.raises(SystemExit) as caught:
        cli.main([command, "--help"])
    assert caught.value.code == 0
    assert f"usage: rbonn {command}" in capsys.readouterr().out


def test_missing_data_set(tmp_path, folder, capsys):
    line = fails(
        capsys, "eval", "--model", folder / "net.yaml", "--checkpoint", folder / "net.safetensors",
        "--arith", "integer", "--data", tmp_path,
    )  # fmt: skip
    assert f"Fashion-MNIST must be in {tmp_path}" in line
    assert "apt-get install dataset-fashion-mnist" in line


def test_accuracy_of_the_golden_model(folder, capsys, monkeypatch):
    """The same as of the integers, on labels of which some are wrong; not that of all of them."""
    monkeypatch.setattr("rbonn_train.data.load_split", lambda *_: Dataset(FRAMES, labels))
    monkeypatch.setattr("rbonn_train.evaluate.load_split", lambda *_: Dataset(FRAMES, labels))
    labels = IntegerNetwork(fold_network(*random_checkpoint(NETWORK)))(FRAMES).numpy().argmax(1)
    labels[0] = (labels[0] + 1) % NETWORK.classes
    found = {}
    for arith in ("integer", "golden"):
        arguments = ["eval", "--model", f"{folder}/net.yaml"]
        arguments += ["--checkpoint", f"{folder}/net.safetensors"]
        assert cli.main([*arguments, "--board", "tiny", "--arith", arith, "--json", "-"]) == 0
        found[arith] = json.loads(capsys.readouterr().out)
    accuracy = round((len(FRAMES) - 1) / len(FRAMES), 6)
    assert found["golden"] == found["integer"] == {"accuracy": accuracy, "images": len(FRAMES)}


def test_bench_of_rounding(folder, tmp_path, capsys, monkeypatch):
    labels = np.zeros(len(FRAMES), np.int64)
    monkeypatch.setattr("rbonn_train.evaluate.load_split", lambda *_: Dataset(FRAMES, labels))
    monkeypatch.setattr("rbonn_train.evaluate.CLASSES", NETWORK.classes)
    monkeypatch.setattr("rbonn_train.evaluate.fit_images", lambda images, network: images)
    files = ["--model", f"{folder}/net.yaml", "--checkpoint", f"{folder}/net.safetensors"]
    assert cli.main(["bench", "rounding", *files, "--json", "-", "--build", str(tmp_path)]) == 0
    captured = capsys.readouterr()
    result = json.loads(captured.out)
    classes = IntegerNetwork(fold_network(*random_checkpoint(NETWORK)))(FRAMES).numpy().argmax(1)
    assert result["integer"] == round(float((classes == 0).mean()), 6)
    assert result["images"] == len(FRAMES)
    assert f"integer {result['integer']:.2%} of {len(FRAMES)} images" in captured.err
    assert "images change their class" in captured.err
    assert numbers.kept_benches(tmp_path) == [result]


def test_bench_of_the_golden_model(tmp_path, capsys):
    arguments = ["bench", "golden", "--model", "tiny", "--board", "tiny", "--json", "-"]
    assert cli.main([*arguments, "--build", str(tmp_path)]) == 0
    captured = capsys.readouterr()
    result = json.loads(captured.out)
    assert (result["model"], result["board"], result["threads"]) == ("tiny", "tiny", 2)
    assert min(result[key] for key in ("golden_fps", "golden_ms", "float_fps")) > 0
    ratio = result["golden_fps"] / result["float_fps"]
    assert result["golden_over_float"] == pytest.approx(ratio, rel=0.01)
    assert f"golden over float: {result['golden_over_float']:.2f}" in captured.err
    assert numbers.kept_benches(tmp_path) == [result]
    assert result["torch"] == torch.__version__
    assert fails(capsys, "bench") == "Give the --model to measure"


def test_output_that_cannot_be_written(folder, capsys):
    (folder / "file").write_text("")
    line = fails(
        capsys, "run", "--image-file", folder / "net.img", "--backend", "golden",
        "--images", folder / "frames.npz", "--json", folder / "file" / "x.json",
    )  # fmt: skip
    assert "file" in line


def test_interrupt_is_clean(monkeypatch, capsys):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("host.commands.run.checkpoint_of", interrupt)
    line = fails(capsys, "run", "--model", "tiny", "--backend", "golden", status=130)
    assert line == "interrupted"


def test_a_bug_is_called_one(monkeypatch, capsys):
    def bug(*_):
        raise TypeError("no\nway")

    monkeypatch.setattr("host.commands.run.checkpoint_of", bug)
    arguments = ["run", "--model", "tiny", "--backend", "golden"]
    line = fails(capsys, *arguments)
    assert line == "internal error, please report it (--debug shows where): TypeError: no way"
    assert cli.main([*arguments, "--debug"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_description_of_errors():
    assert describe(FileNotFoundError(2, "No such file", "a.txt")) == "a.txt: No such file"
    assert describe(ValueError("one\n  two")) == "one two"
    assert describe(ValueError()).startswith("internal error")


def test_nothing_heavy_is_imported_before_a_command_needs_it():
    script = (
        "import sys; from host import cli; cli.build_parser();"
        "print([m for m in ('torch', 'numba', 'amaranth_boards', 'cocotb', 'pyosys', 'serial')"
        " if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
