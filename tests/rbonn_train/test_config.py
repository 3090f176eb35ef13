"""Model files: those that ship, and what is said of broken ones."""

from pathlib import Path

import pytest

from rbonn_train.config import ModelError, known_models, load_model_yaml

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
        ("method: paper", "method: magic", "method must be one of none, released, released-rank"),
        ("epochs: 8", "epochs: 0", r"binary_weights\.epochs must be at least 1, not 0"),
        ("epochs: 8", "epochs: -1", "must have at least 0 epochs and a learning rate above 0"),
        ("quantised_epochs: 3", "quantised_epochs: 9", "quantised_epochs must be 0 to 8, not 9"),
        (
            "epochs: 8",
            "epoch: 8",
            r"among .*; not 'binary_weights\.epoch'",
        ),
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
