"""Liveness: no word of a map is overwritten while it is still to be read.

The layers are executed with tokens in place of values, from the descriptors, tile by tile in the
order of ``isa.layer``; every read must find the token that the previous layers left for it.
"""

from itertools import product

import pytest

from compiler.pipeline import compile_tensors
from isa.geometry import GEOMETRIES, TINY
from isa.layer import LayerKind
from tests.networks import SMALL_NETWORKS, random_checkpoint, small_network


class Tokens:
    """A memory of ``depth`` words, each of which holds what was written last."""

    def __init__(self, depth):
        self.words = [None] * depth

    def write(self, address, token):
        assert 0 <= address < len(self.words)
        self.words[address] = token

    def read(self, address, token):
        assert 0 <= address < len(self.words)
        assert self.words[address] == token


def pixels(fields, shrink=1):
    return product(range(fields["out_height"] // shrink), range(fields["out_width"] // shrink))


class Replay:
    def __init__(self, geometry):
        self.geometry = geometry
        self.residuals, self.bits = Tokens(geometry.residual_words), Tokens(geometry.bit_words)
        self.map, self.bit_map = None, None  # names of what the next layer must find
        self.reads = 0

    def source(self, fields, i, j):
        return fields["src_base"] + i * fields["src_row"] + j * fields["src_pixel"]

    def destination(self, fields, i, j):
        return fields["dst_base"] + i * fields["dst_row"] + j * fields["dst_pixel"]

    def read(self, fields, i, j, words):
        for word in range(words):
            self.residuals.read(self.source(fields, i, j) + word, (self.map, i, j, word))
            self.reads += 1

    def run(self, layer):
        fields, name = layer.descriptor, layer.name
        kind = layer.kind
        if kind is LayerKind.POOL:
            for i, j in pixels(fields):
                for di, dj in product(range(2), range(2)):
                    self.read(fields, 2 * i + di, 2 * j + dj, fields["inner"])
                for word in range(fields["inner"]):
                    self.residuals.write(self.destination(fields, i, j) + word, (name, i, j, word))
        elif kind is LayerKind.MEAN:
            for i, j in pixels(fields):
                self.read(fields, i, j, fields["inner"])
        elif kind is not LayerKind.CLASSIFIER:
            for tile in range(fields["tiles"]):
                self.run_tile(layer, fields, tile)
            if fields["write_bits"]:
                self.bit_map = name
        self.map = self.map if kind is LayerKind.MEAN else name

    def run_tile(self, layer, fields, tile):
        stride = 1 + fields["stride2"]
        last = tile == fields["tiles"] - 1
        groups = fields["last_groups"] if last else self.geometry.groups
        shrink = 1 + fields["pooled"]
        for i, j in pixels(fields):
            if layer.kind is LayerKind.POINTWISE:
                words = -(-layer.in_channels // self.geometry.post_lanes)
                self.read(fields, i, j, words)
            elif layer.kind is LayerKind.BINARY:
                for di, dj in product(range(-1, 2), range(-1, 2)):
                    self.read_bits(layer, fields, i * stride + di, j * stride + dj)
        for i, j in pixels(fields, shrink):
            for group in range(groups):
                word = tile * self.geometry.groups + group
                address = self.destination(fields, i, j) + word
                if fields["shortcut"]:
                    self.residuals.read(address, (self.map, i, j, word))
                self.residuals.write(address, (layer.name, i, j, word))
            if fields["write_bits"]:
                word = tile // self.geometry.sub_words
                at = i * (fields["out_width"] // shrink) + j
                self.bits.write(
                    fields["bit_base"] + at * fields["bit_pixel"] + word, (layer.name, at, word)
                )

    def read_bits(self, layer, fields, i, j):
        height, width = layer.in_size
        if not (0 <= i < height and 0 <= j < width):
            return
        for word in range(fields["channel_words"]):
            address = self.source(fields, i, j) + word
            self.bits.read(address, (self.bit_map, i * width + j, word))
            self.reads += 1


def replay(network, geometry, change=lambda layer: layer):
    program = compile_tensors(*random_checkpoint(network), geometry, verify=False).program
    run = Replay(geometry)
    for layer in program.layers:
        run.run(change(layer))
    return run


@pytest.mark.parametrize("geometry", GEOMETRIES.values(), ids=lambda g: g.name)
@pytest.mark.parametrize("network", SMALL_NETWORKS, ids=lambda n: n.name)
def test_no_live_word_is_overwritten(network, geometry):
    assert replay(network, geometry).reads > 0


def test_the_replay_finds_an_overwritten_word():
    def later_rows(layer):  # the pooled map where the third row still has to be read
        if layer.kind is LayerKind.POOL:
            layer.descriptor["dst_base"] += 128
        if layer.kind is LayerKind.POINTWISE:
            layer.descriptor["src_base"] += 128
        return layer

    with pytest.raises(AssertionError):
        replay(small_network("three-stages"), TINY, later_rows)


def test_bit_maps_take_the_least_memory():
    network = small_network("three-stages")
    program = compile_tensors(*random_checkpoint(network), TINY).program
    bases = {layer.name: layer.bits.base for layer in program.layers if layer.write_bits}
    # 256, 256 and 128 words: the first pair fills the memory, the third map stands in front of the
    # second, which it is computed from
    assert TINY.bit_words == 512
    assert bases == {"stem": 0, "blocks.0": 256, "blocks.1": 128}


def test_residual_layout_of_three_stages():
    network = small_network("three-stages")  # 16 x 16 x 8: 4 words a pixel, 64 a row
    program = compile_tensors(*random_checkpoint(network), TINY).program
    found = {
        layer.name: (layer.destination.base, layer.destination.row, layer.destination.pixel)
        for layer in program.layers
        if layer.destination
    }
    assert TINY.residual_words == 2048
    assert found == {
        "stem": (0, 64, 4),
        "blocks.0": (0, 64, 4),
        "blocks.1.pool": (0, 32, 4),
        "blocks.1.shortcut": (2048 - 512, 64, 8),
        "blocks.1": (2048 - 512, 64, 8),
        "blocks.2.pool": (2048 - 512, 32, 8),
        "blocks.2.shortcut": (2048 - 256, 64, 16),
        "blocks.2": (2048 - 256, 64, 16),
    }


@pytest.mark.parametrize("geometry", GEOMETRIES.values(), ids=lambda g: g.name)
@pytest.mark.parametrize("network", SMALL_NETWORKS, ids=lambda n: n.name)
def test_later_stages_leave_the_first_words_free(network, geometry):
    """Half the residual map after the first stage-2 shortcut, three quarters after the next; and
    as many bit words as the stem's map has, once its own stage is left."""
    program = compile_tensors(*random_checkpoint(network), geometry, verify=False).program
    stem = program.layers[0]
    stage, words = 0, stem.map_size[0] * stem.destination.row
    for layer in program.layers[1:]:
        stage += layer.kind is LayerKind.POINTWISE
        if layer.kind is LayerKind.BINARY and stage:
            assert layer.destination.base >= words - (words >> stage)
        if layer.write_bits and stage and layer.stride == 1:
            assert layer.bits.base >= stem.map_size[0] * stem.bits.row
