"""Where a loss was lost: the first layer whose values are no longer finite."""

from typing import Any

import torch
from torch import Tensor, nn


def broken_layer(model: nn.Module, images: Tensor) -> str:
    """Names the first parameter that is not finite, else the first layer whose output for
    ``images`` is not; "the loss" where all are."""
    for name, value in model.state_dict().items():
        if value.is_floating_point() and not value.isfinite().all():
            return f"tensor {name}"
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
    return "the loss" if logits.isfinite().all() else "layer fc"
