"""Recipes: epochs shared between the steps, changes from files and the command line, errors."""

from pathlib import Path
from typing import Any

import pytest

from rbonn_train.methods import METHODS, REAL
from rbonn_train.recipe import (
    Recipe,
    RecipeError,
    Step,
    known_recipes,
    load_recipe_changes,
    parse_settings,
    recipe_from_dict,
)

RAW: dict[str, Any] = {
    "binary_activations": {"epochs": 4, "weight_decay": "1e-5"},
    "binary_weights": {"epochs": 8},
    "quantised_epochs": 3,
    "exact_epochs": 2,
}


def test_epochs_are_shared_between_the_steps() -> None:
    recipe = recipe_from_dict(RAW)

    def shares(recipe: Recipe, epochs: int) -> tuple[int, int, int, int]:
        other = recipe.with_epochs(epochs)
        steps = other.binary_activations, other.binary_weights
        return steps[0].epochs, steps[1].epochs, other.quantised_epochs, other.exact_epochs

    assert shares(recipe, 12) == (4, 8, 3, 2)
    assert shares(recipe, 2) == (1, 1, 1, 0)
    assert shares(recipe, 3) == (1, 2, 2, 1)
    assert shares(recipe, 1) == (0, 1, 1, 0)
    assert shares(Recipe(Step(1), Step(19)), 2) == (1, 1, 1, 0)
    assert shares(Recipe(Step(0), Step(5)), 10) == (0, 10, 2, 0)
    assert recipe.with_epochs(6).binary_activations.weight_decay == 1e-5
    with pytest.raises(RecipeError, match="Epochs must be at least 1, not 0"):
        recipe.with_epochs(0)


def test_settings_are_yaml_with_dotted_keys() -> None:
    changes = parse_settings(
        ["binary_weights.epochs=20", "binary_weights.learning_rate=5e-4", "flip=false", "ema=0.9"]
    )
    recipe = recipe_from_dict(RAW).changed(changes)
    assert recipe.binary_weights == Step(20, 5e-4)
    assert recipe.binary_activations == Step(4, 1e-3, 1e-5)
    assert (recipe.flip, recipe.ema, recipe.quantised_epochs) == (False, 0.9, 3)
    with pytest.raises(RecipeError, match="A setting must be key=value, not 'ema'"):
        parse_settings(["ema"])
    with pytest.raises(RecipeError, match="The value of ema must be YAML"):
        parse_settings(["ema=["])


def test_another_method_starts_from_its_own_options() -> None:
    recipe = recipe_from_dict(RAW).changed(parse_settings(["method=paper", "options.tau=0.8"]))
    assert recipe.options == {"tau": 0.8}
    assert recipe.changed({"options": {"penalty": 0}}).options == {"tau": 0.8, "penalty": 0.0}
    assert recipe.changed({"method": "bop"}).options == {}
    assert recipe.changed({"method": "paper"}).options == {"tau": 0.8}


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("method=magic", f"method must be one of {', '.join((*METHODS, REAL))}, not 'magic'"),
        ("options.gamma=1", "Options of method released must be among: penalty, tau; not 'gamma'"),
        ("options.tau=2", "penalty must be at least 0 and tau 0 to 1, not 0.0001 and 2.0"),
        ("options=3", "options must be a mapping, not 3"),
        ("batch=many", "batch must be an integer, not 'many'"),
        ("batch=2.5", "batch must be an integer, not 2.5"),
        ("batch=1", "batch must be at least 2, not 1"),
        ("flip=1", "flip must be true or false, not 1"),
        ("ema=x", "ema must be a number, not 'x'"),
        ("ema=.nan", "ema must be a number, not nan"),
        ("ema=true", "ema must be a number, not True"),
        ("ema=1", "ema must be at least 0 and below 1, not 1.0"),
        ("label_smoothing=-0.1", "label_smoothing must be at least 0 and below 1, not -0.1"),
        ("teacher=3", "teacher must be text, not 3"),
        ("teacher_weight=2", "teacher_weight must be 0 to 1, not 2.0"),
        ("temperature=0", "temperature must be above 0, not 0.0"),
        ("clip=-1", "clip must be at least 0, not -1.0"),
        ("precision=float16", "precision must be one of float32, bfloat16, not 'float16'"),
        ("binary_weights=7", "binary_weights must be a mapping, not 7"),
        ("binary_weights.epochs=x", "binary_weights.epochs must be an integer, not 'x'"),
        ("quantised_epochs=9", "quantised_epochs must be 0 to 8, not 9"),
        ("exact_epochs=4", "exact_epochs must be 0 to quantised_epochs, 3, not 4"),
        ("binary_weights.weight_decay=-1", "weight_decay must be at least 0, not -1.0"),
    ],
)
def test_wrong_values_are_named(setting: str, message: str) -> None:
    with pytest.raises(RecipeError) as error:
        recipe_from_dict(RAW).changed(parse_settings([setting]))
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("method", "option", "known"),
    [("none", "tau", "penalty"), ("bop", "sigma", "gamma, threshold"), ("plain", "tau", "none")],
)
def test_options_without_effect_are_refused(method: str, option: str, known: str) -> None:
    with pytest.raises(RecipeError) as error:
        recipe_from_dict({**RAW, "method": method, "options": {option: 0.5}})
    assert str(error.value) == (
        f"Options of method {method} must be among: {known}; not '{option}'"
    )
    with pytest.raises(RecipeError, match=r"^options must be none for method real, not "):
        recipe_from_dict({**RAW, "method": "real", "options": {option: 0.5}})


def test_unknown_keys_list_the_known() -> None:
    with pytest.raises(RecipeError) as error:
        recipe_from_dict(RAW).changed({"binary_weights": {"rate": 1}})
    assert str(error.value) == (
        "Keys of a recipe must be among binary_weights.epochs, binary_weights.learning_rate, "
        "binary_weights.weight_decay; not 'binary_weights.rate'"
    )
    with pytest.raises(RecipeError, match="; not 'epochs'"):
        recipe_from_dict(RAW).changed({"epochs": 3})
    with pytest.raises(RecipeError, match=r"Recipe must have the key 'binary_weights\.epochs'"):
        recipe_from_dict({**RAW, "binary_weights": {}})


@pytest.mark.parametrize("name", known_recipes())
def test_recipes_that_ship(name: str) -> None:
    assert recipe_from_dict(RAW).changed(load_recipe_changes(name)) != recipe_from_dict(RAW)


def test_adambnn_decays_weights_in_the_first_step_only() -> None:
    recipe = recipe_from_dict(RAW).changed(load_recipe_changes("adambnn"))
    assert recipe.method == "reactnet"
    assert recipe.binary_activations == Step(4, 1e-3, 5e-6)
    assert recipe.binary_weights == Step(8, 1e-3, 0.0)


def test_recipe_files(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("clip: 1")
    assert recipe_from_dict(RAW).changed(load_recipe_changes(str(path))).clip == 1.0
    for text in ("[", "- 1"):
        path.write_text(text)
        with pytest.raises(RecipeError, match=f"Recipe file {path} must"):
            load_recipe_changes(str(path))
    known = ", ".join(known_recipes())
    with pytest.raises(RecipeError, match=rf"Recipe must be one of {known} or a \.yaml file, not"):
        load_recipe_changes("best")


def test_checking_a_recipe_draws_no_random_numbers() -> None:
    import torch

    torch.manual_seed(1)
    before = torch.get_rng_state()
    recipe_from_dict({**RAW, "method": "paper"})
    assert torch.equal(before, torch.get_rng_state())
