"""The steps of a recipe as the phases of a run, and how the second begins with the first."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file

from isa.checkpoint import CheckpointError
from isa.network import Network
from rbonn_train.methods import REAL, layer_maker
from rbonn_train.methods.base import binary_layers
from rbonn_train.network import BinaryNetwork
from rbonn_train.recipe import Recipe, Step

FIRST_SUFFIX = ".step1.safetensors"


@dataclass(frozen=True)
class Phase:
    """One step of a run: the last ``quantised`` epochs of it have simulated rounding, the last
    ``exact`` of these are exact. The network of a ``deployed`` one is written as a checkpoint."""

    title: str
    step: Step
    quantised: int = 0
    exact: int = 0
    deployed: bool = False

    def is_quantised(self, epoch: int) -> bool:
        """Whether an epoch, counted from 0, has simulated rounding."""
        return epoch >= self.step.epochs - self.quantised

    def is_exact(self, epoch: int) -> bool:
        """Whether an epoch, counted from 0, is exact."""
        return epoch >= self.step.epochs - self.exact


def phases(recipe: Recipe) -> tuple[Phase, ...]:
    """Method ``real`` is trained for as long as both steps are together, at the rate of step 1."""
    first, second = recipe.binary_activations, recipe.binary_weights
    if recipe.method == REAL:
        return (Phase("real", dataclasses.replace(first, epochs=first.epochs + second.epochs)),)
    last = Phase("step 2", second, recipe.quantised_epochs, recipe.exact_epochs, deployed=True)
    return Phase("step 1", first), last


def load_first(path: Path, network: Network) -> BinaryNetwork:
    """The network that step 1 left in a file. Raises CheckpointError where it is another's."""
    model = BinaryNetwork(network)
    try:
        model.load_state_dict(load_file(path))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise CheckpointError(f"File {path} must hold step 1 of {network.name}: {error}") from error
    return model


def binary_from_real(first: BinaryNetwork, recipe: Recipe) -> BinaryNetwork:
    """A network with binary weights that starts from the tensors of step 1."""
    second = BinaryNetwork(first.network, layer_maker(recipe.method, **recipe.options))
    second.load_state_dict(first.state_dict(), strict=False)
    for layer in binary_layers(second):
        layer.start()
    return second
