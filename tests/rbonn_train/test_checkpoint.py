"""Checkpoint files: what they hold, what is refused and how, and that writing is atomic."""

import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

import isa.checkpoint
from isa.checkpoint import (
    CheckpointError,
    read_checkpoint,
    write_atomically,
    write_checkpoint,
    write_json_atomically,
)
from isa.network import CheckpointInfo, Network, Quantisation, tensor_shapes
from rbonn_train.checkpoint import export_tensors, load_frozen, load_model, save_model
from rbonn_train.config import load_model_yaml
from rbonn_train.data import Dataset, to_tensor
from rbonn_train.methods import METHODS, layer_maker
from rbonn_train.methods.base import binary_layers
from rbonn_train.network import BinaryNetwork
from rbonn_train.runs import resume
from rbonn_train.state import StateError


@pytest.fixture
def info(network: Network) -> CheckpointInfo:
    exponents = dict.fromkeys(network.residual_names(), -2)
    return CheckpointInfo(network, Quantisation(0.5, exponents), {"seed": 3})


@pytest.fixture
def tensors(network: Network) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        name: rng.uniform(0.1, 1, shape).astype(np.float32)
        for name, shape in tensor_shapes(network).items()
    }


def refused(info: CheckpointInfo, tensors: dict[str, np.ndarray], path: Path) -> str:
    """Stores without checks; the message with which reading refuses."""
    save_file(tensors, path, metadata={"rbonn": info.to_json()})
    with pytest.raises(CheckpointError) as error:
        read_checkpoint(path)
    text = str(error.value)
    assert text.startswith(f"Checkpoint {path}: ")
    return text.removeprefix(f"Checkpoint {path}: ")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.safetensors"


def test_round_trip(info: CheckpointInfo, tensors: dict[str, np.ndarray], path: Path) -> None:
    tensors["fc.bias"] = tensors["fc.bias"].astype(np.float16)
    tensors["stem.bn.bias"] = tensors["stem.bn.bias"].astype(np.float64)
    tensors["blocks.0.conv.weight"] = np.ones((8, 8, 3, 3), np.int8)
    tensors["fc.weight"] = np.asfortranarray(tensors["fc.weight"])
    write_checkpoint(path, info, tensors)
    read_info, read = read_checkpoint(path)
    assert read_info == info
    for name, value in tensors.items():
        assert read[name].dtype == np.float64
        np.testing.assert_array_equal(read[name], value)
    assert os.listdir(path.parent) == [path.name]


def test_missing_and_extra_tensors(
    info: CheckpointInfo, tensors: dict[str, np.ndarray], path: Path
) -> None:
    less = {k: v for k, v in tensors.items() if k not in ("fc.bias", "blocks.1.prelu")}
    assert refused(info, less, path) == (
        "Tensors must be complete; missing: blocks.1.prelu, fc.bias"
    )
    more = tensors | {"fc.scale": np.ones(1, np.float32)}
    assert refused(info, more, path) == "Tensors must belong to the network; extra: fc.scale"


def test_wrong_shape(info: CheckpointInfo, tensors: dict[str, np.ndarray], path: Path) -> None:
    tensors["fc.weight"] = tensors["fc.weight"].T.copy()
    assert refused(info, tensors, path) == "Tensor fc.weight must have shape (4, 16), not (16, 4)"


def test_values_that_are_no_numbers(
    info: CheckpointInfo, tensors: dict[str, np.ndarray], path: Path
) -> None:
    tensors["stem.bn.bias"][[1, 3]] = np.nan, np.inf
    assert refused(info, tensors, path) == (
        "Tensor stem.bn.bias must be finite, not NaN or infinite in 2 of 8 values"
    )
    tensors["stem.bn.bias"][:] = 0
    tensors["stem.bn.running_var"][2] = -0.25
    assert refused(info, tensors, path) == (
        "Tensor stem.bn.running_var must not be negative, not -0.25"
    )


def test_scales(info: CheckpointInfo, tensors: dict[str, np.ndarray], path: Path) -> None:
    plain = dataclasses.replace(info, quantisation=None)
    assert refused(plain, tensors, path) == (
        "Checkpoint must be calibrated, not without scales of the residual stream; "
        "run `rbonn calibrate`"
    )
    assert read_checkpoint(path, calibrated=False)[0].quantisation is None
    exponents = dict(info.quantisation.exponents)

    def message(scale: object, exponents: dict) -> str:
        changed = Quantisation(scale, exponents)  # type: ignore[arg-type]
        return refused(dataclasses.replace(info, quantisation=changed), tensors, path)

    assert message(0.0, exponents) == "Scale must be a positive number, not 0.0"
    assert message("x", exponents) == "Scale must be a positive number, not 'x'"
    assert message(1.0, exponents | {"stem": 1.5}) == (
        "Exponent of stem must be an integer from -64 to 64, not 1.5"
    )
    assert message(1.0, {"stem": 1}) == (
        "Exponents must be given for stem, blocks.0, blocks.1.shortcut, blocks.1, not for stem"
    )


def test_files_that_are_no_checkpoints(
    info: CheckpointInfo, tensors: dict[str, np.ndarray], path: Path
) -> None:
    with pytest.raises(CheckpointError) as error:
        read_checkpoint(path)
    assert str(error.value) == f"Checkpoint must be an existing file, not {path}"
    for content in (b"", b"PK\x03\x04" * 99):
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=f"Checkpoint {path} must be a safetensors file:"):
            read_checkpoint(path)
    write_checkpoint(path, info, tensors)
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(CheckpointError, match="must be a safetensors file"):
        read_checkpoint(path)
    save_file(tensors, path)
    with pytest.raises(CheckpointError, match="must have metadata under the key 'rbonn'"):
        read_checkpoint(path)
    save_file(tensors, path, metadata={"rbonn": "[1"})
    with pytest.raises(CheckpointError, match="metadata must be complete JSON"):
        read_checkpoint(path)
    text = info.to_json().replace('"format": 1', '"format": 9')
    save_file(tensors, path, metadata={"rbonn": text})
    with pytest.raises(CheckpointError, match="Checkpoint format must be 1, not 9"):
        read_checkpoint(path)


def test_other_types_are_refused(
    info: CheckpointInfo, tensors: dict[str, np.ndarray], path: Path
) -> None:
    tensors["fc.bias"] = np.ones(4, np.int64)
    expected = "Tensor fc.bias must be stored as one of F16, F32, F64, I8, not I64"
    assert refused(info, tensors, path) == expected


def test_an_interrupted_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.json"
    write_json_atomically(path, {"a": 1})
    old = path.read_bytes()

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    for step in ("fsync", "replace"):  # while writing, and just before the new file is in place
        with monkeypatch.context() as patch:
            patch.setattr(isa.checkpoint.os, step, interrupted)
            with pytest.raises(KeyboardInterrupt):
                write_atomically(path, b"new")
        assert path.read_bytes() == old
        assert os.listdir(tmp_path) == ["x.json"]
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new"


def test_a_broken_network_is_not_written(
    info: CheckpointInfo, tensors: dict[str, np.ndarray], path: Path
) -> None:
    tensors["fc.bias"][0] = np.nan
    with pytest.raises(CheckpointError, match=r"Tensor fc\.bias must be finite"):
        write_checkpoint(path, info, tensors)
    assert not path.exists()


@pytest.mark.parametrize("method", METHODS)
def test_a_module_comes_back(method: str, dataset: Dataset, path: Path) -> None:
    network = Network("back", (8, 8), 1, 4, (8, 16), (1, 1), (0.3,), (0.35,))
    model = BinaryNetwork(network, layer_maker(method))
    images = to_tensor(dataset.images)
    model(images)  # statistics
    model.eval()
    model.quantise(model.calibrate([images]))
    save_model(path, model, {"seed": 1}, {"accuracy_float": 0.5})
    model.quantise(None)
    info, tensors = read_checkpoint(path)
    assert info.quantisation is not None
    assert (info.training, info.metrics) == ({"seed": 1}, {"accuracy_float": 0.5})
    torch.testing.assert_close(load_model(info, tensors)(images), model(images))
    torch.testing.assert_close(load_frozen(info, tensors)(images), model(images))
    expected = torch.where(next(binary_layers(model)).decisive() >= 0, 1, -1)
    assert tensors["blocks.0.conv.weight"].tolist() == expected.tolist()


def test_real_weights_are_no_checkpoint(network: Network) -> None:
    with pytest.raises(TypeError) as error:
        export_tensors(BinaryNetwork(network))
    assert str(error.value) == "Layer blocks.0.conv.alpha must be binary, not RealConv2d"


def test_resnet18_is_small_and_cannot_be_resumed(tmp_path: Path) -> None:
    network = load_model_yaml("resnet18").network
    assert network.widths == (64, 128, 256, 512)
    path = tmp_path / "resnet18.safetensors"
    model = BinaryNetwork(network, layer_maker("plain"))
    save_model(path, model, {"curve": [{"loss": 0.12345}] * 100}, {})
    assert path.stat().st_size < 4_000_000
    tensors = read_checkpoint(path, calibrated=False)[1]
    last = list(binary_layers(model))[-1]
    signs = torch.where(last.weight >= 0, 1, -1)
    assert np.array_equal(tensors["blocks.15.conv.weight"], signs.numpy())
    with pytest.raises(StateError) as error:
        resume(path)
    assert str(error.value) == (
        f"File {path} holds what a network needs to run, not to go on training with: name the "
        f"folder of an interrupted run"
    )
