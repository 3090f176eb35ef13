"""Released checkpoints: names, shapes and scales, and the network that they were saved from."""

import dataclasses
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from isa.checkpoint import read_checkpoint
from isa.network import Network, Stem, tensor_shapes
from rbonn_train.checkpoint import load_model
from rbonn_train.config import load_model_yaml
from rbonn_train.evaluate import predict
from rbonn_train.released import ReleasedError, import_released, read_released

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


class BinaryConv(nn.Module):
    def __init__(self, cin: int, cout: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        weight = 0.05 * torch.randn(cout, cin, 3, 3)
        # Among millions of seeded values some are exactly 0: see the test of sign(0).
        self.weight = nn.Parameter(torch.where(weight == 0, 0.05, weight))


class ReActConv(BinaryConv):
    """The sums over signs times the mean of |w|."""

    def forward(self, x: Tensor) -> Tensor:
        scale = self.weight.abs().mean(3).mean(2).mean(1)
        y = functional.conv2d(x, torch.sign(self.weight), stride=self.stride, padding=1)
        return y * scale.view(-1, 1, 1)


class RBONNConv(BinaryConv):
    """Weights are signs times 0.02 times a learned scale, of either sign."""

    def __init__(self, cin: int, cout: int, stride: int) -> None:
        super().__init__(cin, cout, stride)
        self.scale_factor = nn.Parameter(torch.randn(cout, 1, 1, 1))
        self.u = nn.Parameter(torch.full((cout, 1, 1, 1), 0.2))

    def forward(self, x: Tensor) -> Tensor:
        weight = torch.sign(self.weight) * 0.02 * self.scale_factor.abs()
        return functional.conv2d(x, weight, stride=self.stride, padding=1)


class BasicBlock(nn.Module):
    def __init__(self, cin: int, cout: int, stride: int, conv: type[BinaryConv]) -> None:
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
    def __init__(self, network: Network, conv: type[BinaryConv]) -> None:
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


def authors(conv: type[BinaryConv] = RBONNConv, network: Network = NETWORK) -> ResNet:
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
    """As torchvision's ToTensor and Normalize do it, memory layout included: another one makes
    convolutions sum in another order."""
    x = torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous().float() / 255
    return (x - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)


def save(path: Path, model: nn.Module, **more: object) -> Path:
    """What the authors' training loop writes from a DataParallel model."""
    state = {f"module.{name}": value for name, value in model.state_dict().items()}
    content = {"epoch": 255, "state_dict": state, "best_top1_acc": np.float64(66.7), **more}
    torch.save(content, path)
    return path


# --- tests -----------------------------------------------------------------------------------


CONVS = {"RBONN": RBONNConv, "ReActNet": ReActConv}
RESNET18 = load_model_yaml("resnet18-imagenet").network
RESNET34 = load_model_yaml("resnet34-imagenet").network
LARGE = [dataclasses.replace(network, input_size=(64, 64)) for network in (RESNET18, RESNET34)]


@pytest.mark.parametrize("author", CONVS)
@pytest.mark.parametrize("network", [NETWORK, *LARGE], ids=lambda network: network.name)
def test_logits_are_those_of_the_original_network(
    tmp_path: Path, author: str, network: Network
) -> None:
    model = authors(CONVS[author], network)
    out = tmp_path / "ours.safetensors"
    import_released(save(tmp_path / "model_best.pth.tar", model), network, out)
    info, tensors = read_checkpoint(out, calibrated=False)
    assert info.network == network
    assert info.training == {
        "imported_from": "model_best.pth.tar", "released_by": author, "zero_weights": 0,
    }  # fmt: skip
    assert set(tensors) == set(tensor_shapes(network))
    pixels = images(5, network)
    with torch.no_grad():
        expected = model(normalised(pixels)).numpy()
    found, _ = predict(out, pixels, "float")
    assert expected.std(axis=0).min() > 0.01  # the images matter
    assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()


@pytest.mark.parametrize("author", CONVS)
def test_binary_convolutions_round_as_the_original_ones(tmp_path: Path, author: str) -> None:
    """Exactly: a single rounding may turn a sign, after which nothing is equal any more."""
    model = authors(CONVS[author])
    out = tmp_path / "ours.safetensors"
    import_released(save(tmp_path / "a.pth.tar", model), NETWORK, out)
    ours = load_model(*read_checkpoint(out, calibrated=False)).binary_blocks()
    theirs = [b for b in model.modules() if isinstance(b, BasicBlock)]
    for mine, original in zip(ours, theirs, strict=True):
        x = torch.sign(torch.randn(2, len(mine.bias0), 8, 8))
        assert torch.equal(mine.conv(x), original.binary_conv(x)), mine.name


def test_a_weight_of_zero_counts_as_one(tmp_path: Path) -> None:
    """What sign(0) changes: the accelerator has no third state, so neither has the float model."""
    model = authors()
    name, out = "layer3.1.binary_conv.weight", tmp_path / "ours.safetensors"
    with torch.no_grad():
        model.get_parameter(name)[0, :3, 1, 1] = 0
    import_released(save(tmp_path / "a.pth.tar", model), NETWORK, out)
    assert read_checkpoint(out, calibrated=False)[0].training["zero_weights"] == 3
    found, _ = predict(out, images(5), "float")
    with torch.no_grad():
        original = model(normalised(images(5))).numpy()
        model.get_parameter(name)[0, :3, 1, 1] = 1e-9
        expected = model(normalised(images(5))).numpy()
    limit = 1e-4 * np.abs(expected).max()
    assert np.abs(found - expected).max() <= limit < np.abs(found - original).max()


@pytest.mark.parametrize("zipped", [True, False])  # since, and before, PyTorch 1.6
@pytest.mark.parametrize("author", CONVS)
def test_a_file_without_wrapping(tmp_path: Path, author: str, zipped: bool) -> None:
    model = authors(CONVS[author])
    path = tmp_path / "a.pth"
    torch.save(model.state_dict(), path, _use_new_zipfile_serialization=zipped)
    tensors, found = read_released(path, NETWORK)
    assert found == author
    conv = model.layer2[0].binary_conv
    assert np.array_equal(tensors["blocks.2.conv.weight"], conv.weight.detach().numpy())
    alpha = (
        0.02 * conv.scale_factor.abs().flatten()
        if author == "RBONN"
        else conv.weight.abs().mean((1, 2, 3))
    )
    assert np.allclose(tensors["blocks.2.conv.alpha"], alpha.detach().numpy())


def test_the_optimiser_of_a_training_loop_may_be_in_the_file(tmp_path: Path) -> None:
    model = authors()
    adam = torch.optim.Adam(model.parameters()).state_dict()
    path = save(tmp_path / "checkpoint.pth.tar", model, optimizer=adam)
    assert read_released(path, NETWORK)[1] == "RBONN"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda s: s.pop("layer1.1.move1.bias"),
            "Checkpoint {path} must have the tensor layer1.1.move1.bias of shape (8,), as ResNet "
            "checkpoints of RBONN do, but has none of that name",
        ),
        (  # Never the scale of one layer from RBONN, of another from ReActNet.
            lambda s: s.pop("layer2.0.binary_conv.scale_factor"),
            "Checkpoint {path} must have the tensor layer2.0.binary_conv.scale_factor of shape "
            "(16,), as ResNet checkpoints of RBONN do, but has none of that name",
        ),
        (
            lambda s: s.update({"layer2.0.binary_conv.weight": torch.zeros(1152, 1)}),
            "Tensor layer2.0.binary_conv.weight must have shape (16, 8, 3, 3) for resnet, not "
            "(1152, 1)",
        ),
        (
            lambda s: s["layer3.1.bn1.weight"].fill_(float("nan")),
            "Tensor layer3.1.bn1.weight must be finite, not NaN or infinite",
        ),
        (
            lambda s: s["bn1.running_var"].fill_(-1),
            "Tensor bn1.running_var must not be negative, not -1",
        ),
        (
            lambda s: s.update({"fc.bias": torch.zeros(7, dtype=torch.complex64)}),
            "Tensor fc.bias must hold real numbers, not torch.complex64",
        ),
        (
            lambda s: s.update({"fc.weight": torch.zeros(7, 64).to_sparse()}),
            "Tensor fc.weight must hold real numbers, not torch.sparse_coo",
        ),
        (
            lambda s: s.update({"layer5.0.binary_conv.u": torch.zeros(3)}),
            "Tensor layer5.0.binary_conv.u must belong to resnet, but that has no such tensor",
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
            "Tensor layer1.0.binary_conv.scale_factor must have shape (8,) for resnet, not (3,)",
        ),
        (
            lambda s: s.update({"best": 3}),
            "Checkpoint {path} must hold tensors by name, themselves or under one of state_dict, "
            "model, net, not 'best' of type int",
        ),
        (
            lambda s: s.update({"weights": {**s}}) or [s.pop(n) for n in [*s][:-1]],
            "Checkpoint {path} must hold tensors by name, themselves or under one of state_dict, "
            "model, net, not 'weights' of type dict",
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


@pytest.mark.parametrize("key", ["state_dict", "model", "net"])
def test_the_keys_of_training_loops(tmp_path: Path, key: str) -> None:
    model, path = authors(), tmp_path / "a.pth"
    torch.save(model.state_dict(), path)
    expected, author = read_released(path, NETWORK)
    torch.save({"epoch": 3, "model": "resnet18", key: model.state_dict()}, path)
    tensors, found = read_released(path, NETWORK)
    assert found == author == "RBONN"
    assert tensors.keys() == expected.keys()
    assert all(np.array_equal(tensors[name], expected[name]) for name in expected)


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
    with pytest.raises(ReleasedError) as error:
        read_released(path, NETWORK)
    assert str(error.value) == (  # and not how to execute it after all, as torch says
        f"Checkpoint {path} must hold tensors and plain numbers alone, as no code in it is "
        f"executed, not print: save its state_dict by itself"
    )
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("content", [b"", b"nonsense", pickle.dumps([1, 2])])
def test_files_of_another_kind(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.pth"
    path.write_bytes(content)
    with pytest.raises(ReleasedError, match=f"^Checkpoint {path} must "):
        read_released(path, NETWORK)
    with pytest.raises(ReleasedError, match="must be an existing file, not"):
        read_released(tmp_path / "none.pth", NETWORK)
