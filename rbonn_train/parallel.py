"""Training by several processes (`torchrun`), equal to one process on the same batches.

Every process holds the same weights and random states and draws the same batches; each computes
its part of a batch, and sums are taken over all of them: statistics of BN, gradients, loss. Process
0 alone writes files.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from rbonn_train.methods.base import binary_layers


class ParallelError(ValueError):
    """Processes that cannot share the work."""


@dataclass(frozen=True)
class World:
    """``size`` processes that train together; this is number ``rank``."""

    rank: int = 0
    size: int = 1
    device: str = "cpu"

    @property
    def first(self) -> bool:
        """Whether this process writes files and reports."""
        return self.rank == 0

    def part(self, count: int) -> slice:
        """Which of ``count`` images of a batch are this process's. Raises ParallelError."""
        if count % self.size:
            raise ParallelError(
                f"Batch must be a multiple of the {self.size} processes, not {count} images"
            )
        each = count // self.size
        return slice(self.rank * each, (self.rank + 1) * each)

    def sums(self, *values: float) -> list[float]:
        """The sum of each value over all processes."""
        total = torch.tensor(values, dtype=torch.float64, device=self.device)
        if self.size > 1:
            distributed.all_reduce(total)
        found: list[float] = total.tolist()
        return found

    def wait(self) -> None:
        """Until every process has come here."""
        if self.size > 1:
            distributed.barrier()

    def wrap(self, model: nn.Module, *, unused: bool = False) -> nn.Module:
        """The module whose backward pass averages gradients over the processes, and whose BN takes
        its statistics from the whole batch. ``model`` itself keeps the parameters, of which some
        may be ``unused``."""
        if self.size == 1:
            return model
        synchronise(model)
        own = any(layer.own_gradients for layer in binary_layers(model))
        return DistributedDataParallel(
            model, forward_sync_buffers=False, find_unused_parameters=own or unused
        )


ALONE = World()


def leads() -> bool:
    """Whether this process is the one alone, or the first of those that `torchrun` started: the
    one that reports, before they are joined and after."""
    return int(os.environ.get("WORLD_SIZE", "1")) == 1 or int(os.environ["RANK"]) == 0


@contextmanager
def joined(device: str) -> Iterator[World]:
    """The processes that `torchrun` started, joined until the end; one alone without it."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield ALONE
        return
    if device == "cuda":  # first: NCCL takes the device that is set when it starts
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    distributed.init_process_group("nccl" if device == "cuda" else "gloo")
    try:
        yield World(distributed.get_rank(), distributed.get_world_size(), device)
    finally:
        distributed.destroy_process_group()


class _Total(torch.autograd.Function):
    """The sum over all processes; so is its gradient."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        result = values.clone()
        distributed.all_reduce(result)
        return result

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        result = grads[0].clone()
        distributed.all_reduce(result)
        return result


class _WholeBatchNorm2d(nn.BatchNorm2d):
    """BN whose statistics in training are those of all processes' images. (PyTorch's own has no
    implementation for CPUs.)"""

    together = True

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or not self.together:
            return super().forward(x)
        wide = x if x.dtype == torch.float64 else x.float()
        count = x.numel() / x.shape[1] * distributed.get_world_size()
        mean = _Total.apply(wide.sum(dim=(0, 2, 3))) / count
        centred = wide - mean.view(-1, 1, 1)
        variance = _Total.apply(centred.square().sum(dim=(0, 2, 3))) / count
        self._remember(mean.detach(), variance.detach(), count)
        scale = self.weight * (variance + self.eps).rsqrt()
        return (centred * scale.view(-1, 1, 1) + self.bias.view(-1, 1, 1)).to(x.dtype)

    @torch.no_grad()
    def _remember(self, mean: Tensor, variance: Tensor, count: float) -> None:
        """As BatchNorm2d does: the unbiased variance; momentum None is the average of all."""
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked += 1
        share = self.momentum if self.momentum is not None else 1 / float(self.num_batches_tracked)
        self.running_mean.lerp_(mean, share)
        self.running_var.lerp_(variance * (count / (count - 1)), share)


@contextmanager
def apart(model: nn.Module) -> Iterator[None]:
    """While entered, BN takes its statistics from this process's images: all have the same ones."""
    layers = [module for module in model.modules() if isinstance(module, _WholeBatchNorm2d)]
    for layer in layers:
        layer.together = False
    try:
        yield
    finally:
        for layer in layers:
            layer.together = True


def synchronise(model: nn.Module) -> None:
    """Makes every BN of a model one over all processes."""
    for module in model.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = _WholeBatchNorm2d
