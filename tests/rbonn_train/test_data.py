"""Reading data sets and images; what is said when they are missing or broken."""

import dataclasses
import gzip
from pathlib import Path

import numpy as np
import pytest
import torch

from isa.network import Network
from isa.pixels import fit
from rbonn_train.data import (
    PIECE,
    DataError,
    augment,
    batch_size,
    check_images,
    fit_images,
    load_npz,
    load_shipped,
    load_split,
    to_tensor,
)


def idx(array: np.ndarray) -> bytes:
    sizes = b"".join(n.to_bytes(4, "big") for n in array.shape)
    return bytes((0, 0, 8, array.ndim)) + sizes + array.tobytes()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three training images gzipped, two test images plain."""
    rng = np.random.default_rng(0)
    for name, count in (("train", 3), ("t10k", 2)):
        images = rng.integers(0, 256, (count, 28, 28), np.uint8)
        for part, array in (
            ("images-idx3", images),
            ("labels-idx1", np.arange(count, dtype=np.uint8)),
        ):
            raw, path = idx(array), tmp_path / f"{name}-{part}-ubyte"
            if name == "train":
                path.with_name(path.name + ".gz").write_bytes(gzip.compress(raw))
            else:
                path.write_bytes(raw)
    return tmp_path


def test_gzipped_and_plain_files(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train = load_split("train", folder)
    assert train.images.shape == (3, 28, 28, 1)
    assert train.labels.tolist() == [0, 1, 2]
    monkeypatch.setenv("RBONN_DATA", str(folder))
    assert len(load_split("test")) == 2
    assert load_split("test").take(1).labels.tolist() == [0]


def test_missing_data_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DataError) as error:
        load_split("test", tmp_path)
    assert str(error.value) == (
        f"Fashion-MNIST must be in {tmp_path}, but t10k-images-idx3-ubyte[.gz] is missing there; "
        f"install it with `apt-get install dataset-fashion-mnist`, or name a folder of its files "
        f"with --data DIR or RBONN_DATA=DIR"
    )


def test_damaged_data(folder: Path) -> None:
    path = folder / "train-images-idx3-ubyte.gz"
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    with pytest.raises(DataError, match="must be readable, not damaged"):
        load_split("train", folder)
    path.write_bytes(gzip.compress(gzip.decompress(whole)[:-1]))
    with pytest.raises(DataError, match="must hold 2352 values, not 2351"):
        load_split("train", folder)
    path.write_bytes(gzip.compress(b"something else altogether"))
    with pytest.raises(DataError, match="must be an IDX file of uint8 with 3 axes"):
        load_split("train", folder)
    path.write_bytes(gzip.compress(idx(np.zeros((2, 28, 28), np.uint8))))
    with pytest.raises(DataError, match="one label per image, not 3 labels for 2 images"):
        load_split("train", folder)


def test_no_damaged_byte_is_an_internal_error(folder: Path, tmp_path: Path) -> None:
    """Whatever the decompression makes of it."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 9, (3, 28, 28, 1), np.uint8)
    np.savez_compressed(tmp_path / "x.npz", images=images)
    for path in (folder / "train-images-idx3-ubyte.gz", tmp_path / "x.npz"):
        whole, refused = path.read_bytes(), 0
        for place in rng.integers(0, len(whole), 60):
            damaged = bytearray(whole)
            damaged[place] ^= 0x55
            path.write_bytes(damaged)
            try:
                load_npz(path) if path.suffix == ".npz" else load_split("train", folder)
            except DataError:
                refused += 1
        assert refused > 30
        path.write_bytes(whole)


def test_npz_files(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    np.savez(path, images=np.zeros((2, 4, 4, 1), np.uint8))
    images, labels = load_npz(path)
    assert images.shape == (2, 4, 4, 1)
    assert labels is None
    np.savez(path, pictures=images)
    with pytest.raises(DataError, match="must have an array named images"):
        load_npz(path)
    path.write_bytes(b"PK\x03\x04 no")
    with pytest.raises(DataError, match="must be a readable npz file"):
        load_npz(path)


def test_shipped_images() -> None:
    shipped = load_shipped()
    assert shipped.images.shape == (500, 28, 28, 1)
    assert shipped.images.dtype == np.uint8
    assert shipped.labels[:5].tolist() == [9, 2, 1, 1, 6]
    assert np.bincount(shipped.labels).min() > 30


def test_images_are_made_to_fit(network: Network) -> None:
    assert load_shipped(network).images.shape == (500, 8, 8, 1)
    pixels = load_shipped().images[:3]
    assert np.array_equal(fit_images(pixels, network), fit(pixels, (8, 8, 1)))
    many = np.random.default_rng(0).integers(0, 256, (PIECE + 1, 5, 6, 1), dtype=np.uint8)
    assert np.array_equal(fit_images(many, network), fit(many, (8, 8, 1)))


def test_images_of_the_wrong_kind(network: Network) -> None:
    with pytest.raises(DataError, match="must be N x H x W x 1, not of shape"):
        fit_images(np.zeros((1, 8, 8, 3), np.uint8), network)
    check_images(np.zeros((0, 8, 8, 1), np.uint8), network)
    with pytest.raises(DataError) as error:
        check_images(np.zeros((2, 8, 9, 1), np.float32), network)
    assert str(error.value) == (
        "Images of corners must be uint8 of shape N x 8 x 8 x 1, not float32 of shape 2 x 8 x 9 x 1"
    )


def test_augmentation_moves_and_flips() -> None:
    images = torch.zeros(64, 2, 6, 6, dtype=torch.uint8)
    images[:, :, 2, 1] = 255
    border = torch.tensor([10, 20])
    generator = torch.Generator().manual_seed(0)
    assert augment(images, border, False, 0, generator) is images
    flipped = augment(images, border, True, 0, generator)
    columns = flipped[:, 0, 2].argmax(dim=1)
    assert set(columns.tolist()) == {1, 4}
    moved = augment(images, border, False, 1, generator)
    places = {divmod(int(image[0].argmax()), 6) for image in moved}
    assert places == {(row, column) for row in (1, 2, 3) for column in (0, 1, 2)}
    assert set(moved[:, 0].unique().tolist()) == {0, 10, 255}
    assert set(moved[:, 1].unique().tolist()) == {0, 20, 255}
    assert moved.dtype == torch.uint8


def test_tensors_are_channels_first() -> None:
    images = np.arange(2 * 3 * 4 * 2, dtype=np.uint8).reshape(2, 3, 4, 2)
    assert to_tensor(images)[1, 0, 2, 3] == images[1, 2, 3, 0]


def test_batches_of_large_maps_are_smaller(network: Network) -> None:
    assert batch_size(network, 250) == 250
    large = dataclasses.replace(network, input_size=(1024, 1024))  # a map is 2**20 values a channel
    assert batch_size(large, 250) == 2**23 // 2**20 // large.widths[0]
    huge = dataclasses.replace(network, input_size=(4096, 4096))
    assert batch_size(huge, 250) == 1
