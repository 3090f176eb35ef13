"""Finding models, checkpoints, geometries and images."""

from types import SimpleNamespace

import pytest

from host import models
from host.errors import UserError
from isa.geometry import TINY, ULX3S_25F, ULX3S_85F
from isa.image import LAYER_WORDS, ImageInfo, Packet, PacketType, build
from isa.registers import Source
from rbonn_train.config import load_model_yaml

INFO = ImageInfo("x", (4, 4, 1), classes=2, layers=1, logit_exponent=0)
PACKETS = [Packet(PacketType.LAYER, [1] * LAYER_WORDS)]


def test_known_models():
    assert {"fmnist-s", "tiny"} <= set(models.known_models())
    assert models.model_name("tiny") == "tiny"
    with pytest.raises(UserError, match=r"^Model must be one of .*, not 'no'$"):
        models.model_name("no")


def test_model_from_a_file(tmp_path):
    path = tmp_path / "mine.yaml"
    with pytest.raises(UserError) as caught:
        models.model_name(str(path))
    assert str(caught.value) == f"Model must be an existing .yaml file, not {path}"
    path.write_text("network: {}")
    assert models.model_name(str(path)) == "mine"


def test_network_of_a_model(tmp_path):
    assert models.network_of("tiny").widths == (8, 16)
    path = tmp_path / "mine.yaml"
    for text in ("network: [", "recipe: {}", "network: {widths: [8]}", "7"):
        path.write_text(text)
        with pytest.raises(UserError, match=r"mine\.yaml must be YAML with a network: "):
            models.network_of(str(path))


def test_geometry():
    assert models.geometry_named(None) is ULX3S_25F
    assert models.geometry_named("tiny") is TINY


def test_rate_of_the_stream(monkeypatch):
    """Two beats of 16 bits make a word; on the board's own clocks, but for what refresh takes."""
    clocks = SimpleNamespace(output_mhz=80.0, memory_mhz=400 / 3)
    board = SimpleNamespace(clocks=clocks)
    monkeypatch.setattr("hw.boards.BOARDS", {"ulx3s-85f": board, "ulx3s-25f": board})
    assert models.stream_rate(ULX3S_85F, Source.SDRAM) == pytest.approx(0.833 * 0.97, abs=1e-3)
    assert models.stream_rate(ULX3S_85F, Source.LINK) == 1.0
    assert models.stream_rate(ULX3S_25F, Source.RAM) == 1.0
    assert models.stream_rate(TINY, Source.SDRAM) == 1.0
    assert models.stream_rate(ULX3S_85F, Source.SDRAM, peak=True) == pytest.approx(0.833, abs=1e-3)
    clocks.output_mhz = 50.0
    assert models.stream_rate(ULX3S_85F, Source.SDRAM) == 1.0


def test_geometry_of_an_image_file(tmp_path):
    for geometry in (TINY, ULX3S_25F):
        path = tmp_path / "x.img"
        path.write_bytes(build(geometry, INFO, PACKETS).to_bytes())
        image, found = models.read_image(path)
        assert found is geometry
        assert image.info == INFO
        assert models.read_image(path, geometry.name)[1] is geometry
    with pytest.raises(UserError, match=f"^{path}: Image must be compiled for geometry tiny "):
        models.read_image(path, "tiny")


def test_shipped_images():
    found = models.shipped_images((28, 28, 1), 20)
    assert found.pixels.shape == (20, 28, 28, 1)
    assert found.labels is not None
    assert found.labels[:5].tolist() == [9, 2, 1, 1, 6]
    assert models.shipped_images((64, 64, 3), 1).pixels.shape == (1, 64, 64, 3)


def test_labels_of_another_data_set_are_dropped():
    found = models.images_for(None, (28, 28, 1), 5)
    assert models.labelled(found, None, 10).accuracy([0] * 5) is not None
    assert models.labelled(found, None, 1000).accuracy([0] * 5) is None
    assert models.labelled(found, "own.npz", 1000).accuracy([0] * 5) is not None


@pytest.mark.parametrize("name", ["resnet18-imagenet", "resnet34-imagenet"])
def test_imagenet_models(name):
    config = load_model_yaml(name)
    assert config.network.input_size == (224, 224)
    assert config.network.classes == 1000
    assert config.untrained_seed is not None
    assert models.deployment(name) == models.Deployment("ulx3s-85f", "sdram")
