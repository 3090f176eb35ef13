"""Runs as the command line asks for them: begun from a model file, or resumed from a state."""

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from isa.network import Network, network_from_dict
from rbonn_train.config import ModelConfig, load_model_yaml
from rbonn_train.data import DataError, Dataset, NoFilesError, fit_images, load_split
from rbonn_train.files import FileSet, has_shards, list_folder, list_shards
from rbonn_train.folder import is_folder_set, load_folder
from rbonn_train.loop import Trainer
from rbonn_train.outside import OUTSIDE
from rbonn_train.parallel import joined
from rbonn_train.recipe import (
    Recipe,
    RecipeError,
    load_recipe_changes,
    parse_settings,
    recipe_from_dict,
)
from rbonn_train.state import (
    SUFFIX,
    StateError,
    environment,
    find_state,
    read_state,
)

OUT = Path("build/train")
DEVICES = ("cpu", "cuda")
OTHERS = (
    "for images of other data sets, DIR must have folders train/CLASS and test/CLASS of them, or "
    "shards train/*.tar and test/*.tar"
)


def configure(
    model: str,
    *,
    recipe: str | None = None,
    method: str | None = None,
    settings: Iterable[str] = (),
    epochs: int | None = None,
) -> ModelConfig:
    """A model file with its recipe changed, in this order, by a recipe file, a method, settings
    ``key=value``, and the number of epochs in all."""
    config = load_model_yaml(model)
    changed = config.recipe
    if recipe is not None:
        changed = changed.changed(load_recipe_changes(recipe))
    if method is not None:
        changed = changed.changed({"method": method})
    if changes := parse_settings(settings):
        changed = changed.changed(changes)
    if epochs is not None:
        changed = changed.with_epochs(epochs)
    return dataclasses.replace(config, recipe=changed)


def train(
    config: ModelConfig,
    *,
    seed: int = 0,
    out: Path = OUT,
    data: Path | None = None,
    limit: int | None = None,
    **options: Any,
) -> Path:
    """Trains a model and returns its file in the folder ``out``.

    ``data``: folder of the data set; it, and a teacher's file, are remembered by their whole paths.
    ``limit``: take only the first images of the training set. ``options``: those of
    :class:`rbonn_train.loop.Trainer`. Raises StateError where an interrupted run of the same name
    would be lost.
    """
    check_device(options.get("device", "cpu"))
    if out.exists() and not out.is_dir():
        raise StateError(f"Folder of a run must be a folder, not the file {out}")
    path = out / f"{config.network.name}{SUFFIX}"
    if path.exists():
        raise StateError(
            f"Folder {out} holds an interrupted run: go on with `rbonn train --resume {out}`, or "
            f"remove {path}"
        )
    config = dataclasses.replace(config, recipe=_anchored(config.recipe))
    notes = {"data": None if data is None else str(data.resolve()), "limit": limit}
    sets = load_data(config.network, data, limit, config.recipe)
    with joined(options.get("device", "cpu")) as world:
        return Trainer(config, *sets, seed, out, notes=notes, world=world, **options).run()


def _anchored(recipe: Recipe) -> Recipe:
    """The recipe, its teacher's file found from any working folder."""
    if not recipe.teacher or recipe.teacher in OUTSIDE:
        return recipe
    return dataclasses.replace(recipe, teacher=str(Path(recipe.teacher).resolve()))


def resume(folder: Path, name: str | None = None, **options: Any) -> Path:
    """Goes on with the run in ``folder``, as if it had never been interrupted. Raises StateError,
    also for a cell of a grid, whose state does not say where its data are."""
    path = find_state(folder, name)
    content = read_state(path)
    run, progress = content["run"], content["progress"]
    if "data" not in run:
        raise StateError(
            f"Training state {path} must be of `rbonn train`, not of a cell of a grid: repeat "
            f"`rbonn ablate` to go on"
        )
    check_device(options.get("device", "cpu"))
    config = ModelConfig(network_from_dict(run["network"]), recipe_from_dict(run["recipe"]))
    data = None if run["data"] is None else Path(run["data"])
    sets = load_data(config.network, data, run["limit"], config.recipe)
    notes = {"data": run["data"], "limit": run["limit"]}
    with joined(options.get("device", "cpu")) as world:
        trainer = Trainer(config, *sets, run["seed"], folder, notes=notes, world=world, **options)
        trainer.restore(content)
        if trainer.progress:
            print(
                f"{path}: going on with {trainer.phases[progress['phase']].title}, epoch "
                f"{progress['epoch'] + 1}, batch {progress['batch']}"
            )
            now = environment(trainer.device.type, world.size)
            for line in differences(content["environment"], now):
                print(line)
        return trainer.run()


def differences(recorded: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What differs from the environment of a state, in which its sums round as they did."""
    return [
        f"note: {name} is {now[name]}, was {value}: weights will differ in their last bits"
        for name, value in recorded.items()
        if now[name] != value
    ]


def check_device(device: str) -> None:
    """Raises RecipeError for a device that is unknown or not there."""
    if device not in DEVICES:
        raise RecipeError(f"Device must be one of {', '.join(DEVICES)}, not {device!r}")
    if device == "cuda" and not torch.cuda.is_available():
        raise RecipeError("Device must be cpu here: torch finds no CUDA device")


def load_data(
    network: Network, data: Path | None, limit: int | None = None, recipe: Recipe | None = None
) -> tuple[Dataset | FileSet, Dataset | FileSet]:
    """Training set, of ``limit`` images at most, and test set. Images are made to fit and kept in
    memory, but those of shards, and of folders if the ``recipe`` cuts or lights them, stay in
    their files. Raises DataError."""
    train_set, test_set = (_load(split, network, data, recipe) for split in ("train", "test"))
    return (train_set if limit is None else train_set.take(limit)), test_set


def _load(
    split: str, network: Network, data: Path | None, recipe: Recipe | None
) -> Dataset | FileSet:
    if data is None or not is_folder_set(data):
        try:
            dataset = load_split(split, data)
        except NoFilesError as error:
            raise DataError(f"{error}; {OTHERS}") from error
        return Dataset(fit_images(dataset.images, network), dataset.labels)
    if has_shards(data):
        return list_shards(split, data)
    if recipe is not None and recipe.in_files:
        return list_folder(split, data, network)
    return load_folder(split, data, network)
