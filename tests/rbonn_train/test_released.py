"""Released checkpoints: names, shapes and scales, and the network that they were saved from."""

import dataclasses
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from isa.network import Network, Stem, tensor_shapes
from rbonn_train.checkpoint import read_checkpoint
from rbonn_train.evaluate import predict
from rbonn_train.released import ReleasedError, import_released, is_released, read_released

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
NETWORK = Network(
    "resnet", (64, 64), 3, 7, (8, 16, 32, 64), (2, 1, 2, 1), MEAN, STD, Stem(7, 2, True)
)


# --- the authors' network, written down plainly ----------------------------------------------


class Move(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(0.2 * torch.randn(1, channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.bias


class ReActConv(nn.Module):
    """Weights are signs times the mean of |w|."""

    def __init__(self, cin: int, cout: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.weight = nn.Parameter(0.05 * torch.randn(cout, cin, 3, 3))

    def scale(self) -> Tensor:
        return self.weight.abs().mean(dim=(1, 2, 3), keepdim=True)

    def forward(self, x: Tensor) -> Tensor:
        weight = self.scale() * torch.sign(self.weight)
        return functional.conv2d(x, weight, stride=self.stride, padding=1)


class RBONNConv(ReActConv):
    """Weights are signs times 0.02 times a learned scale, of either sign."""

    def __init__(self, cin: int, cout: int, stride: int) -> None:
        super().__init__(cin, cout, stride)
        self.scale_factor = nn.Parameter(torch.randn(cout, 1, 1, 1))
        self.u = nn.Parameter(torch.full((cout, 1, 1, 1), 0.2))

    def scale(self) -> Tensor:
        return 0.02 * self.scale_factor.abs()


class BasicBlock(nn.Module):
    def __init__(self, cin: int, cout: int, stride: int, conv: type[ReActConv]) -> None:
        super().__init__()
        self.move0 = Move(cin)
        self.binary_conv = conv(cin, cout, stride)
        self.bn1 = nn.BatchNorm2d(cout)
        self.move1, self.prelu, self.move2 = Move(cout), nn.PReLU(cout), Move(cout)
        self.downsample: nn.Module | None = None
        if stride == 2:
            self.downsample = nn.Sequential(
                nn.AvgPool2d(2, 2), nn.Conv2d(cin, cout, 1, bias=False), nn.BatchNorm2d(cout)
            )

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn1(self.binary_conv(torch.sign(self.move0(x))))
        out = out + (x if self.downsample is None else self.downsample(x))
        return self.move2(self.prelu(self.move1(out)))


class ResNet(nn.Module):
    def __init__(self, network: Network, conv: type[ReActConv]) -> None:
        super().__init__()
        widths = network.widths
        self.conv1 = nn.Conv2d(3, widths[0], 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        cin = widths[0]
        for stage, (cout, count) in enumerate(zip(widths, network.blocks_per_stage, strict=True)):
            blocks = []
            for index in range(count):
                stride = 2 if stage and not index else 1
                blocks.append(BasicBlock(cin, cout, stride, conv))
                cin = cout
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))
        self.fc = nn.Linear(cin, network.classes)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.max_pool2d(self.bn1(self.conv1(x)), 3, 2, 1)
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = stage(x)
        return self.fc(x.mean(dim=(2, 3)))


def authors(conv: type[ReActConv] = RBONNConv, network: Network = NETWORK) -> ResNet:
    """Seeded weights, and statistics of seeded images."""
    torch.manual_seed(3)
    model = ResNet(network, conv)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.2)
    with torch.no_grad():
        model(normalised(images(8, network)))
    return model.eval()


def images(count: int, network: Network = NETWORK) -> np.ndarray:
    return np.random.default_rng(4).integers(0, 256, (count, *network.input_size, 3), np.uint8)


def normalised(pixels: np.ndarray) -> Tensor:
    """As torchvision's ToTensor and Normalize do it."""
    x = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
    return (x - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)


def save(path: Path, model: nn.Module, **more: object) -> Path:
    """What the authors' training loop writes from a DataParallel model."""
    state = {f"module.{name}": value for name, value in model.state_dict().items()}
    content = {"epoch": 255, "state_dict": state, "best_top1_acc": np.float64(66.7), **more}
    torch.save(content, path)
    return path


# --- tests -----------------------------------------------------------------------------------


@pytest.mark.parametrize("conv", [RBONNConv, ReActConv])
def test_logits_are_those_of_the_original_network(tmp_path: Path, conv: type[ReActConv]) -> None:
    model = authors(conv)
    out = tmp_path / "ours.safetensors"
    import_released(save(tmp_path / "model_best.pth.tar", model), NETWORK, out)
    info, tensors = read_checkpoint(out, calibrated=False)
    assert info.network == NETWORK
    assert set(tensors) == set(tensor_shapes(NETWORK))
    pixels = images(5)
    with torch.no_grad():
        expected = model(normalised(pixels)).numpy()
    found, _ = predict(out, pixels, "float")
    assert expected.std(axis=0).min() > 0.01  # the images matter
    assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()


def test_a_file_without_wrapping_and_with_weights_in_a_column(tmp_path: Path) -> None:
    state = authors(ReActConv).state_dict()
    name = "layer2.0.binary_conv.weight"
    expected = state[name].numpy()
    state[name] = state[name].reshape(-1, 1)
    torch.save(state, tmp_path / "a.pth")
    tensors = read_released(tmp_path / "a.pth", NETWORK)
    assert np.array_equal(tensors["blocks.2.conv.weight"], expected)
    assert np.allclose(tensors["blocks.2.conv.alpha"], np.abs(expected).mean(axis=(1, 2, 3)))


def test_names_of_files() -> None:
    for name, expected in (("a.pth.tar", True), ("a.pt", True), ("a.safetensors", False)):
        assert is_released(Path(name)) == expected


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda s: s.pop("layer1.1.move1.bias"),
            "Checkpoint {path} must have the tensor layer1.1.move1.bias of shape (8,), as ResNet "
            "checkpoints of RBONN and ReActNet do, but has none of that name",
        ),
        (
            lambda s: s.update({"layer3.0.downsample.1.weight": torch.zeros(32, 16, 3, 3)}),
            "Tensor layer3.0.downsample.1.weight must have shape (32, 16, 1, 1) for resnet, not "
            "(32, 16, 3, 3)",
        ),
        (
            lambda s: s.update({"fc.weight": torch.zeros(64, 7)}),
            "Tensor fc.weight must have shape (7, 64) for resnet, not (64, 7)",
        ),
        (
            lambda s: s.update({"layer5.0.move0.bias": torch.zeros(3)}),
            "Tensor layer5.0.move0.bias must belong to resnet, but that has no such tensor",
        ),
        (
            lambda s: s.update({"layer1.0.binary_conv.scale_factor": torch.zeros(3)}),
            "Tensor layer1.0.binary_conv.scale_factor must have one value for each of 8 channels, "
            "not 3",
        ),
        (
            lambda s: s.update({"best": 3}),
            "Checkpoint {path} must hold tensors by name, not 'best' of type int",
        ),
        (
            lambda s: s.clear(),
            "Checkpoint {path} must hold a state_dict, not OrderedDict without one",
        ),
    ],
)
def test_other_layouts(tmp_path: Path, change, message: str) -> None:
    state = authors().state_dict()
    change(state)
    path = tmp_path / "a.pth"
    torch.save(state, path)
    with pytest.raises(ReleasedError) as error:
        read_released(path, NETWORK)
    assert str(error.value) == message.format(path=path)


def test_the_first_tensor_of_another_network_is_named(tmp_path: Path) -> None:
    path = save(tmp_path / "a.pth.tar", authors())
    wider = dataclasses.replace(NETWORK, widths=(8, 16, 32, 48))
    with pytest.raises(ReleasedError, match=r"^Tensor layer4\.0\.binary_conv\.weight must have "):
        read_released(path, wider)


class Malicious:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (print, ("code from the file was executed",))


def test_code_in_the_file_is_not_executed(tmp_path: Path, capsys) -> None:
    path = save(tmp_path / "a.pth.tar", authors(), more=Malicious())
    with pytest.raises(ReleasedError, match="must hold tensors alone, as no code in it is exec"):
        read_released(path, NETWORK)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("content", [b"", b"nonsense", pickle.dumps([1, 2])])
def test_files_of_another_kind(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.pth"
    path.write_bytes(content)
    with pytest.raises(ReleasedError, match=f"^Checkpoint {path} must "):
        read_released(path, NETWORK)
    with pytest.raises(ReleasedError, match="must be an existing file, not"):
        read_released(tmp_path / "none.pth", NETWORK)
