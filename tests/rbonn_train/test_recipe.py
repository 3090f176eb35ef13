"""Model files: those that ship, and what is said of broken ones."""

from pathlib import Path

import pytest

from rbonn_train.recipe import ModelError, known_models, load_model_yaml

GOOD = """
network: {input_size: [8, 8], input_channels: 1, classes: 4, widths: [8], blocks_per_stage: [1],
          mean: [0.3], std: [0.3]}
recipe: {binary_activations: {epochs: 4, weight_decay: 1.0e-5}, binary_weights: {epochs: 8},
         quantised_epochs: 3, method: paper}
"""


def write(folder: Path, text: str) -> str:
    path = folder / "mine.yaml"
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize("name", known_models())
def test_shipped_models(name: str) -> None:
    config = load_model_yaml(name)
    assert config.network.name == name
    assert config.description
    assert config.checkpoint.name == f"{name}.safetensors"


def test_the_network_of_the_first_bitstream() -> None:
    network = load_model_yaml("fmnist-s").network
    assert (network.widths, network.blocks_per_stage) == ((32, 64, 128), (2, 2, 2))
    assert (network.input_size, network.classes) == ((28, 28), 10)


def test_a_file_of_ones_own(tmp_path: Path) -> None:
    config = load_model_yaml(write(tmp_path, GOOD))
    assert config.network.name == "mine"
    assert config.recipe.binary_activations.weight_decay == 1e-5
    assert config.recipe.method == "paper"


def test_unknown_model_lists_the_known() -> None:
    with pytest.raises(ModelError) as error:
        load_model_yaml("resnet")
    known = ", ".join(known_models())
    assert str(error.value) == f"Model must be one of {known} or a .yaml file, not 'resnet'"
    for name in ("../models/tiny", "nowhere.yaml"):
        with pytest.raises(ModelError, match="Model must be one of"):
            load_model_yaml(name)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("method: paper", "method: magic", "Method must be one of none, released, released-rank"),
        (
            "epochs: 8",
            "epochs: 0",
            "must have at least 1 epochs and a learning rate above 0, not 0",
        ),
        ("quantised_epochs: 3", "quantised_epochs: 9", "quantised_epochs must be 1 to 8, not 9"),
        ("epochs: 8", "epoch: 8", "Recipe must have known keys"),
        ("binary_weights", "binary_weight", "Recipe must have the key 'binary_weights'"),
        ("widths: [8]", "widths: [8, 17]", "must have one width per stage"),
        ("classes: 4", "klasses: 4", "Network keys must be among"),
        ("network:", "net:", "must have the keys network and recipe"),
        ("network:", "extra: 1\nnetwork:", r"must not have the keys \['extra'\]"),
        ("network:", "network: [", "must be YAML"),
    ],
)
def test_broken_files(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in GOOD
    with pytest.raises(ModelError, match=message):
        load_model_yaml(write(tmp_path, GOOD.replace(old, new)))


def test_epochs_are_shared_between_the_steps(tmp_path: Path) -> None:
    recipe = load_model_yaml(write(tmp_path, GOOD)).recipe

    def shares(epochs: int) -> tuple[int, int, int]:
        other = recipe.with_epochs(epochs)
        steps = other.binary_activations, other.binary_weights
        return steps[0].epochs, steps[1].epochs, other.quantised_epochs

    assert shares(12) == (4, 8, 3)
    assert shares(2) == (1, 1, 1)
    assert shares(3) == (1, 2, 2)
    text = GOOD.replace("epochs: 4", "epochs: 1").replace("epochs: 8", "epochs: 19")
    recipe_with_short_step = load_model_yaml(write(tmp_path, text)).recipe
    assert recipe_with_short_step.with_epochs(2).binary_activations.epochs == 1
    assert recipe.with_epochs(6).binary_activations.weight_decay == 1e-5
    assert shares(1) == (0, 1, 1)
    with pytest.raises(ModelError, match="Epochs must be at least 1, not 0"):
        recipe.with_epochs(0)
