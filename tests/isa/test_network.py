"""Rules of a network word for word, its sizes, its tensors, and its JSON."""

import dataclasses
import json
import math

import pytest

from isa.network import (
    CheckpointInfo,
    Network,
    NetworkError,
    Quantisation,
    Stem,
    network_from_dict,
    tensor_shapes,
)

GOOD = Network("net", (32, 16), 3, 10, (8, 16), (2, 1), (0.4, 0.5, 0.6), (0.2, 0.3, 0.2))
POOLED = Network("big", (64, 32), 1, 5, (4, 8, 8), (1, 2, 1), (0.5,), (0.5,), Stem(7, 2, True))


def refused(call, *args, **kwargs) -> str:
    with pytest.raises(NetworkError) as error:
        call(*args, **kwargs)
    return str(error.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": ""}, "Network name must be 1 to 32 bytes long, not ''"),
        ({"name": "ü" * 17}, f"Network name must be 1 to 32 bytes long, not {'ü' * 17!r}"),
        ({"widths": (8,)}, "Network must have one width per stage, not (8,) for (2, 1)"),
        (
            {"widths": (), "blocks_per_stage": ()},
            "Network must have one width per stage, not () for ()",
        ),
        (
            {"blocks_per_stage": (2, 0)},
            "Stages must have at least one block and one channel, not (2, 0) blocks of (8, 16) "
            "channels",
        ),
        (
            {"widths": (0, 16)},
            "Stages must have at least one block and one channel, not (2, 1) blocks of (0, 16) "
            "channels",
        ),
        (
            {"widths": (8, 17)},
            "A stage's width must be 1 to 2 times the one before it, not 17 after 8",
        ),
        (
            {"widths": (8, 7)},
            "A stage's width must be 1 to 2 times the one before it, not 7 after 8",
        ),
        ({"input_channels": 5}, "Input channels must be 1 to 4, not 5"),
        ({"input_channels": 0}, "Input channels must be 1 to 4, not 0"),
        (
            {"mean": (0.5,)},
            "mean and std must have one value per input channel (3), not 1 and 3",
        ),
        ({"std": ()}, "mean and std must have one value per input channel (3), not 3 and 0"),
        ({"mean": (0.1, math.inf, 0.1)}, "mean must be finite, not (0.1, inf, 0.1)"),
        ({"std": (0.2, 0.0, 0.2)}, "std must be positive, not (0.2, 0.0, 0.2)"),
        ({"std": (0.2, math.nan, 0.2)}, "std must be positive, not (0.2, nan, 0.2)"),
        ({"classes": 0}, "Classes must be 1 to 1024, not 0"),
        ({"classes": 1025}, "Classes must be 1 to 1024, not 1025"),
        ({"input_size": (32,)}, "Input size must be height and width, not (32,)"),
        ({"input_size": (8, 8, 3)}, "Input size must be height and width, not (8, 8, 3)"),
        (
            {"input_size": (32, 15)},
            "Input size must be a multiple of 2 for this stem and 2 stages, not 32x15",
        ),
        (
            {"input_size": (0, 16)},
            "Input size must be a multiple of 2 for this stem and 2 stages, not 0x16",
        ),
        (
            {"input_size": (28, 28), "stem": Stem(7, 2, True)},
            "Input size must be a multiple of 8 for this stem and 2 stages, not 28x28",
        ),
    ],
)  # fmt: skip
def test_rules(changes, message):
    assert refused(dataclasses.replace, GOOD, **changes) == message


@pytest.mark.parametrize(("kernel", "stride"), [(3, 2), (7, 1), (5, 1), (1, 1)])
def test_stems(kernel, stride):
    assert refused(Stem, kernel, stride) == (
        f"Stem must be 3x3 stride 1 or 7x7 stride 2, not {kernel}x{kernel} stride {stride}"
    )
    assert (Stem().padding, Stem(7, 2).padding) == (1, 3)


def test_limits_that_pass():
    dataclasses.replace(GOOD, name="ü" * 16, classes=1024, widths=(8, 8), input_size=(2, 2))


def test_sizes_and_blocks():
    assert (GOOD.stem_size, GOOD.map_size, GOOD.final_size) == ((32, 16), (32, 16), (16, 8))
    assert (POOLED.stem_size, POOLED.map_size, POOLED.final_size) == ((32, 16), (16, 8), (4, 2))
    found = [
        (b.name, b.in_channels, b.out_channels, b.stride, b.in_size, b.out_size, b.downsamples)
        for b in POOLED.blocks()
    ]
    assert found == [
        ("blocks.0", 4, 4, 1, (16, 8), (16, 8), False),
        ("blocks.1", 4, 8, 2, (16, 8), (8, 4), True),
        ("blocks.2", 8, 8, 1, (8, 4), (8, 4), False),
        ("blocks.3", 8, 8, 2, (8, 4), (4, 2), True),
    ]
    assert POOLED.residual_names() == [
        "stem", "blocks.0", "blocks.1.shortcut", "blocks.1", "blocks.2", "blocks.3.shortcut",
        "blocks.3",
    ]  # fmt: skip


def test_tensor_shapes():
    small = Network("s", (8, 8), 2, 3, (4, 6), (1, 1), (0.5,) * 2, (0.5,) * 2)

    def bn(name, channels):
        return {
            f"{name}.bn.{part}": (channels,)
            for part in ("weight", "bias", "running_mean", "running_var")
        }

    expected = {"stem.conv.weight": (4, 2, 3, 3)} | bn("stem", 4)
    expected |= {"blocks.0.bias0": (4,), "blocks.0.conv.weight": (4, 4, 3, 3)}
    expected |= {"blocks.0.conv.alpha": (4,)} | bn("blocks.0", 4)
    expected |= {f"blocks.0.{name}": (4,) for name in ("bias1", "prelu", "bias2")}
    expected |= {"blocks.1.bias0": (4,), "blocks.1.conv.weight": (6, 4, 3, 3)}
    expected |= {"blocks.1.conv.alpha": (6,)} | bn("blocks.1", 6)
    expected |= {"blocks.1.shortcut.conv.weight": (6, 4, 1, 1)} | bn("blocks.1.shortcut", 6)
    expected |= {f"blocks.1.{name}": (6,) for name in ("bias1", "prelu", "bias2")}
    expected |= {"fc.weight": (3, 6), "fc.bias": (3,)}
    assert tensor_shapes(small) == expected
    assert tensor_shapes(POOLED)["stem.conv.weight"] == (4, 1, 7, 7)


@pytest.mark.parametrize("quantisation", [None, Quantisation(0.0277, {"stem": 0, "blocks.0": -3})])
@pytest.mark.parametrize("network", [GOOD, POOLED], ids=lambda n: n.name)
def test_json_comes_back(network, quantisation):
    info = CheckpointInfo(network, quantisation, {"epochs": 3}, {"accuracy": 0.5})
    assert CheckpointInfo.from_json(info.to_json()) == info
    short = {key: json.loads(info.to_json())[key] for key in ("format", "network", "quantisation")}
    assert CheckpointInfo.from_json(json.dumps(short)) == CheckpointInfo(network, quantisation)


def test_lsb():
    quantisation = Quantisation(0.3, {"stem": 0, "blocks.0": -2, "blocks.1": 3})
    assert [quantisation.lsb(n) for n in quantisation.exponents] == [0.3, 0.3 / 4, 0.3 * 8]


def metadata(**changes) -> str:
    raw = json.loads(CheckpointInfo(GOOD, None).to_json()) | changes
    return json.dumps({key: value for key, value in raw.items() if value is not ...}, default=str)


def without(key: str) -> str:
    raw = json.loads(CheckpointInfo(GOOD, None).to_json())
    del raw[key]
    return json.dumps(raw)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (metadata(format=2), "Checkpoint format must be 1, not 2"),
        (without("format"), "Checkpoint metadata must be complete JSON, not 'format'"),
        (without("network"), "Checkpoint metadata must be complete JSON, not 'network'"),
        (without("quantisation"), "Checkpoint metadata must be complete JSON, not 'quantisation'"),
        (
            "{",
            "Checkpoint metadata must be complete JSON, not Expecting property name enclosed in "
            "double quotes: line 1 column 2 (char 1)",
        ),
        (
            "[]",
            "Checkpoint metadata must be complete JSON, not list indices must be integers or "
            "slices, not str",
        ),
        (metadata(network={"classes": 0}), None),
        (metadata(network=3), None),
        (metadata(quantisation={"scale": 1.0}), None),
        (metadata(quantisation=5), None),
    ],
)
def test_metadata_that_is_refused(text, message):
    found = refused(CheckpointInfo.from_json, text)
    assert message is None or found == message
    assert found.startswith(("Checkpoint", "Network description must be complete: "))


def test_from_plain_data():
    raw = json.loads(json.dumps(dataclasses.asdict(POOLED)))
    assert network_from_dict(raw) == POOLED
    raw = json.loads(json.dumps(dataclasses.asdict(GOOD)))
    del raw["stem"]
    assert network_from_dict(raw) == GOOD


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"clases": 4},
            "Network keys must be among ['blocks_per_stage', 'classes', 'input_channels', "
            "'input_size', 'mean', 'name', 'std', 'stem', 'widths'], not ['clases']",
        ),
        ({"stem": {"kernel": 5}}, "Stem must be 3x3 stride 1 or 7x7 stride 2, not 5x5 stride 1"),
        ({"stem": {"size": 3}}, None),
        ({"stem": 3}, None),
        ({"name": 2024}, None),
        ({"input_size": 32}, None),
        ({"widths": ["a", "b"]}, None),
        ({"mean": None}, None),
        ({"classes": "ten"}, None),
    ],
)
def test_plain_data_that_is_refused(changes, message):
    found = refused(network_from_dict, dataclasses.asdict(GOOD) | changes)
    assert found == message or (
        message is None and found.startswith("Network description must be complete: ")
    )


def test_a_missing_key():
    raw = dataclasses.asdict(GOOD)
    del raw["classes"]
    assert refused(network_from_dict, raw).endswith(
        "missing 1 required positional argument: 'classes'"
    )
