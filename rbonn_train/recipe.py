"""What to train and how: the YAML files of ``models/``, as frozen dataclasses.

The recipe has two steps (section 4.1 of the paper): binary activations with real weights, then
RBONN weights that start from step 1; the last epochs simulate the accelerator's rounding.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from isa.network import Network, NetworkError, network_from_dict
from rbonn_train.binary import Mode
from rbonn_train.quant import PERCENTILE

MODELS_FOLDER = Path(__file__).parent.parent / "models"


class ModelError(ValueError):
    """An unknown model, or a model file that breaks the rules of this module."""


@dataclass(frozen=True)
class Step:
    """One training step; the learning rate falls linearly to 0 over its iterations.

    ``weight_decay`` acts on the weights of convolutions and the classifier only.
    """

    epochs: int
    learning_rate: float = 1e-3
    weight_decay: float = 0.0


@dataclass(frozen=True)
class Recipe:
    """``penalty`` is the paper's lambda; ``u_rate`` the learning rate of u over the others';
    ``quantised_epochs`` the last epochs of step 2, which simulate the accelerator; ``shift`` the
    largest random translation in pixels; ``percentile`` of |y| that a residual's range covers."""

    binary_activations: Step
    binary_weights: Step
    method: str = Mode.RELEASED.value
    penalty: float = 1e-4
    tau: float = 0.6
    u_rate: float = 0.1
    batch: int = 128
    quantised_epochs: int = 2
    flip: bool = True
    shift: int = 0
    label_smoothing: float = 0.0
    percentile: float = PERCENTILE

    def __post_init__(self) -> None:
        if self.method not in (known := [mode.value for mode in Mode]):
            raise ModelError(f"Method must be one of {', '.join(known)}, not {self.method!r}")
        for step, least in ((self.binary_activations, 0), (self.binary_weights, 1)):
            if step.epochs < least or step.learning_rate <= 0:
                raise ModelError(
                    f"A step must have at least {least} epochs and a learning rate above 0, not "
                    f"{step.epochs} and {step.learning_rate}"
                )
        if not 1 <= self.quantised_epochs <= self.binary_weights.epochs:
            raise ModelError(
                f"quantised_epochs must be 1 to {self.binary_weights.epochs}, not "
                f"{self.quantised_epochs}"
            )

    def with_epochs(self, epochs: int) -> "Recipe":
        """The same recipe over ``epochs`` in all, shared between the steps in its proportion; a
        single epoch is one of step 2, from scratch."""
        if epochs < 1:
            raise ModelError(f"Epochs must be at least 1, not {epochs}")
        first, second = self.binary_activations, self.binary_weights
        share = round(epochs * first.epochs / (first.epochs + second.epochs))
        share = min(max(share, 1), epochs - 1)  # 0 for a single epoch
        return dataclasses.replace(
            self,
            binary_activations=dataclasses.replace(first, epochs=share),
            binary_weights=dataclasses.replace(second, epochs=epochs - share),
            quantised_epochs=min(self.quantised_epochs, epochs - share),
        )


@dataclass(frozen=True)
class ModelConfig:
    """A network and its recipe; ``checkpoint`` is the file that ships with it. Where none does,
    ``untrained_seed`` may ask for seeded weights in its place."""

    network: Network
    recipe: Recipe
    description: str = ""
    checkpoint: Path = field(default=Path())
    untrained_seed: int | None = None


def known_models() -> list[str]:
    return sorted(path.stem for path in MODELS_FOLDER.glob("*.yaml"))


def load_model_yaml(name: str) -> ModelConfig:
    """The model ``models/NAME.yaml``, or the file ``name`` itself if it ends with .yaml.

    Raises ModelError, with the known models where the name is unknown.
    """
    path = Path(name) if name.endswith(".yaml") else MODELS_FOLDER / f"{name}.yaml"
    if not path.is_file() or (not name.endswith(".yaml") and name not in known_models()):
        raise ModelError(
            f"Model must be one of {', '.join(known_models())} or a .yaml file, not {name!r}"
        )
    try:
        raw = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ModelError(f"Model file {path} must be YAML: {error}") from error
    if not isinstance(raw, dict) or not {"network", "recipe"} <= set(raw):
        raise ModelError(f"Model file {path} must have the keys network and recipe")
    optional = {"description", "deployment", "untrained_seed"}
    if unknown := sorted(set(raw) - {"network", "recipe"} - optional):
        raise ModelError(f"Model file {path} must not have the keys {unknown}")
    try:
        network = network_from_dict({"name": path.stem, **raw["network"]})
        recipe = recipe_from_dict(raw["recipe"])
    except (NetworkError, ModelError, TypeError) as error:
        raise ModelError(f"Model file {path}: {error}") from error
    seed = raw.get("untrained_seed")
    if seed is not None and (type(seed) is not int or seed < 0):
        raise ModelError(f"Model file {path}: untrained_seed must be a number from 0, not {seed!r}")
    return ModelConfig(
        network, recipe, raw.get("description", ""), path.with_suffix(".safetensors"), seed
    )


def recipe_from_dict(raw: Mapping[str, Any]) -> Recipe:
    """A recipe from plain data. Raises ModelError for a missing or unknown key."""
    try:
        steps = {key: Step(**raw[key]) for key in ("binary_activations", "binary_weights")}
        return Recipe(**{**raw, **steps})
    except KeyError as error:
        raise ModelError(f"Recipe must have the key {error}") from error
    except TypeError as error:
        raise ModelError(f"Recipe must have known keys: {error}") from error
