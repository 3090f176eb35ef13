"""What a step needs besides the loss: optimiser, learning rate, average of the weights."""

import copy
from typing import Any

import torch
from torch import Tensor, nn

from rbonn_train.methods.base import after_backward, after_step, binary_layers
from rbonn_train.network import BinaryNetwork
from rbonn_train.recipe import Step


def make_optimizer(model: nn.Module, step: Step, u_rate: float) -> torch.optim.Adam:
    """Adam in three groups: decayed weights, u at ``u_rate`` times the rate, and all others.

    Weights that a method flips by itself (Bop) belong to none of them.
    """
    own = {id(layer.weight) for layer in binary_layers(model) if layer.latent_free}
    groups: dict[str, list[nn.Parameter]] = {"weight": [], "u": [], "other": []}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad or id(parameter) in own:
            continue
        if name.endswith(".conv.u"):
            groups["u"].append(parameter)
        elif name.endswith(("conv.weight", "fc.weight")):
            groups["weight"].append(parameter)
        else:
            groups["other"].append(parameter)
    rate = step.learning_rate
    options: list[dict[str, Any]] = [
        {"params": groups["weight"], "weight_decay": step.weight_decay},
        {"params": groups["u"], "lr": rate * u_rate},
        {"params": groups["other"]},
    ]
    for group in options:
        group["initial_lr"] = group.get("lr", rate)
    return torch.optim.Adam(options, lr=rate, fused=True)


class LostGradient(ArithmeticError):
    """A gradient that is not finite; names the parameter where backward first met one."""


def update(
    model: nn.Module, optimizer: torch.optim.Optimizer, loss: Tensor, clip: float = 0.0
) -> None:
    """Gradients of ``loss``, a step of the optimiser, and what the methods do around both.

    ``clip``: the largest norm of all gradients together, 0 for none; RBONN's recurrence sees them
    as they were. Raises LostGradient, the weights as they were.
    """
    model.zero_grad()  # Bop's weights, too, which no optimiser has
    loss.backward()
    after_backward(model)
    gradients = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    norm = nn.utils.get_total_norm(gradients.values())
    if not norm.isfinite():
        lost = [name for name, grad in gradients.items() if not grad.isfinite().all()]
        raise LostGradient(lost[-1] if lost else "their norm")  # backward begins at the last
    if clip:
        nn.utils.clip_grads_with_norm_(model.parameters(), clip, norm)
    optimizer.step()
    after_step(model)


def set_learning_rate(optimizer: torch.optim.Optimizer, done: float) -> None:
    """Linear to 0: ``done`` is the share of the step's iterations that lie behind."""
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] * (1 - done)


class Average:
    """Exponential moving average of a model's parameters and statistics; ``model`` is the averaged
    copy. After n updates at most n / (n + 10) of the average is kept, so that it starts quickly."""

    def __init__(self, model: BinaryNetwork, decay: float) -> None:
        self.model = copy.deepcopy(model).requires_grad_(False)
        self.decay = decay
        self.updates = 0

    @torch.no_grad()
    def update(self, model: BinaryNetwork) -> None:
        self.updates += 1
        share = 1 - min(self.decay, self.updates / (self.updates + 10))
        source = model.state_dict()
        for name, value in self.model.state_dict().items():
            if value.is_floating_point():
                value.lerp_(source[name], share)
            else:
                value.copy_(source[name])

    def state_dict(self) -> dict[str, Any]:
        return {"model": self.model.state_dict(), "updates": self.updates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.updates = state["updates"]
