import numpy as np
import pytest

from compiler.evaluate import NEVER_WRITTEN, evaluate_folded, verification_frames
from compiler.fold import fold
from compiler.importer import import_tensors
from compiler.machine import Described, Machine, evaluate_layers
from compiler.pipeline import compile_tensors
from isa.geometry import GEOMETRIES, TINY
from tests.networks import random_checkpoint, random_frames, small_network


def layers_of(program):
    return [
        Described(layer.name, layer.out_channels, layer.packet, layer.descriptor, layer.tiles)
        for layer in program.layers
    ]


@pytest.mark.parametrize("geometry", GEOMETRIES.values(), ids=lambda g: g.name)
@pytest.mark.parametrize("name", ["big-stem", "not-square"])
def test_agrees_with_the_folded_network_on_many_frames(name, geometry):
    network = small_network(name)
    checkpoint = random_checkpoint(network, 2)
    folded = fold(import_tensors(*checkpoint))
    program = compile_tensors(*checkpoint, geometry, verify=False).program
    for frame in random_frames(network, 6):
        expected = evaluate_folded(folded, frame)
        (found,) = evaluate_layers(layers_of(program), geometry, [frame])
        assert list(found) == list(expected)
        for what, values in expected.items():
            np.testing.assert_array_equal(found[what], values, what)


def test_words_that_were_never_written_show():
    program = compile_tensors(*random_checkpoint(small_network("three-stages")), TINY).program
    pool = next(layer for layer in program.layers if layer.kind.name == "POOL")
    machine = Machine(TINY)
    found = machine.run(pool.descriptor, None, verification_frames((16, 16, 1))[0])["residuals"]
    assert (found == NEVER_WRITTEN).all()


def test_padding_that_is_not_zero_is_refused():
    program = compile_tensors(*random_checkpoint(small_network("not-square")), TINY).program
    stem = layers_of(program)[0]
    assert stem.channels == 5
    stem.tiles.params.threshold[1, 1] = 0  # channel 5 does not exist
    with pytest.raises(AssertionError, match=r"^stem: padding of bits must be 0$"):
        evaluate_layers([stem], TINY, verification_frames((8, 16, 2)))
