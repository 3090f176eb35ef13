"""Images that stay in folders and shards: what is read, and what is said of broken ones; the whole
recipe of ImageNet on a dozen of them."""

import dataclasses
import io
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from host import cli
from isa.checkpoint import read_checkpoint
from isa.network import Network
from rbonn_train.crops import draw_views, lit, middle
from rbonn_train.data import DataError
from rbonn_train.files import Entry, FileSet, FileSource, decode, list_folder, list_shards
from rbonn_train.recipe import Recipe, Step, load_recipe_changes
from rbonn_train.runs import load_data
from rbonn_train.source import make_source

NETWORK = Network("small", (32, 32), 3, 3, (8, 16), (1, 1), (0.5,) * 3, (0.2,) * 3)
RECIPE = Recipe(Step(1), Step(1), quantised_epochs=1, batch=4, crop=0.5, lighting=0.1)
NAMES = ("apple", "bear", "cat")


def picture(label: int, number: int) -> Image.Image:
    pixels = np.full((40, 50, 3), 60 * label + number, np.uint8)
    pixels[:, :25, label] = 255
    return Image.fromarray(pixels)


def encoded(label: int, number: int) -> bytes:
    buffer = io.BytesIO()
    picture(label, number).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A dozen images of three classes for training, three for testing."""
    for split, count in (("train", 4), ("val", 1)):
        for label, name in enumerate(NAMES):
            place = tmp_path / "folder" / split / name
            place.mkdir(parents=True)
            for number in range(count):
                (place / f"{number}.png").write_bytes(encoded(label, number))
    return tmp_path / "folder"


def write_shard(path: Path, members: list[tuple[str, bytes]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as file:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))


def sample(label: int, number: int) -> list[tuple[str, bytes]]:
    key = f"./{NAMES[label]}/{number:03}{label}"
    return [
        (f"{key}.cls", str(label).encode()), (f"{key}.json", b"{}"),
        (f"{key}.png", encoded(label, number)),
    ]  # fmt: skip


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """The same images in two shards and one."""
    for number in range(2):
        members = [m for n in (2 * number, 2 * number + 1) for k in range(3) for m in sample(k, n)]
        write_shard(tmp_path / "shards" / "train" / f"{number}.tar", members)
    members = [m for label in range(3) for m in sample(label, 0)]
    write_shard(tmp_path / "shards" / "test" / "0.tar", members)
    return tmp_path / "shards"


def contents(dataset: FileSet) -> set[tuple[int, bytes]]:
    pairs = zip(dataset.labels.tolist(), dataset.entries, strict=True)
    return {(label, decode(entry, NETWORK).tobytes()) for label, entry in pairs}


def test_folders_and_shards_hold_the_same(folder: Path, shards: Path) -> None:
    expected = {(k, picture(k, n).tobytes()) for k in range(3) for n in range(4)}
    assert contents(list_folder("train", folder, NETWORK)) == expected
    assert contents(list_shards("train", shards)) == expected
    assert len(list_shards("test", shards)) == len(list_folder("test", folder, NETWORK)) == 3


def test_what_stays_in_files(folder: Path, shards: Path) -> None:
    plain = dataclasses.replace(RECIPE, crop=1.0, lighting=0.0)
    assert not isinstance(load_data(NETWORK, folder, None, plain)[0], FileSet)
    assert isinstance(load_data(NETWORK, folder, None, RECIPE)[0], FileSet)
    train_set, test_set = load_data(NETWORK, shards, 6, plain)
    assert isinstance(train_set, FileSet)
    assert (len(train_set), len(test_set)) == (6, 3)
    assert train_set.digest() != list_shards("train", shards).digest()


def test_parts_of_a_batch_are_those_of_the_whole(folder: Path) -> None:
    source = FileSource(list_folder("train", folder, NETWORK), NETWORK, RECIPE)
    index = torch.tensor([7, 0, 3, 11])

    def batch(part: slice, seed: int = 5) -> torch.Tensor:
        return source.batch(index, torch.Generator().manual_seed(seed), part)

    whole = batch(slice(0, 4))
    assert whole.shape == (4, 3, 32, 32)
    assert whole.dtype == torch.uint8
    assert torch.equal(whole, torch.cat([batch(slice(0, 2)), batch(slice(2, 4))]))
    assert not torch.equal(whole, batch(slice(0, 4), 6))


@pytest.mark.parametrize(
    "changes",
    [{}, {"crop": 0.2}, {"flip": True}, {"lighting": 0.3},
     {"crop": 0.2, "flip": True, "lighting": 0.3}],
    ids=str,
)  # fmt: skip
def test_training_sees_images_cropped_flipped_and_lit(
    changes: dict[str, Any], tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    pictures = [Image.fromarray(rng.integers(0, 256, (40, 50, 3), np.uint8)) for _ in range(6)]
    entries = [Entry(str(tmp_path / f"{number}.png")) for number in range(6)]
    for picture, entry in zip(pictures, entries, strict=True):
        picture.save(entry.file)
    plain: dict[str, Any] = {"crop": 1.0, "flip": False, "lighting": 0.0}
    recipe = dataclasses.replace(RECIPE, **plain | changes)
    source = FileSource(FileSet(entries, np.zeros(6, np.int64)), NETWORK, recipe)
    index = [5, 0, 3, 1]
    whole = slice(0, 4)
    batch = source.batch(torch.tensor(index), torch.Generator().manual_seed(5), whole)
    views = draw_views(4, recipe, torch.Generator().manual_seed(5))
    assert {view.flipped for view in views} == ({False, True} if recipe.flip else {False})
    for found, number, view in zip(batch, index, views, strict=True):
        box = view.box(50, 40) if recipe.crop < 1 else middle(50, 40, 32, 32)
        pixels = np.asarray(pictures[number].resize((32, 32), Image.Resampling.BILINEAR, box))
        if view.flipped:
            pixels = np.fliplr(pixels)
        assert np.array_equal(found.numpy(), lit(pixels, view.light).transpose(2, 0, 1))


def test_a_test_sees_the_middle_and_a_sample_all_classes(folder: Path) -> None:
    dataset = list_folder("test", folder, NETWORK)
    source = make_source(dataset, NETWORK, dataclasses.replace(RECIPE, crop=1.0, lighting=0.0))
    ((images, labels),) = source.pieces()
    assert labels.tolist() == [0, 1, 2]
    for image, label in zip(images, labels.tolist(), strict=True):
        assert image[label, 16, 3] == 255  # left half, row, column
        assert image[label, 16, 28] == 60 * label
    many = FileSource(list_folder("train", folder, NETWORK), NETWORK, RECIPE)
    assert many.sample(100).shape == (12, 3, 32, 32)
    assert len({tuple(image.amax((1, 2)).tolist()) for image in many.sample(9)}) > 2


def test_broken_shards_are_named(shards: Path) -> None:
    path = shards / "train" / "1.tar"
    whole = path.read_bytes()

    def fails() -> str:
        with pytest.raises(DataError) as error:
            list_shards("train", shards)
        return str(error.value)

    path.write_bytes(b"hello" * 1000)
    assert fails().startswith(f"Shard {path} must be readable, not damaged: ")
    path.write_bytes(whole[:2048])  # between two members
    assert fails() == f"Shard {path} must be whole, not end after 2048 bytes"
    path.write_bytes(whole[:2700])  # within one
    assert fails().startswith(f"Shard {path} must be readable, not damaged: ")
    write_shard(path, [("a.txt", b"")])
    assert fails() == f"Shard {path} must hold at least one image"
    write_shard(path, [("a.png", encoded(0, 0))])
    assert fails() == f"Image a.png in {path} must have a class in a.cls"
    write_shard(path, [("a.png", encoded(0, 0)), ("a.cls", b"cat")])
    assert fails() == f"Class a.cls in {path} must be an integer, not b'cat'"
    write_shard(path, [("a.png", encoded(0, 0)[:90]), ("a.cls", b"0")])
    with pytest.raises(DataError, match=f"^Image a.png in {path} must be readable, not damaged: "):
        decode(list_shards("train", shards).entries[-1], NETWORK)
    for path in (shards / "test").iterdir():
        path.unlink()
    with pytest.raises(DataError) as error:
        list_shards("test", shards)
    assert str(error.value) == f"Folder {shards}/test must hold shards (*.tar)"
    (shards / "test").rmdir()
    with pytest.raises(DataError) as error:
        list_shards("test", shards)
    assert str(error.value) == f"Folder {shards} must have a folder test or val"


def test_keys_of_a_shard_include_the_folder(tmp_path: Path) -> None:
    apple, bear = encoded(0, 0), encoded(1, 0)
    members = [
        ("apple/0000.png", apple), ("bear/0000.png", bear),
        ("bear/0000.cls", b"1"), ("apple/0000.cls", b"0"),
    ]  # fmt: skip
    path = tmp_path / "train" / "0.tar"
    write_shard(path, members)
    dataset = list_shards("train", tmp_path)
    assert [entry.member for entry in dataset.entries] == ["apple/0000.png", "bear/0000.png"]
    assert dataset.labels.tolist() == [0, 1]
    assert contents(dataset) == {(k, picture(k, 0).tobytes()) for k in (0, 1)}
    write_shard(path, members[:3])
    with pytest.raises(DataError) as error:
        list_shards("train", tmp_path)
    assert str(error.value) == f"Image apple/0000.png in {path} must have a class in apple/0000.cls"


@pytest.mark.parametrize("key", ["a", "bear/0000"])
def test_a_key_of_a_shard_has_one_image_and_one_class(key: str, tmp_path: Path) -> None:
    path = tmp_path / "train" / "0.tar"
    image = encoded(0, 0)
    write_shard(path, [(f"{key}.png", image), (f"{key}.cls", b"0"), (f"{key}.jpg", image)])
    with pytest.raises(DataError) as error:
        list_shards("train", tmp_path)
    assert str(error.value) == f"Shard {path} must have one image of {key}, not more"
    write_shard(path, [(f"{key}.png", image), (f"{key}.cls", b"0"), (f"{key}.cls", b"1")])
    with pytest.raises(DataError) as error:
        list_shards("train", tmp_path)
    assert str(error.value) == f"Shard {path} must have one class of {key}, not more"


def test_images_that_the_recipe_does_not_fit(folder: Path, network: Network) -> None:
    dataset = list_folder("train", folder, NETWORK)
    with pytest.raises(DataError) as error:
        make_source(dataset, network, RECIPE)
    assert str(error.value) == "Input channels must be 3 for lighting, not 1"
    with pytest.raises(DataError, match="must be moved by crops"):
        make_source(dataset, NETWORK, dataclasses.replace(RECIPE, shift=1))
    in_memory = load_data(NETWORK, folder)[0]
    with pytest.raises(DataError, match="must be in a folder or in shards"):
        make_source(in_memory, NETWORK, RECIPE)
    with pytest.raises(DataError, match=r"^Image gone.png must be readable"):
        decode(Entry("gone.png"), NETWORK)


@pytest.mark.parametrize("kind", ["folder", "shards"])
def test_the_recipe_of_imagenet(
    kind: str, folder: Path, shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Teacher and student of ImageNet's shape, but small, as the command line trains them."""
    network = dataclasses.asdict(NETWORK) | {"stem": {"kernel": 7, "stride": 2, "pool": True}}
    del network["name"]
    recipe = load_recipe_changes("imagenet")
    for step in ("binary_activations", "binary_weights"):
        recipe[step]["epochs"] = 1
    recipe |= {"quantised_epochs": 1, "batch": 4}
    model = tmp_path / "mini.yaml"
    plain = {key: list(v) if isinstance(v, tuple) else v for key, v in network.items()}
    model.write_text(yaml.safe_dump({"network": plain, "recipe": recipe}))
    data = {"folder": folder, "shards": shards}[kind]
    command = ["train", "--model", str(model), "--data", str(data), "--out", str(tmp_path / "out")]
    assert cli.main([*command, "--method", "real"]) == 0, capsys.readouterr().err
    teacher = tmp_path / "out" / "mini.real.safetensors"
    assert cli.main([*command, "--set", f"teacher={teacher}"]) == 0, capsys.readouterr().err
    info, _ = read_checkpoint(tmp_path / "out" / "mini.safetensors")
    assert info.metrics["images"] == 3
    assert info.training["recipe"]["crop"] == 0.08
    assert len(info.training["curve"]) == 2
