"""Verification after every pass must notice whatever a pass could get wrong."""

import dataclasses

import numpy as np
import pytest

from compiler.fold import fold
from compiler.importer import import_tensors
from compiler.pack import pack
from compiler.pipeline import compile_tensors
from compiler.verify import VerificationError, Verifier
from isa.geometry import TINY, ULX3S_25F
from isa.image import PacketType, build
from tests.networks import DEEP, random_checkpoint, small_network

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


@pytest.mark.parametrize(
    ("index", "changes", "where"),
    [
        (0, {"begins": 0, "first_row": 2, "src_base": 96}, "stem of the second frame"),
        (1, {"begins": 1}, "stem of the second frame"),
        (1, {"src_base": 48}, "stem of the second frame"),
        (1, {"first_row": 14}, "stem of the second frame"),
        (1, {"dst_base": 0}, "blocks.0 of the second frame"),
        (1, {"bit_base": 0}, "blocks.0 of the second frame"),
    ],
)
def test_finds_a_wrong_part_of_the_next_stem(index, changes, where):
    checkpoint = random_checkpoint(DEEP)
    program = compile_tensors(*checkpoint, ULX3S_25F).program
    parts = [i for i, layer in enumerate(program.layers) if layer.packet is PacketType.AHEAD]
    layers = list(program.layers)
    layers[parts[index]] = described(**changes)(layers[parts[index]])
    verifier = Verifier(fold(import_tensors(*checkpoint)))
    with pytest.raises(VerificationError, match=rf"^Level broken \(descriptors\): {where} must"):
        verifier.check("broken", dataclasses.replace(program, layers=tuple(layers)))


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
    good, other = verifier._expected
    for frame, of_frame in ((good, ""), (other, " of the second frame")):
        expected = frame["fc"]
        wrong = {**frame, "fc": expected + (np.arange(len(expected)) == 3)}
        with pytest.raises(VerificationError) as error:
            verifier._compare("x", [wrong] if frame is good else [good, wrong])
        assert str(error.value) == (
            f"Level x: fc{of_frame} must be {expected[3]} at (3,), not {expected[3] + 1}"
        )
