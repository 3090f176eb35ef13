"""Teachers: the networks whose distribution a student learns, and their files.

A teacher is a checkpoint of ours, or a network without anything binary, which method ``real``
trains and writes as NAME.real.safetensors: the same tensors but for alpha, its network in the
metadata. Or, for ImageNet, one that others trained (:mod:`rbonn_train.outside`).
"""

import dataclasses
import json
import zlib
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from isa.checkpoint import CheckpointError, read_checkpoint, write_atomically
from isa.network import Network, NetworkError, network_from_dict
from rbonn_train.checkpoint import load_model
from rbonn_train.network import BinaryNetwork
from rbonn_train.outside import CHANNELS, CLASSES, OUTSIDE
from rbonn_train.recipe import Recipe

REAL_KEY = "rbonn-real"
SUFFIX = ".real.safetensors"


def save_real(path: Path, model: BinaryNetwork) -> None:
    """Writes a network without anything binary atomically."""
    tensors = {name: value.cpu().contiguous() for name, value in model.state_dict().items()}
    metadata = {REAL_KEY: json.dumps(dataclasses.asdict(model.network))}
    write_atomically(path, save(tensors, metadata))


def load_teacher(name: str, student: Network) -> nn.Module:
    """The network in the file ``name``, or of that name in OUTSIDE, in evaluation mode, without
    gradients. Raises CheckpointError, also where its images or classes are not the student's."""
    if not name:
        raise CheckpointError(
            f"This recipe needs a teacher: --set teacher=FILE, which `rbonn train --method real` "
            f"writes, or one of {', '.join(OUTSIDE)}; or, for labels alone, --set teacher=null"
        )
    if name in OUTSIDE:
        wanted = {"input_channels": CHANNELS, "classes": CLASSES}
        _check_fits(name, student, wanted)
        return OUTSIDE[name]().eval().requires_grad_(False)
    path = Path(name)
    if not path.is_file():
        known = ", ".join(OUTSIDE)
        raise CheckpointError(f"Teacher must be an existing file, or one of {known}, not {path}")
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get(REAL_KEY)
            tensors = {} if text is None else {name: file.get_tensor(name) for name in file.keys()}
        if text is None:
            model = load_model(*read_checkpoint(path, calibrated=False))
        else:
            model = BinaryNetwork(network_from_dict(json.loads(text)), real=True)
            model.load_state_dict(tensors)
    except CheckpointError:
        raise
    except (SafetensorError, NetworkError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"Teacher {path} must be a network of ours: {error}") from error
    keys = ("input_size", "input_channels", "classes")
    _check_fits(name, student, {key: getattr(model.network, key) for key in keys})
    return model.eval().requires_grad_(False)


def teacher_digest(name: str | None) -> int | None:
    """Changes with what is in the file ``name``; None where a teacher has none."""
    if name is None or not Path(name).is_file():
        return None
    return zlib.crc32(Path(name).read_bytes())


def _check_fits(name: str, student: Network, teacher: Mapping[str, object]) -> None:
    for key, other in teacher.items():
        if (own := getattr(student, key)) != other:
            raise CheckpointError(f"Teacher {name} must have {key} {own}, not {other}")


class Objective(nn.Module):
    """The loss of a recipe: cross-entropy with labels, with a teacher's distribution, or both.

    Distribution loss (ReActNet, arXiv 2003.03488): the cross-entropy of the student's
    distribution under the teacher's, both at a temperature T; times T^2, which keeps the size of
    its gradient (Hinton et al., arXiv 1503.02531).
    """

    def __init__(self, recipe: Recipe, teacher: nn.Module | None) -> None:
        super().__init__()
        self.recipe, self.teacher = recipe, teacher

    def forward(self, logits: Tensor, images: Tensor, labels: Tensor) -> Tensor:
        recipe, cross_entropy = self.recipe, nn.functional.cross_entropy
        logits = logits.float()
        if self.teacher is None:
            return cross_entropy(logits, labels, label_smoothing=recipe.label_smoothing)
        heat, share = recipe.temperature, recipe.teacher_weight
        with torch.no_grad():
            target = (self.teacher(images).float() / heat).softmax(dim=1)
        loss = cross_entropy(logits / heat, target) * (share * heat**2)
        if share < 1:
            hard = cross_entropy(logits, labels, label_smoothing=recipe.label_smoothing)
            loss = loss + (1 - share) * hard
        return loss
