"""Random networks through compiler, golden model and RTL, and random geometries without the RTL."""

import math
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st

from compiler import overlap
from compiler.errors import CompileError
from compiler.pipeline import compile_tensors
from isa import image
from isa.fixed import FixedPointError
from isa.folding import fold_network
from isa.geometry import GEOMETRIES, TINY, ULX3S_25F, ULX3S_85F, Geometry
from isa.network import Network, Stem
from rbonn_train.integer import IntegerNetwork
from sim.golden import Golden
from sim.runner import simulate
from sim.surroundings import Stalls
from tests.networks import random_checkpoint, random_frames
from tests.sim.reference import check_layers

# The same examples in every run, none shrunk by minutes of simulation.
SEEDED = settings(
    derandomize=True,
    database=None,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@st.composite
def networks(draw: st.DrawFn) -> Network:
    """Every stem, 1 to 3 stages, and maps of one pixel to a few hundred."""
    stem = draw(st.sampled_from([Stem(), Stem(), Stem(3, 1, True), Stem(7, 2), Stem(7, 2, True)]))
    stages = draw(st.integers(1, 3))
    widths = [draw(st.integers(1, 40))]
    for _ in range(stages - 1):
        widths.append(draw(st.integers(widths[-1], 2 * widths[-1])))
    blocks = draw(st.lists(st.integers(1, 2), min_size=stages, max_size=stages))
    multiple = stem.stride * (2 if stem.pool else 1) << (stages - 1)
    sizes = st.integers(1, max(1, 20 // multiple)).map(lambda n: n * multiple)
    channels = draw(st.integers(1, 4))
    mean = draw(st.lists(st.floats(0, 1), min_size=channels, max_size=channels))
    return Network(
        name="random",
        input_size=(draw(sizes), draw(sizes)),
        input_channels=channels,
        classes=draw(st.integers(1, 16)),
        widths=tuple(widths),
        blocks_per_stage=tuple(blocks),
        mean=tuple(mean),
        std=(0.25,) * channels,
        stem=stem,
    )


@st.composite
def geometries(draw: st.DrawFn, most_lanes: int = 64) -> Geometry:
    """Any that `Geometry` accepts, with memories in which small networks fit."""
    taps = draw(st.sampled_from([1, 2, 4]))
    post_lanes = taps * draw(st.sampled_from([1, 2, 4]))
    lanes = post_lanes * draw(st.sampled_from([1, 2, 4]))
    assume(lanes <= most_lanes)
    word_bits = lanes * draw(st.sampled_from([1, 2, 4]))
    stem_taps = taps + draw(st.integers(0, 3))
    sets = math.gcd(lanes * word_bits, lanes * taps * 8, lanes * (stem_taps - taps) * 8)
    ports = [bits for bits in (32, 64, 128, 256, 512) if sets % bits == bits % lanes == 0]
    assume(ports)
    return Geometry(
        name="random", lanes=lanes, word_bits=word_bits, taps=taps, stem_taps=stem_taps,
        port_bits=draw(st.sampled_from(ports)), post_lanes=post_lanes,
        ring_words=4096, residual_words=1 << 15, bit_words=1 << 13, input_bytes=4096,
        line_words=1024, channels=256, classes=16, image_words=1 << 16,
    )  # fmt: skip


def compiled(network: Network, geometry: Geometry, seed: int) -> tuple:
    """Checkpoint and image; networks that do not fit are left out. Every other one computes its
    stem ahead, if it can, whether that pays or not."""
    checkpoint = random_checkpoint(network, seed)
    try:
        with patch.object(overlap, "LEAST_GAIN", overlap.LEAST_GAIN if seed % 2 else -math.inf):
            built = compile_tensors(*checkpoint, geometry, verify=False)
    except (CompileError, FixedPointError):
        assume(False)
    return checkpoint, image.parse(built.image.to_bytes(), geometry)


def golden_equals_pytorch(network: Network, geometry: Geometry, seed: int) -> None:
    checkpoint, built = compiled(network, geometry, seed)
    frames = random_frames(network, 5, seed)
    reference, golden = IntegerNetwork(fold_network(*checkpoint)), Golden(geometry, built)
    assert np.array_equal(golden.run_batch(frames), reference(frames).numpy())
    check_layers(golden, reference, frames[2:])  # noise, a gradient, all 255


def rtl_equals_golden(network: Network, geometry: Geometry, seed: int) -> None:
    _, built = compiled(network, geometry, seed)
    stalls = Stalls(["none", "light", "heavy"][seed % 3], seed, late_input=seed % 2 == 1)
    result = simulate(geometry, built, random_frames(network, 2, seed), stalls=stalls)
    assert result.first is None
    assert result.mismatches == 0


seeds = st.integers(0, 1000)


@pytest.mark.parametrize("geometry", GEOMETRIES.values(), ids=GEOMETRIES)
@settings(SEEDED, max_examples=12)
@given(network=networks(), seed=seeds)
def test_golden_equals_pytorch(geometry, network, seed):
    golden_equals_pytorch(network, geometry, seed)


@settings(SEEDED, max_examples=12)
@given(network=networks(), geometry=geometries(), seed=seeds)
def test_golden_equals_pytorch_on_any_geometry(network, geometry, seed):
    golden_equals_pytorch(network, geometry, seed)


@pytest.mark.parametrize("geometry", [TINY, ULX3S_25F, ULX3S_85F], ids=lambda x: x.name)
@settings(SEEDED, max_examples=8)
@given(network=networks(), seed=seeds)
def test_rtl_equals_golden(geometry, network, seed):
    rtl_equals_golden(network, geometry, seed)


@pytest.mark.full
@pytest.mark.parametrize("geometry", GEOMETRIES.values(), ids=GEOMETRIES)
@settings(SEEDED, max_examples=60)
@given(network=networks(), seed=st.integers(1001, 9000))
def test_rtl_equals_golden_on_many(geometry, network, seed):
    rtl_equals_golden(network, geometry, seed)


@pytest.mark.full
@settings(SEEDED, max_examples=6)
@given(network=networks(), geometry=geometries(most_lanes=16), seed=seeds)  # a minute or two each
def test_rtl_equals_golden_on_any_geometry(network, geometry, seed):
    rtl_equals_golden(network, geometry, seed)
