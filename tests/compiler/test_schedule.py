import dataclasses

import pytest

from compiler.errors import CompileError
from compiler.pipeline import compile_tensors
from compiler.schedule import choose_blocks, describe_layers
from isa.geometry import GEOMETRIES, TINY, ULX3S_25F
from isa.layer import LAYER
from tests.networks import SMALL_NETWORKS, random_checkpoint, small_network


def descriptors(name, geometry=TINY):
    """What is not 0 in the descriptors of a small network, by layer."""
    compiled = compile_tensors(*random_checkpoint(small_network(name)), geometry)
    return {
        layer.name: {name: value for name, value in layer.descriptor.items() if value}
        for layer in compiled.program.layers
    }


def without(fields, *names):
    return {name: value for name, value in fields.items() if name not in names}


def test_descriptors_of_a_whole_network():
    """4 lanes, 8-bit words, 2 post lanes; 8 x 8 x 3 -> 8 x 8 x 12 -> 4 x 4 x 24."""
    found = descriptors("odd-channels")
    arithmetic = ("a", "s", "k", "block", "blocks", "last_block")
    assert without(found["stem"], *arithmetic) == {
        "write_bits": 1, "begins": 1, "ends": 1,
        "src_row": 24, "src_pixel": 3, "in_height": 8, "row_length": 24, "pad": 1, "pad_x": 3,
        "kernel_rows": 3, "inner": 9, "frame_bytes": 192, "in_channels": 3,
        "border": 128 | 102 << 8 | 77 << 16,
        "tiles": 3, "out_width": 8, "out_height": 8, "last_groups": 2,
        "dst_row": 48, "dst_pixel": 6, "bit_pixel": 2,
    }  # fmt: skip
    assert without(found["blocks.0"], *arithmetic) == {
        "kind": 1, "shortcut": 1, "write_bits": 1,
        "src_row": 16, "src_pixel": 2, "in_height": 8, "row_length": 16, "pad": 1, "pad_x": 2,
        "kernel_rows": 3, "inner": 6, "channel_words": 2, "channels": 12,
        "tiles": 3, "out_width": 8, "out_height": 8, "last_groups": 2,
        "dst_row": 48, "dst_pixel": 6, "bit_base": 384, "bit_pixel": 2,
    }  # fmt: skip
    assert found["blocks.1.pool"] == {
        "kind": 4, "stride2": 1, "src_row": 48, "src_pixel": 6, "in_height": 8, "inner": 6,
        "out_width": 4, "out_height": 4, "dst_row": 24, "dst_pixel": 6,
    }  # fmt: skip
    assert without(found["blocks.1.shortcut"], *arithmetic) == {
        "kind": 2, "src_row": 24, "src_pixel": 6, "in_height": 4,
        "row_length": 3 * 6 + 12, "kernel_rows": 1, "inner": 12,
        "tiles": 6, "out_width": 4, "out_height": 4, "last_groups": 2,
        "dst_base": 2048 - 192, "dst_row": 48, "dst_pixel": 12,
    }  # fmt: skip
    assert without(found["blocks.1"], *arithmetic) == {
        "kind": 1, "shortcut": 1, "write_bits": 1, "stride2": 1,
        "src_base": 384, "src_row": 16, "src_pixel": 2, "in_height": 8, "row_length": 16,
        "pad": 1, "pad_x": 2,
        "kernel_rows": 3, "inner": 6, "channel_words": 2, "channels": 12,
        "tiles": 6, "out_width": 4, "out_height": 4, "last_groups": 2,
        "dst_base": 2048 - 192, "dst_row": 48, "dst_pixel": 12,
        "bit_base": 384 - 48, "bit_pixel": 3,
    }  # fmt: skip
    assert "write_bits" not in found["blocks.2"]
    assert found["mean"] == {
        "kind": 5, "src_base": 2048 - 192, "src_row": 48, "src_pixel": 12, "in_height": 4,
        "inner": 12, "out_width": 4, "out_height": 4,
    }  # fmt: skip
    assert without(found["fc"], "a", "s") == {
        "kind": 3, "ends": 1, "in_height": 1, "row_length": 24, "kernel_rows": 1, "inner": 24,
        "tiles": 3, "blocks": 1, "block": 1, "last_block": 1, "out_width": 1, "out_height": 1,
        "last_groups": 1, "classes": 10,
    }  # fmt: skip


def test_pooled_stem_writes_a_map_of_half_the_size():
    found = descriptors("big-stem")["stem"]  # 16 x 16 x 3 -> 8 x 8 -> 4 x 4 x 6
    assert (found["pooled"], found["stride2"], found["out_width"], found["dst_row"]) == (
        1,
        1,
        8,
        12,
    )
    assert (found["pad"], found["pad_x"], found["kernel_rows"], found["inner"]) == (3, 9, 7, 21)


@pytest.mark.parametrize("geometry", GEOMETRIES.values(), ids=lambda g: g.name)
@pytest.mark.parametrize("network", SMALL_NETWORKS, ids=lambda n: n.name)
def test_blocks_cover_every_pixel(network, geometry):
    program = compile_tensors(*random_checkpoint(network), geometry, verify=False).program
    for layer in program.layers:
        fields = layer.descriptor
        if fields["tiles"]:
            assert 1 <= fields["last_block"] <= fields["block"] <= 16
            covered = (fields["blocks"] - 1) * fields["block"] + fields["last_block"]
            assert covered == fields["out_width"] * fields["out_height"]
        else:
            assert fields["blocks"] == fields["block"] == 0
        assert set(fields) == set(LAYER.members)


def test_blocks_hide_the_loading_of_weights():
    """A set takes 10 cycles to load, so blocks are longer; 64 pixels leave none that is short."""
    geometry = dataclasses.replace(ULX3S_25F, lanes=32, port_bits=128)  # 8 words a set
    compiled = compile_tensors(*random_checkpoint(small_network("plain")), geometry)
    blocks = [
        (layer.descriptor["block"], layer.descriptor["last_block"])
        for layer in compiled.program.layers
        if layer.kind.name == "BINARY"
    ]
    for block, last in blocks:  # 64 pixels
        assert block >= 10
        assert last >= 9  # a cycle too short, but sooner drained


def test_a_field_that_does_not_fit_is_refused():
    program = compile_tensors(*random_checkpoint(small_network("plain")), TINY).program
    broken = program.map(
        lambda layer: dataclasses.replace(
            layer, source=dataclasses.replace(layer.source, row=1 << 15)
        )
    )
    with pytest.raises(CompileError) as error:
        describe_layers(broken)
    assert str(error.value) == "Layer stem: field src_row must be in 0..32767, not 32768"


def test_choosing_blocks_changes_nothing_else():
    program = compile_tensors(*random_checkpoint(small_network("plain")), TINY).program
    again = choose_blocks(program)
    assert [layer.block for layer in again.layers] == [layer.block for layer in program.layers]
