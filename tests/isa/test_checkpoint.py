"""Checkpoint files: what is read is what was written, and what is refused, word for word.

The training's own use of these functions, and interrupted writes, are in tests/rbonn_train.
"""

import dataclasses
import json
import math

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import isa.checkpoint
from isa.checkpoint import (
    CheckpointError,
    binary_weights,
    check_checkpoint,
    compact,
    pack_signs,
    read_checkpoint,
    read_info,
    unpack_signs,
    write_atomically,
    write_checkpoint,
    write_json_atomically,
)
from isa.network import Quantisation
from tests.networks import random_checkpoint, small_network

INFO, TENSORS = random_checkpoint(small_network("odd-channels"))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "net.safetensors"


def refused(tensors=TENSORS, info=INFO, **options) -> str:
    with pytest.raises(CheckpointError) as error:
        check_checkpoint(info, tensors, **options)
    return str(error.value)


def scaled(scale=None, exponents=None):
    old = INFO.quantisation
    new = Quantisation(
        old.scale if scale is None else scale, old.exponents if exponents is None else exponents
    )
    return dataclasses.replace(INFO, quantisation=new)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_comes_back_as_float64(path, dtype):
    stored = {name: value.astype(dtype) for name, value in TENSORS.items()}
    write_checkpoint(path, INFO, stored)
    info, tensors = read_checkpoint(path)
    assert info == INFO
    assert set(tensors) == set(TENSORS)
    for name, value in tensors.items():
        assert value.dtype == np.float64
        np.testing.assert_array_equal(value, stored[name])


def test_signs_and_transposed_memory_come_back(path):
    name = "blocks.1.conv.weight"
    stored = TENSORS | {name: np.where(TENSORS[name] >= 0, 1, -1).astype(np.int8)}
    stored["fc.weight"] = np.asfortranarray(stored["fc.weight"])
    write_checkpoint(path, INFO, stored)
    tensors = read_checkpoint(str(path))[1]
    np.testing.assert_array_equal(tensors[name], stored[name])
    np.testing.assert_array_equal(tensors["fc.weight"], TENSORS["fc.weight"])


def test_tensors_that_are_refused():
    less = {k: v for k, v in TENSORS.items() if k not in ("fc.bias", "stem.bn.weight")}
    assert refused(less) == "Tensors must be complete; missing: fc.bias, stem.bn.weight"
    more = TENSORS | {"z": np.zeros(1), "a": np.zeros(1)}
    assert refused(more) == "Tensors must belong to the network; extra: a, z"
    assert refused(TENSORS | {"fc.bias": np.zeros((10, 1))}) == (
        "Tensor fc.bias must have shape (10,), not (10, 1)"
    )
    bad = TENSORS["fc.bias"].copy()
    bad[[0, 3, 4]] = math.nan, math.inf, -math.inf
    assert refused(TENSORS | {"fc.bias": bad}) == (
        "Tensor fc.bias must be finite, not NaN or infinite in 3 of 10 values"
    )
    bad = TENSORS["stem.bn.running_var"].copy()
    bad[1] = -1e-3
    assert refused(TENSORS | {"stem.bn.running_var": bad}) == (
        "Tensor stem.bn.running_var must not be negative, not -0.001"
    )
    zero = TENSORS | {"stem.bn.running_var": np.zeros(12)}
    check_checkpoint(INFO, zero)


@pytest.mark.parametrize("scale", [0.0, -1.0, math.nan, math.inf, "1", True, [1.0]])
def test_scales_that_are_refused(scale):
    message = f"Scale must be a positive number, not {scale!r}"
    assert refused(info=scaled(scale=scale)) == message


@pytest.mark.parametrize("scale", [1, 1e-9, np.float64(0.5)])
def test_scales_that_pass(scale):
    check_checkpoint(scaled(scale=scale), TENSORS)


def test_exponents_that_are_refused():
    good = dict(INFO.quantisation.exponents)
    names = "stem, blocks.0, blocks.1.shortcut, blocks.1, blocks.2"
    for exponent in (65, -65, 1.0, True, None):
        assert refused(info=scaled(exponents=good | {"blocks.1": exponent})) == (
            f"Exponent of blocks.1 must be an integer from -64 to 64, not {exponent!r}"
        )
    assert refused(info=scaled(exponents=good | {"fc": 0})) == (
        f"Exponents must be given for {names}, "
        "not for blocks.0, blocks.1, blocks.1.shortcut, blocks.2, fc, stem"
    )
    for limit in (64, -64):
        check_checkpoint(scaled(exponents=good | {"stem": limit}), TENSORS)


@pytest.mark.parametrize("exponents", [5, None, ["stem"], [1], "stem"])
def test_exponents_that_are_no_mapping(path, exponents):
    """They may stand in a file that something else wrote."""
    raw = json.loads(INFO.to_json())
    raw["quantisation"]["exponents"] = exponents
    save_file(TENSORS, path, metadata={"rbonn": json.dumps(raw)})
    with pytest.raises(CheckpointError, match=f"^Checkpoint {path}: .*must be"):
        read_checkpoint(path)


def test_without_scales(path):
    plain = dataclasses.replace(INFO, quantisation=None)
    write_checkpoint(path, plain, TENSORS)
    assert read_checkpoint(path, calibrated=False)[0] == plain
    message = (
        "Checkpoint must be calibrated, not without scales of the residual stream; "
        "run `rbonn calibrate`"
    )
    assert refused(info=plain) == message
    with pytest.raises(CheckpointError) as error:
        read_checkpoint(path)
    assert str(error.value) == f"Checkpoint {path}: {message}"


def test_other_files(path):
    with pytest.raises(CheckpointError) as error:
        read_checkpoint(path)
    assert str(error.value) == f"Checkpoint must be an existing file, not {path}"
    with pytest.raises(CheckpointError, match=r"^Checkpoint must be an existing file, not "):
        read_checkpoint(path.parent)
    path.write_bytes(b"\0" * 100)
    with pytest.raises(CheckpointError, match=f"^Checkpoint {path} must be a safetensors file: "):
        read_checkpoint(path)
    save_file(TENSORS, path, metadata={"other": "x"})
    with pytest.raises(CheckpointError) as error:
        read_checkpoint(path)
    assert str(error.value) == (
        f"Checkpoint {path} must have metadata under the key 'rbonn'; "
        "import other files with `rbonn calibrate`"
    )
    save_file(TENSORS | {"fc.bias": np.ones(10, bool)}, path, metadata={"rbonn": INFO.to_json()})
    with pytest.raises(CheckpointError) as error:
        read_checkpoint(path)
    assert str(error.value) == (
        f"Checkpoint {path}: Tensor fc.bias must be stored as one of F16, F32, F64, I8, not BOOL"
    )


def test_what_would_be_refused_is_not_written(path):
    with pytest.raises(CheckpointError):
        write_checkpoint(path, INFO, TENSORS | {"fc.bias": np.zeros(3)})
    integers = TENSORS | {"fc.bias": np.ones(10, np.int64)}
    with pytest.raises(CheckpointError) as error:
        write_checkpoint(path, INFO, integers)
    assert str(error.value) == (
        "Tensor fc.bias must be stored as one of float16, float32, float64, int8, not int64"
    )
    assert not list(path.parent.iterdir())


def test_atomic_writes(tmp_path):
    path = tmp_path / "new" / "x.json"
    write_json_atomically(path, {"b": [1], "a": "ü"})
    assert path.read_text() == '{\n "a": "\\u00fc",\n "b": [\n  1\n ]\n}\n'
    write_atomically(path, b"other")
    assert path.read_bytes() == b"other"
    assert path.stat().st_mode & 0o777 == 0o644
    assert [entry.name for entry in path.parent.iterdir()] == ["x.json"]


@pytest.mark.parametrize("moment", ["fsync", "chmod", "replace"])
@pytest.mark.parametrize("stop", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_write_that_is_cut_off_leaves_the_old_file(tmp_path, monkeypatch, moment, stop):
    """A process that is killed meanwhile: tests/rbonn_train/test_resume.py."""
    path = tmp_path / "x.json"
    write_atomically(path, b"old")

    def fails(*_):
        raise stop

    monkeypatch.setattr(isa.checkpoint.os, moment, fails)
    with pytest.raises(type(stop)):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


WEIGHT = "blocks.0.conv.weight"


def test_signs_are_stored_as_bits(path):
    weights = binary_weights(INFO.network)
    stored = {
        name: np.where(value >= 0, 1, -1).astype(np.int8) if name in weights else value
        for name, value in TENSORS.items()
    }
    write_checkpoint(path, INFO, stored)
    bits = load_file(path)
    for name in weights:
        assert bits[name].dtype == np.uint8
        assert bits[name].size == -(-stored[name].size // 8)
        first = int(stored[name].flat[0] > 0) + 2 * int(stored[name].flat[1] > 0)
        assert bits[name][0] & 3 == first
    _, tensors = read_checkpoint(path)
    for name, value in stored.items():
        assert np.array_equal(tensors[name], value), name


def test_a_number_of_signs_that_fills_no_bytes():
    signs = np.where(np.random.default_rng(0).random((5, 3, 3, 3)) < 0.5, 1, -1).astype(np.int8)
    bits = pack_signs(signs)
    assert bits.shape == (17,)  # 135 signs
    assert np.array_equal(unpack_signs("x", bits, signs.shape), signs)


def test_what_is_more_than_signs_is_kept(path):
    some = np.zeros_like(TENSORS[WEIGHT], np.int8)
    some.flat[::2] = -1
    write_checkpoint(path, INFO, TENSORS | {WEIGHT: some})
    assert np.array_equal(read_checkpoint(path)[1][WEIGHT], some)


def test_bits_of_another_shape_or_tensor(path):
    bits = pack_signs(np.ones(TENSORS[WEIGHT].shape, np.int8))

    def refuses(name, value) -> str:
        save_file(TENSORS | {name: value}, path, metadata={"rbonn": INFO.to_json()})
        with pytest.raises(CheckpointError) as error:
            read_checkpoint(path)
        return str(error.value).removeprefix(f"Checkpoint {path}: ")

    count = TENSORS[WEIGHT].size
    assert refuses(WEIGHT, bits[:-1]) == (
        f"Tensor {WEIGHT} must hold {count} signs in {bits.size} bytes, not bytes of shape "
        f"({bits.size - 1},)"
    )
    expected = "Tensor fc.bias must be stored as one of F16, F32, F64, I8, not U8"
    assert refuses("fc.bias", np.ones(10, np.uint8)) == expected


def test_compact_keeps_every_value() -> None:
    for values, dtype in (
        ([1.0, -1.0, 127.0], np.int8),
        ([1.0, 128.0], np.float32),
        ([0.5, 1e9], np.float32),
        ([0.1, 1.0], np.float64),
        ([1e300], np.float64),
    ):
        array = np.array(values)
        assert compact(array).dtype == dtype
        assert compact(array).tolist() == values


def test_the_metadata_alone(path):
    with pytest.raises(CheckpointError) as error:
        read_info(path)
    assert str(error.value) == f"Checkpoint must be an existing file, not {path}"
    write_checkpoint(path, INFO, TENSORS)
    assert read_info(path) == INFO
    save_file({"x": np.zeros(1)}, path, metadata={"rbonn": "{}"})
    with pytest.raises(CheckpointError) as error:
        read_info(path)
    assert str(error.value) == (
        f"Checkpoint {path}: Checkpoint metadata must be complete JSON, not 'format'"
    )
    save_file({"x": np.zeros(1)}, path)
    with pytest.raises(CheckpointError, match="must have metadata under the key 'rbonn'"):
        read_info(path)
    path.write_bytes(b"no")
    with pytest.raises(CheckpointError, match="must be a safetensors file"):
        read_info(path)
