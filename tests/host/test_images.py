"""Every way of handing over images, and every way of getting it wrong."""

import io

import numpy as np
import pytest
from PIL import Image

from host.errors import UserError
from host.images import load_images

RNG = np.random.default_rng(5)
PIXELS = RNG.integers(0, 256, (3, 4, 6, 1), np.uint8)
SHAPE = (4, 6, 1)


def npz(path, **arrays):
    np.savez(path / "some.npz", **arrays)
    return path / "some.npz"


def png(path, pixels, name="some.png", mode=None):
    picture = Image.fromarray(pixels.squeeze())
    (picture.convert(mode) if mode else picture).save(path / name)
    return path / name


def refused(path, message, shape=SHAPE, limit=None):
    with pytest.raises(UserError) as caught:
        load_images(path, shape, limit)
    assert str(caught.value) == message


def test_npz_with_labels(tmp_path):
    found = load_images(npz(tmp_path, images=PIXELS, labels=np.array([2, 0, 1])), SHAPE)
    assert np.array_equal(found.pixels, PIXELS)
    assert found.labels is not None
    assert found.labels.tolist() == [2, 0, 1]
    assert found.names == ["some.npz[0]", "some.npz[1]", "some.npz[2]"]
    assert found.accuracy([2, 0, 0]) == pytest.approx(2 / 3)


def test_limit_takes_the_first_ones(tmp_path):
    found = load_images(npz(tmp_path, images=PIXELS, labels=np.arange(3)), SHAPE, 2)
    assert np.array_equal(found.pixels, PIXELS[:2])
    assert found.labels is not None
    assert found.labels.tolist() == [0, 1]
    assert len(found) == 2


def test_without_labels_there_is_no_accuracy(tmp_path):
    assert load_images(npz(tmp_path, images=PIXELS)).accuracy([0, 0, 0]) is None


def test_grey_and_colour_png(tmp_path):
    grey = load_images(png(tmp_path, PIXELS[1]), SHAPE)
    assert np.array_equal(grey.pixels, PIXELS[1:2])
    colour = RNG.integers(0, 256, (4, 6, 3), np.uint8)
    assert np.array_equal(load_images(png(tmp_path, colour), (4, 6, 3)).pixels[0], colour)


def test_folder_in_order_of_names(tmp_path):
    for name, pixels in zip(("b.png", "a.png", "c.PNG"), PIXELS, strict=True):
        png(tmp_path, pixels, name)
    (tmp_path / "notes.txt").write_text("not an image")
    found = load_images(tmp_path, SHAPE)
    assert found.names == ["a.png", "b.png", "c.PNG"]
    assert np.array_equal(found.pixels, PIXELS[[1, 0, 2]])
    assert load_images(tmp_path, SHAPE, 1).names == ["a.png"]


def test_what_is_not_there(tmp_path):
    refused(
        tmp_path / "no.npz",
        f"Images must be an existing .npz or .png file or a folder, not {tmp_path / 'no.npz'}",
    )
    refused(tmp_path, f"Images must be at least one .png file in the folder, not none: {tmp_path}")


def test_wrong_kind_of_file(tmp_path):
    text = tmp_path / "some.txt"
    text.write_text("hello")
    refused(text, f"Images must be an .npz or .png file or a folder of .png, not {text}")
    fake = tmp_path / "some.png"
    fake.write_text("hello")
    with pytest.raises(UserError, match=r"^Images must be readable PNG files, not "):
        load_images(fake, SHAPE)
    fake = tmp_path / "some.npz"
    single = io.BytesIO()
    np.save(single, PIXELS)
    for content in (b"", b"hello", b"PK\x03\x04junk", single.getvalue()):
        fake.write_bytes(content)
        with pytest.raises(UserError, match=r"^Images must be a readable .npz file, not "):
            load_images(fake, SHAPE)


def test_truncated_files(tmp_path):
    for whole in (npz(tmp_path, images=PIXELS), png(tmp_path, np.zeros((64, 64), np.uint8))):
        whole.write_bytes(whole.read_bytes()[:70])
        with pytest.raises(UserError, match=r"^Images must be "):
            load_images(whole, SHAPE)


def test_a_pickle_is_never_read(tmp_path):
    path = npz(tmp_path, images=np.array([{"a": 1}], dtype=object))
    with pytest.raises(UserError, match=r"^Images must be a readable .npz file, not "):
        load_images(path, SHAPE)


def test_wrong_arrays(tmp_path):
    path = npz(tmp_path, pictures=PIXELS)
    refused(
        path,
        f"Images must be an array named 'images' in the .npz file, not among ['pictures']: {path}",
    )
    npz(tmp_path, images=PIXELS.astype(np.float32))
    refused(path, f"Images must be of type uint8, not float32: {path}")
    npz(tmp_path, images=PIXELS[..., 0])
    refused(path, f"Images must have 4 dimensions, N x H x W x C, not 3 x 4 x 6: {path}")
    npz(tmp_path, images=PIXELS[:0])
    refused(path, f"Images must be at least one, not none: {path}")
    npz(tmp_path, images=PIXELS, labels=np.zeros(2, np.int64))
    refused(path, f"Labels must be 3 integers, one per image, not int64 of shape (2,): {path}")


def test_wrong_size(tmp_path):
    message = "Images must be 28 x 28 x 1 (height x width x channels) for this network, not "
    path = npz(tmp_path, images=PIXELS)
    refused(path, f"{message}4 x 6 x 1: {path}", (28, 28, 1))
    path = png(tmp_path, np.zeros((28, 28, 3), np.uint8))
    refused(path, f"{message}28 x 28 x 3: {path}", (28, 28, 1))


def test_folder_with_two_sizes(tmp_path):
    png(tmp_path, PIXELS[0], "a.png")
    other = png(tmp_path, np.zeros((5, 5), np.uint8), "b.png")
    refused(
        tmp_path,
        f"Images of a folder must all have the size of a.png, 4 x 6 x 1, not 5 x 5 x 1: {other}",
        None,
    )


def test_transparency_is_refused(tmp_path):
    path = png(tmp_path, PIXELS[0], mode="RGBA")
    refused(
        path,
        "Images must be 8-bit grey or RGB pictures without palette or transparency, "
        f"not PNG mode RGBA: {path}",
    )


def test_limit_must_be_positive(tmp_path):
    path = npz(tmp_path, images=PIXELS)
    refused(path, "Limit must be a positive number of images, not 0", SHAPE, 0)
