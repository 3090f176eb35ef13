"""Verification after every pass must notice whatever a pass could get wrong."""

import dataclasses

import numpy as np
import pytest

from compiler.fold import fold
from compiler.importer import import_tensors
from compiler.pack import pack
from compiler.pipeline import compile_tensors
from compiler.verify import VerificationError, Verifier
from isa.geometry import TINY
from isa.image import build
from tests.networks import random_checkpoint, small_network

CHECKPOINT = random_checkpoint(small_network("odd-channels"))
PROGRAM = compile_tensors(*CHECKPOINT, TINY).program


@pytest.fixture(scope="module")
def verifier():
    return Verifier(fold(import_tensors(*CHECKPOINT)))


def spoil(name, change):
    return PROGRAM.map(lambda layer: change(layer) if layer.name == name else layer)


def flipped_weight(layer):
    weights = layer.tiles.weights.copy()
    weights[0, 1, 1, 2, 0] ^= 1
    return dataclasses.replace(layer, tiles=dataclasses.replace(layer.tiles, weights=weights))


def moved(part, **changes):
    def change(layer):
        region = dataclasses.replace(getattr(layer, part), **changes)
        return dataclasses.replace(layer, **{part: region})

    return change


def described(**changes):
    return lambda layer: dataclasses.replace(layer, descriptor={**layer.descriptor, **changes})


def test_accepts_the_program(verifier):
    verifier.check("describe_layers", PROGRAM)
    verifier.check_image("pack", pack(PROGRAM), PROGRAM)


@pytest.mark.parametrize(
    ("name", "change", "where"),
    [
        ("blocks.0", flipped_weight, "blocks.0"),
        ("stem", flipped_weight, "stem"),
        ("blocks.0", moved("destination", base=1), "blocks.0"),
        ("blocks.1.pool", moved("destination", base=1), "blocks.1.shortcut"),
        ("blocks.1", moved("source", base=0), "blocks.1"),
        ("mean", moved("source", pixel=6), "mean"),
    ],
)
def test_finds_what_a_pass_broke(verifier, name, change, where):
    with pytest.raises(VerificationError, match=rf"^Level broken: {where}(\.bits)? must be "):
        verifier.check("broken", spoil(name, change))


@pytest.mark.parametrize(
    ("name", "changes", "where"),
    [
        ("stem", {"border": 0}, "stem"),
        ("stem", {"pad_x": 2}, "stem"),
        ("blocks.0", {"channels": 11}, "blocks.0"),
        ("blocks.0", {"row_length": 15}, "blocks.0"),
        ("blocks.0", {"in_height": 7}, "blocks.0"),
        ("blocks.0", {"bit_base": 127}, "blocks.1"),
        ("blocks.1", {"stride2": 0}, "blocks.1"),
        ("blocks.1.pool", {"inner": 5}, "blocks.1.pool"),
        ("mean", {"a": 1}, "mean"),
        ("fc", {"s": 5}, "fc"),
    ],
)
def test_finds_a_wrong_descriptor(verifier, name, changes, where):
    level = r"Level broken \(descriptors\)"
    with pytest.raises(VerificationError, match=rf"^{level}: {where}(\.bits)? must "):
        verifier.check("broken", spoil(name, described(**changes)))


def test_finds_a_wrong_image(verifier):
    image = pack(PROGRAM)
    packets = list(image.packets)
    weights = next(p for p in packets if p.type.name == "WEIGHTS")
    position = packets.index(weights)
    payload = [weights.payload[0] ^ 0x40, *weights.payload[1:]]
    packets[position] = dataclasses.replace(weights, payload=payload)
    broken = build(TINY, image.info, packets)
    with pytest.raises(VerificationError, match=r"^Level pack: stem must be "):
        verifier.check_image("pack", broken, PROGRAM)


def test_message_names_the_element(verifier):
    expected = verifier._expected["fc"]
    wrong = {**verifier._expected, "fc": expected + (np.arange(len(expected)) == 3)}
    with pytest.raises(VerificationError) as error:
        verifier._compare("x", wrong)
    assert str(error.value) == (f"Level x: fc must be {expected[3]} at (3,), not {expected[3] + 1}")
