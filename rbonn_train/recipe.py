"""How to train, as frozen dataclasses: what the ``recipe`` of a model file says.

The recipe has two steps: binary activations with real weights, then binary weights that start from
step 1; the last epochs simulate the accelerator's rounding.
"""

import dataclasses
import math
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import yaml

from rbonn_train.methods import METHODS, REAL, layer_maker
from rbonn_train.quant import PERCENTILE

RECIPES_FOLDER = Path(__file__).parent / "recipes"
PRECISIONS = ("float32", "bfloat16")


class RecipeError(ValueError):
    """A recipe that breaks the rules of this module."""


@dataclass(frozen=True)
class Step:
    """One training step; the learning rate falls linearly to 0 over its iterations.

    ``weight_decay`` acts on the weights of convolutions and the classifier only.
    """

    epochs: int
    learning_rate: float = 1e-3
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        if self.epochs < 0 or self.learning_rate <= 0:
            raise RecipeError(
                f"A step must have at least 0 epochs and a learning rate above 0, not "
                f"{self.epochs} and {self.learning_rate}"
            )
        if self.weight_decay < 0:
            raise RecipeError(f"weight_decay must be at least 0, not {self.weight_decay}")


@dataclass(frozen=True)
class Recipe:
    """``method``: a name of :data:`rbonn_train.methods.METHODS`, with its ``options``, or ``real``:
    a network without anything binary, to be a teacher. ``u_rate``: the learning rate of RBONN's u
    over the others'.

    ``quantised_epochs``: the last epochs of step 2, which simulate the accelerator, or 0: scales
    are calibrated after training alone. ``percentile`` of |y| that a residual's range covers then.
    ``exact_epochs``: the last of these, in which scales and statistics of BN stay and batches are
    computed without rounding and in the accelerator's integers in turn.
    ``shift``: the largest random translation in pixels. ``crop``: the smallest share of an image
    that a random crop takes, 1 for none; ``lighting``: the deviation of random colours, in those of
    ImageNet's pixels. Both need images in files.

    ``teacher``: a checkpoint, what method ``real`` wrote, or a name of ``OUTSIDE``; the loss is
    then ``teacher_weight`` times the cross-entropy with its distribution at ``temperature``, plus
    the rest times that with the labels. ``precision``: of forward and backward pass (``bfloat16``:
    autocast, but in the last epochs, whose rounding needs float32); ``clip``: the largest norm of
    the gradient, 0 for none; ``ema``: decay of the average of the weights that is tested and
    written, 0 for none.
    """

    binary_activations: Step
    binary_weights: Step
    method: str = "released"
    options: Mapping[str, float] = field(default_factory=dict)
    u_rate: float = 0.1
    batch: int = 128
    quantised_epochs: int = 2
    exact_epochs: int = 0
    percentile: float = PERCENTILE
    flip: bool = True
    shift: int = 0
    crop: float = 1.0
    lighting: float = 0.0
    label_smoothing: float = 0.0
    teacher: str | None = None
    teacher_weight: float = 1.0
    temperature: float = 1.0
    precision: str = "float32"
    clip: float = 0.0
    ema: float = 0.0

    def __post_init__(self) -> None:
        def rule(holds: bool, name: str, text: str) -> None:
            if not holds:
                raise RecipeError(f"{name} must be {text}, not {getattr(self, name)!r}")

        known = (*METHODS, REAL)
        rule(self.method in known, "method", f"one of {', '.join(known)}")
        rule(self.method != REAL or not self.options, "options", "none for method real")
        try:
            if self.method != REAL:
                with torch.device("meta"):  # the layer checks its options; draws no random numbers
                    layer_maker(self.method, **self.options)(1, 1, stride=1)
        except ValueError as error:
            raise RecipeError(str(error)) from error
        if self.binary_weights.epochs < 1:
            raise RecipeError("binary_weights.epochs must be at least 1, not 0")
        last = self.binary_weights.epochs
        rule(0 <= self.quantised_epochs <= last, "quantised_epochs", f"0 to {last}")
        most = self.quantised_epochs
        rule(0 <= self.exact_epochs <= most, "exact_epochs", f"0 to quantised_epochs, {most}")
        rule(self.batch >= 2, "batch", "at least 2")
        rule(self.shift >= 0, "shift", "at least 0")
        rule(0 < self.crop <= 1, "crop", "above 0 and at most 1")
        rule(self.lighting >= 0, "lighting", "at least 0")
        rule(self.u_rate >= 0, "u_rate", "at least 0")
        rule(self.clip >= 0, "clip", "at least 0")
        rule(self.temperature > 0, "temperature", "above 0")
        rule(50 < self.percentile <= 100, "percentile", "above 50 and at most 100")
        rule(self.precision in PRECISIONS, "precision", f"one of {', '.join(PRECISIONS)}")
        for name in ("label_smoothing", "ema"):
            rule(0 <= getattr(self, name) < 1, name, "at least 0 and below 1")
        rule(0 <= self.teacher_weight <= 1, "teacher_weight", "0 to 1")

    @property
    def in_files(self) -> bool:
        """Whether images must stay in their files, as they are cut and lit anew each time."""
        return self.crop < 1 or self.lighting > 0

    def with_epochs(self, epochs: int) -> "Recipe":
        """The same recipe over ``epochs`` in all, shared between the steps in its proportion, at
        least one each where it has both; a single epoch is one of step 2, from scratch. The first
        of step 2 is never exact."""
        if epochs < 1:
            raise RecipeError(f"Epochs must be at least 1, not {epochs}")
        first, second = self.binary_activations, self.binary_weights
        share = round(epochs * first.epochs / (first.epochs + second.epochs))
        share = min(max(share, 1), epochs - 1) if first.epochs else 0  # 0 for a single epoch
        quantised = min(self.quantised_epochs, epochs - share)
        return dataclasses.replace(
            self,
            binary_activations=dataclasses.replace(first, epochs=share),
            binary_weights=dataclasses.replace(second, epochs=epochs - share),
            quantised_epochs=quantised,
            exact_epochs=min(self.exact_epochs, quantised, epochs - share - 1),
        )

    def published(self) -> dict[str, Any]:
        """As plain data for others: a teacher's file without its folder, which only this machine
        has."""
        teacher = self.teacher if self.teacher is None else Path(self.teacher).name
        return {**dataclasses.asdict(self), "teacher": teacher}

    def changed(self, changes: Mapping[str, Any]) -> "Recipe":
        """The recipe with some values replaced; steps may be given in part. Another method starts
        from its own options. Raises RecipeError."""
        raw = dataclasses.asdict(self)
        if changes.get("method", self.method) != self.method:
            raw["options"] = {}
        return recipe_from_dict(_merged(raw, changes))


def _merged(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(old)
    for key, value in new.items():
        if isinstance(value, Mapping) and isinstance(old.get(key), Mapping):
            value = _merged(old[key], value)
        merged[key] = value
    return merged


def recipe_from_dict(raw: Mapping[str, Any]) -> Recipe:
    """A recipe from plain data. Raises RecipeError for a missing, unknown or ill-typed key."""
    values = dict(raw)
    for key in ("binary_activations", "binary_weights"):
        if key not in raw:
            raise RecipeError(f"Recipe must have the key {key!r}")
        if not isinstance(raw[key], Mapping):
            raise RecipeError(f"{key} must be a mapping, not {raw[key]!r}")
        values[key] = Step(**_typed(Step, raw[key], f"{key}."))
    options = values.get("options", {})
    if not isinstance(options, Mapping):
        raise RecipeError(f"options must be a mapping, not {options!r}")
    values["options"] = {k: _value(float, v, f"options.{k}") for k, v in options.items()}
    return Recipe(**_typed(Recipe, values, ""))


def _typed(kind: type, raw: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """The values with the types that the dataclass ``kind`` names."""
    hints = typing.get_type_hints(kind)
    for key in raw:
        if key not in hints:
            known = ", ".join(prefix + name for name in hints)
            raise RecipeError(f"Keys of a recipe must be among {known}; not {prefix + str(key)!r}")
    for item in dataclasses.fields(kind):
        required = item.default is dataclasses.MISSING
        if required and item.default_factory is dataclasses.MISSING and item.name not in raw:
            raise RecipeError(f"Recipe must have the key {prefix + item.name!r}")
    return {key: _value(hints[key], value, prefix + key) for key, value in raw.items()}


def _value(hint: Any, value: Any, name: str) -> Any:
    """``value`` as the type ``hint``. YAML reads 1e-3, without a dot, as a string."""
    if isinstance(hint, types.UnionType):  # X | None
        return None if value is None else _value(typing.get_args(hint)[0], value, name)
    if hint not in (int, float, bool, str):
        return value
    if hint is float and not isinstance(value, bool):
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = math.nan
        if math.isfinite(number):
            return number
    elif type(value) is hint:
        return value
    kinds = {int: "an integer", float: "a number", bool: "true or false", str: "text"}
    raise RecipeError(f"{name} must be {kinds[hint]}, not {value!r}")


def known_recipes() -> list[str]:
    return sorted(path.stem for path in RECIPES_FOLDER.glob("*.yaml"))


def load_recipe_changes(name: str) -> dict[str, Any]:
    """What the recipe file of that name, or the .yaml file ``name``, changes in a model's recipe.
    Raises RecipeError."""
    path = Path(name) if name.endswith(".yaml") else RECIPES_FOLDER / f"{name}.yaml"
    if not path.is_file() or (not name.endswith(".yaml") and name not in known_recipes()):
        known = ", ".join(known_recipes())
        raise RecipeError(f"Recipe must be one of {known} or a .yaml file, not {name!r}")
    try:
        raw = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RecipeError(f"Recipe file {path} must be YAML: {error}") from error
    if not isinstance(raw, dict):
        raise RecipeError(f"Recipe file {path} must hold keys and values")
    raw.pop("description", None)
    return raw


def parse_settings(settings: Iterable[str]) -> dict[str, Any]:
    """Nested changes from ``key=value`` with dots in the keys; values are YAML. Raises
    RecipeError."""
    changes: dict[str, Any] = {}
    for text in settings:
        key, equals, value = text.partition("=")
        if not key or not equals:
            raise RecipeError(f"A setting must be key=value, not {text!r}")
        try:
            parsed = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise RecipeError(f"The value of {key} must be YAML, not {value!r}") from error
        for part in reversed(key.split(".")):
            parsed = {part: parsed}
        changes = _merged(changes, parsed)
    return changes
