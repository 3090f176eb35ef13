import dataclasses

import pytest

from compiler.estimate import (
    TIMING,
    Timing,
    convolution_cycles,
    estimate,
    input_words,
    set_words,
)
from compiler.parts import rows_ahead_of_time
from compiler.pipeline import compile_tensors
from isa.geometry import GEOMETRIES, TINY, ULX3S_25F
from isa.network import Network
from sim.runner import simulate
from tests.networks import SMALL_NETWORKS, random_checkpoint, random_frames, small_network

FREE = Timing(
    **{field.name: 0 for field in dataclasses.fields(Timing)} | {"descriptors": TIMING.descriptors}
)


def compiled(name="three-stages", geometry=ULX3S_25F):
    return compile_tensors(*random_checkpoint(small_network(name)), geometry, verify=False)


def layers_of(program):
    return {layer.name: layer for layer in program.layers}


def test_words_of_a_set():
    layers = layers_of(compiled().program)
    assert set_words(layers["blocks.0"], ULX3S_25F) == 16 * 32 // 128
    assert set_words(layers["stem"], ULX3S_25F) == 16 * 8 // 128


def test_a_convolution_without_overheads_takes_a_cycle_a_step_and_pixel():
    layer = layers_of(compiled().program)["blocks.0"]  # 16 x 16, 8 channels: one tile, 9 sets
    assert layer.tiles.steps == 9
    for block in (8, 16):
        blocked = dataclasses.replace(layer, block=block)
        drain = block * layer.tiles.last_groups  # of the last block, after its last step has begun
        steps = 9 * 256 - block
        reload = set_words(layer, ULX3S_25F)  # of the very first set
        assert convolution_cycles(blocked, ULX3S_25F, FREE) == reload + steps + drain


def test_short_blocks_wait_for_the_load_of_the_next_set():
    layer = dataclasses.replace(layers_of(compiled().program)["blocks.0"], block=2)
    cycles = convolution_cycles(layer, ULX3S_25F, FREE)
    assert cycles >= 9 * 128 * 4  # a set takes 4 cycles to load and 2 to use


def test_the_drain_bounds_a_layer_of_few_steps():
    layer = layers_of(compiled("plain", TINY).program)["stem"]
    one_step = layer.tiles.weights[:, :1, :1]
    layer = dataclasses.replace(
        layer, tiles=dataclasses.replace(layer.tiles, weights=one_step), block=16
    )
    drained = layer.pixels * 2 * layer.tiles.count  # two groups a pixel and tile
    assert drained <= convolution_cycles(layer, TINY, FREE) <= drained + 4


@pytest.mark.parametrize("geometry", GEOMETRIES.values(), ids=lambda g: g.name)
@pytest.mark.parametrize("network", SMALL_NETWORKS, ids=lambda n: n.name)
def test_no_estimate_beats_the_critical_path(network, geometry):
    result = compile_tensors(*random_checkpoint(network), geometry, verify=False)
    cycles = result.report["estimate"]["cycles"]
    assert cycles >= result.report["roofline"]["critical_path"]
    free = sum(layer.cycles for layer in estimate(result.program, FREE))
    assert free <= cycles


def test_waits_of_a_stream_bound_network():
    """One pixel for every weight: the stream brings 4 words where the array needs one cycle."""
    network = Network("deep", (2, 2), 1, 2, (64,), (3,), (0.5,), (0.5,))
    result = compile_tensors(*random_checkpoint(network), ULX3S_25F, verify=False)
    cycles = result.report["estimate"]["cycles"]
    words = result.report["image"]["frame_words"]
    assert words <= cycles <= 1.1 * words + 200
    assert sum(layer.waits.get("weights", 0) for layer in estimate(result.program)) > words / 4


def test_pixels_out_of_the_same_memory_are_counted():
    """long-frame: 32 x 32 x 3 bytes for the stem, or 8 of its 32 rows for a quarter of it."""
    program = compiled("long-frame", TINY).program
    stem = program.layers[0]
    assert input_words(stem) == 32 * 32 * 3 // 4
    part = rows_ahead_of_time(stem, 2, 2)
    assert input_words(part) == 8 * 32 * 3 // 4
    slow = dataclasses.replace(program, stream_rate=0.001)  # so slow that nothing hides it
    shared = dataclasses.replace(slow, input_shares=True)
    later = estimate(shared)[1].cycles - estimate(slow)[1].cycles
    assert later == pytest.approx(32 * 32 * 3 / 4 / 0.001, abs=1)


def test_fmnist_s_keeps_the_array_busy():
    network = Network("fmnist-s", (28, 28), 1, 10, (32, 64, 128), (2, 2, 2), (0.286,), (0.353,))
    result = compile_tensors(*random_checkpoint(network), ULX3S_25F, verify=False)
    assert result.report["estimate"]["array_busy"] > 0.95
    assert 150_000 < result.report["estimate"]["cycles"] < 165_000
    assert TIMING.layer > 0


@pytest.mark.parametrize("name", ["plain", "not-square", "pooled-stem"])
def test_estimate_is_close_to_the_gateware(name):
    """Cycles of a whole frame in simulation; the product promises 5 %."""
    network = small_network(name)
    result = compile_tensors(*random_checkpoint(network), TINY, verify=False)
    simulated = simulate(TINY, result.image, random_frames(network, 1))
    assert result.report["estimate"]["cycles"] == pytest.approx(simulated.cycles[0], rel=0.02)
