"""Data sets of image files, and what is said of broken ones."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from isa.network import Network
from rbonn_train.data import DataError, Dataset
from rbonn_train.files import Entry, decode
from rbonn_train.folder import is_folder_set, load_folder, read_image
from rbonn_train.runs import load_data


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Four classes; two images each for training, one for testing."""
    for label, name in enumerate(("ankle", "bag", "coat", "dress")):
        for split, count in (("train", 2), ("test", 1)):
            folder = tmp_path / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = np.full((16, 17, 3), 10 * label + number, np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.png")
    return tmp_path


def test_classes_are_sorted_folders(data: Path, network: Network) -> None:
    assert is_folder_set(data)
    assert not is_folder_set(data / "train")
    (data / "train" / "bag" / "notes.txt").write_text("no image")
    train_set, test_set = load_data(network, data)
    assert isinstance(train_set, Dataset)
    assert train_set.images.shape == (8, 8, 8, 1)
    values = train_set.images[:, 0, 0, 0]
    assert sorted(values.tolist()) == [0, 1, 10, 11, 20, 21, 30, 31]
    assert train_set.labels.tolist() == (values // 10).tolist()
    assert train_set.labels.tolist() != sorted(train_set.labels)  # mixed: the first are a sample
    assert sorted(test_set.labels.tolist()) == [0, 1, 2, 3]
    assert len(load_data(network, data, 3)[0]) == 3


def test_an_empty_class_is_named(data: Path, network: Network) -> None:
    (data / "test" / "coat" / "0.png").unlink()
    with pytest.raises(DataError) as error:
        load_folder("test", data, network)
    assert str(error.value) == f"Class {data}/test/coat must have at least one image"


def test_a_corrupt_image_is_named(data: Path, network: Network) -> None:
    path = data / "train" / "bag" / "1.png"
    whole = path.read_bytes()
    for broken in (b"", b"hello", whole[: len(whole) // 2]):
        path.write_bytes(broken)
        with pytest.raises(DataError, match=f"^Image {path} must be readable, not damaged: "):
            load_folder("train", data, network)


def test_an_image_of_impossible_size_is_named(data: Path, network: Network) -> None:
    path = data / "train" / "bag" / "1.png"
    header = b"IHDR" + struct.pack(">2I5B", 20_000, 20_000, 8, 0, 0, 0, 0)
    chunk = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk)
    with pytest.raises(DataError, match=f"^Image {path} must be readable, not damaged: "):
        read_image(path, network)
    with pytest.raises(DataError, match=f"^Image {path} must be readable, not damaged: "):
        decode(Entry(str(path)), network)


def test_a_small_image_is_enlarged(data: Path, network: Network) -> None:
    path = data / "train" / "bag" / "1.png"
    Image.fromarray(np.full((3, 5), 77, np.uint8)).save(path)
    assert read_image(path, network).tolist() == np.full((1, 8, 8, 1), 77).tolist()


def test_the_number_of_classes_and_channels(data: Path, network: Network) -> None:
    (data / "train" / "extra").mkdir()
    with pytest.raises(DataError) as error:
        load_folder("train", data, network)
    assert str(error.value) == (
        f"Folder {data}/train must have one folder for each of 4 classes, not 5"
    )
    two = Network("two", (8, 8), 2, 4, (8,), (1,), (0.3, 0.3), (0.3, 0.3))
    with pytest.raises(DataError, match="need 1, 3 or 4 input channels, not 2"):
        load_folder("train", data, two)
