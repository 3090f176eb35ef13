"""What to train: the YAML files of ``models/``."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from isa.network import Network, NetworkError, network_from_dict
from rbonn_train.recipe import Recipe, RecipeError, recipe_from_dict

MODELS_FOLDER = Path(__file__).parent.parent / "models"


class ModelError(ValueError):
    """An unknown model, or a model file that breaks the rules of this module."""


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
        network, recipe = config_from_dict(path.stem, raw)
    except (NetworkError, RecipeError, TypeError) as error:
        raise ModelError(f"Model file {path}: {error}") from error
    seed = raw.get("untrained_seed")
    if seed is not None and (type(seed) is not int or seed < 0):
        raise ModelError(f"Model file {path}: untrained_seed must be a number from 0, not {seed!r}")
    return ModelConfig(
        network, recipe, raw.get("description", ""), path.with_suffix(".safetensors"), seed
    )


def config_from_dict(name: str, raw: dict[str, Any]) -> tuple[Network, Recipe]:
    """Network and recipe from plain data with those keys. Raises NetworkError, RecipeError."""
    for key in ("network", "recipe"):
        if not isinstance(raw[key], dict):
            raise RecipeError(f"{key} must hold keys and values, not {raw[key]!r}")
    return network_from_dict({"name": name, **raw["network"]}), recipe_from_dict(raw["recipe"])
