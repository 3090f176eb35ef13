"""Where a network or its loss was lost: the first tensor or layer that is no longer finite."""

from typing import Any

import torch
from torch import Tensor, nn


class TrainingError(RuntimeError):
    """Training that cannot go on."""


def broken_tensor(model: nn.Module) -> str | None:
    """Names the first parameter or statistic that is not finite; None where all are."""
    for name, value in model.state_dict().items():
        if value.is_floating_point() and not value.isfinite().all():
            return f"tensor {name}"
    return None


def broken_layer(model: nn.Module, images: Tensor) -> str | None:
    """Names the first tensor that is not finite, else the first layer whose output for ``images``
    is not; None where all are. The model stays in the mode, training or evaluation, that it is
    in."""
    if (tensor := broken_tensor(model)) is not None:
        return tensor
    found: list[str] = []

    def watch(name: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor) and not output.isfinite().all():
                found.append(name)

        return hook

    handles = [
        module.register_forward_hook(watch(name)) for name, module in model.named_modules() if name
    ]
    try:
        with torch.no_grad():
            logits = model(images)
    finally:
        for handle in handles:
            handle.remove()
    if found:
        return f"layer {found[0]}"
    return None if logits.isfinite().all() else "layer fc"
