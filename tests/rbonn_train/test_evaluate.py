"""Inference and calibration as the command line calls them."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from isa.checkpoint import CheckpointError, read_checkpoint, write_checkpoint
from isa.folding import fold_network
from isa.network import Quantisation
from rbonn_train import evaluate as module
from rbonn_train.calibrate import best_scales, calibrate
from rbonn_train.checkpoint import load_model
from rbonn_train.data import DataError, Dataset, load_shipped, to_tensor
from rbonn_train.evaluate import evaluate, predict
from rbonn_train.integer import IntegerNetwork
from tests.networks import random_checkpoint, random_frames, small_network


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "plain.safetensors"
    write_checkpoint(path, *random_checkpoint(small_network("plain")))
    return path


def test_predict_integers(path: Path) -> None:
    images = random_frames(small_network("plain"), 5)
    network = IntegerNetwork(fold_network(*read_checkpoint(path)))
    logits, layers = predict(path, images)
    assert logits.dtype == np.int64
    assert logits.tolist() == network(images).tolist()
    assert layers == {}
    again, layers = predict(path, images, "integer", layers=True)
    assert again.tolist() == logits.tolist()
    assert list(layers) == ["stem", "blocks.0", "blocks.1", "fc"]


def test_predict_refuses(path: Path) -> None:
    images = random_frames(small_network("plain"), 2)
    with pytest.raises(ValueError) as error:
        predict(path, images, "fixed")
    assert str(error.value) == "Arithmetic must be one of float, integer, not 'fixed'"
    with pytest.raises(DataError, match="Images of plain must be uint8 of shape N x 8 x 8 x 1"):
        predict(path, images[:, :7])
    with pytest.raises(CheckpointError, match="must be an existing file"):
        predict(path.with_name("none.safetensors"), images)


@pytest.mark.parametrize("arith", ["float", "integer"])
def test_evaluate_counts_the_whole_test_set(
    arith: str, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = dataclasses.replace(small_network("plain"), classes=10)
    write_checkpoint(path, *random_checkpoint(network))
    images = np.random.default_rng(0).integers(0, 256, (300, 28, 28, 1), np.uint8)
    small = module.fit_images(images, network)
    logits, _ = predict(path, small, arith)
    labels = logits.argmax(axis=1)
    labels[:75] = (labels[:75] + 1) % 10

    def load(split: str, data: Path | None) -> Dataset:
        assert (split, data) == ("test", tmp_path)
        return Dataset(images, labels)

    monkeypatch.setattr(module, "load_split", load)
    assert evaluate(path, arith, tmp_path) == {"accuracy": 0.75, "images": 300}


def test_rounding_counts_what_changes(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = dataclasses.replace(small_network("plain"), classes=10)
    info, tensors = random_checkpoint(network)
    write_checkpoint(path, info, tensors)
    images = np.random.default_rng(0).integers(0, 256, (600, 8, 8, 1), np.uint8)
    model = load_model(info, tensors)
    found = {"float": model.logits(to_tensor(images)).argmax(1).numpy()}
    model.quantise(info.quantisation)
    found["simulated"] = model.logits(to_tensor(images)).argmax(1).numpy()
    found["integer"] = predict(path, images)[0].argmax(1)
    labels = np.where(np.arange(600) % 2, found["float"], found["integer"])
    labels[::7] = (labels[::7] + 1) % 10
    monkeypatch.setattr(module, "load_split", lambda *_: Dataset(images, labels))
    monkeypatch.setattr(module, "fit_images", lambda images, network: images)

    result = module.rounding(path)
    right = {name: set(np.flatnonzero(found[name] == labels)) for name in found}
    assert result["images"] == 600
    assert {name: result[name] for name in found} == {
        name: round(len(hits) / 600, 6) for name, hits in right.items()
    }
    for a, b in (("float", "integer"), ("simulated", "integer")):
        assert result[f"{a}_to_{b}"] == {
            "changed": sum(found[a] != found[b]),
            "lost": len(right[a] - right[b]),
            "won": len(right[b] - right[a]),
        }
    assert min(result["float_to_integer"].values()) > 0


@pytest.mark.parametrize("classes", [3, 11])
def test_evaluate_refuses_a_network_of_other_classes(classes: int, tmp_path: Path) -> None:
    network = dataclasses.replace(small_network("plain"), classes=classes)
    write_checkpoint(tmp_path / "a.safetensors", *random_checkpoint(network))
    with pytest.raises(DataError) as error:
        evaluate(tmp_path / "a.safetensors", "float")
    assert str(error.value) == (
        f"Network plain must have the 10 classes of Fashion-MNIST, not {classes}: measure it with "
        f"`rbonn run` on labelled --images of its own"
    )


@pytest.mark.parametrize("arith", ["float", "integer"])
def test_batches_do_not_change_logits(
    path: Path, arith: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = random_frames(small_network("plain"), 5)
    expected, _ = predict(path, images, arith)
    monkeypatch.setattr("rbonn_train.data.MAP_VALUES", 2 * 8 * 64)  # two images at once
    found, _ = predict(path, images, arith)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_calibration_of_a_network_without_scales(tmp_path: Path) -> None:
    shipped = Path(__file__).parents[2] / "models/tiny.safetensors"
    info, tensors = read_checkpoint(shipped)
    bare, out = tmp_path / "bare.safetensors", tmp_path / "out.safetensors"
    write_checkpoint(bare, type(info)(info.network, None, info.training, info.metrics), tensors)
    dataset = load_shipped(info.network)
    with pytest.raises(CheckpointError, match="must be calibrated"):
        predict(bare, dataset.images)
    npz = tmp_path / "images.npz"
    np.savez(npz, images=dataset.images[:100])
    assert calibrate(bare, npz, out) == out
    calibrated, same = read_checkpoint(out)
    assert calibrated.metrics == {}
    assert calibrated.training == info.training
    assert all(np.array_equal(same[name], tensors[name]) for name in tensors)
    assert out.stat().st_size < 1.5 * shipped.stat().st_size
    right = [
        (predict(p, dataset.images)[0].argmax(axis=1) == dataset.labels).mean()
        for p in (shipped, out)
    ]
    assert right[1] > right[0] - 0.03


def test_calibration_refuses_images_that_do_not_fit(path: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="must be uint8 of shape N x 8 x 8 x 1"):
        calibrate(path, np.zeros((2, 9, 9, 1), np.uint8), tmp_path / "x")
    with pytest.raises(ValueError, match="Images for calibration must be at least one, not none"):
        calibrate(path, np.zeros((0, 8, 8, 1), np.uint8), tmp_path / "x")


def test_best_scales_change_the_logits_least() -> None:
    info, tensors = read_checkpoint(Path(__file__).parents[2] / "models/tiny.safetensors")
    model = load_model(info, tensors)
    images = to_tensor(load_shipped(info.network).images)
    exact = model.logits(images)
    coarse = Quantisation(1.0, dict.fromkeys(info.quantisation.exponents, 0))

    def error(scales: Quantisation) -> float:
        model.quantise(scales)
        return float((model.logits(images) - exact).square().mean())

    before = error(coarse)
    chosen = best_scales(model, images)
    assert model.quantisation == coarse
    assert error(chosen) < 0.2 * before
    model.quantise(chosen)
    assert error(best_scales(model, images)) <= error(chosen)
