"""The image, unpacked by other means than the compiler's, holds the folded network."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compiler.pipeline import Compiled, compile_tensors
from isa import checked
from isa.folding import FoldedNetwork, fold_network
from isa.geometry import GEOMETRIES, Geometry
from isa.image import PacketType, parse
from isa.layer import CHANNEL, LAYER, PADDING_CHANNEL, LayerKind
from tests.compiler.strategies import networks
from tests.geometries import TINY_STEM
from tests.networks import SMALL_NETWORKS, random_checkpoint

geometries = pytest.mark.parametrize(
    "geometry", [*GEOMETRIES.values(), TINY_STEM], ids=lambda g: g.name
)


def bit(words: list[int], geometry: Geometry, start: int, lane: int, index: int) -> int:
    """Bit of a lane's row in the set that begins at bit ``start``: a share of it in each word."""
    share = geometry.port_bits // geometry.lanes
    at = start + index // share * geometry.port_bits + lane * share + index % share
    return words[at // 32] >> at % 32 & 1


def byte(words: list[int], geometry: Geometry, start: int, lane: int, index: int) -> int:
    value = sum(bit(words, geometry, start, lane, 8 * index + i) << i for i in range(8))
    return value - 256 * (value >= 128)


def check_params(payload, tile, params, channels, geometry) -> None:
    size = len(payload) // geometry.lanes
    assert size * geometry.lanes == len(payload)
    for lane in range(geometry.lanes):
        found = checked.from_words(CHANNEL, payload[lane * size : (lane + 1) * size])
        channel = tile * geometry.lanes + lane
        expected = PADDING_CHANNEL
        if channel < channels:
            expected = {name: int(getattr(params, name)[channel]) for name in CHANNEL.members}
        assert found == expected


def check_binary(payload, tile, weights, geometry) -> None:
    lanes, width = geometry.lanes, geometry.word_bits
    out, channels = weights.shape[:2]
    words = -(-channels // width)
    assert len(payload) * 32 == 9 * words * lanes * width
    for step in range(9 * words):
        row, column, word = step // (3 * words), step // words % 3, step % words
        for lane in range(lanes):
            for i in range(width):
                channel, source = tile * lanes + lane, word * width + i
                expected = 1  # padding, of output and of input channels
                if channel < out and source < channels:
                    expected = weights[channel, source, row, column]
                assert bit(payload, geometry, step * lanes * width, lane, i) == expected


def check_int8(payload, tile, weights, geometry, taps) -> None:
    lanes = geometry.lanes
    out, channels, kernel, _ = weights.shape
    inner = -(-kernel * channels // taps)
    assert len(payload) * 4 == kernel * inner * lanes * taps
    for step in range(kernel * inner):
        row, n = divmod(step, inner)
        for lane in range(lanes):
            for tap in range(taps):
                column, source = divmod(n * taps + tap, channels)
                channel = tile * lanes + lane
                expected = 0
                if channel < out and column < kernel:
                    expected = weights[channel, source, row, column]
                assert byte(payload, geometry, step * lanes * taps * 8, lane, tap) == expected


def convolutions(folded: FoldedNetwork):
    yield LayerKind.STEM, folded.stem.weights, folded.stem.folded
    for block in folded.blocks:
        if block.shortcut:
            yield LayerKind.POINTWISE, block.shortcut.weights, block.shortcut.folded
        yield LayerKind.BINARY, block.conv.weights, block.conv.folded
    yield LayerKind.CLASSIFIER, folded.classifier.weights[..., None, None], folded.classifier.folded


def check_image(compiled: Compiled, folded: FoldedNetwork, geometry: Geometry) -> None:
    """Every packet of the image against the folded network."""
    image = parse(compiled.image.to_bytes(), geometry)
    assert (image.words, image.info) == (compiled.image.words, compiled.image.info)
    assert image.info.logit_lsb == folded.classifier.lsb
    packets, found = iter(image.packets), 0
    for kind, weights, layer in convolutions(folded):
        while True:
            head = next(packets)
            assert head.type is PacketType.LAYER
            fields = checked.from_words(LAYER, head.payload)
            found += 1
            if fields["kind"] == kind.value:
                break
            assert LayerKind(fields["kind"]) in (LayerKind.POOL, LayerKind.MEAN)
            assert fields["tiles"] == 0
        shifts = layer.shifts
        assert (fields["a"], fields["s"], fields["k"]) == (shifts.a, shifts.s, shifts.k)
        assert fields["tiles"] == -(-len(weights) // geometry.lanes)
        for tile in range(fields["tiles"]):
            params, packet = next(packets), next(packets)
            assert (params.type, packet.type) == (PacketType.PARAMS, PacketType.WEIGHTS)
            check_params(params.payload, tile, layer.params, len(weights), geometry)
            if kind is LayerKind.BINARY:
                check_binary(packet.payload, tile, weights, geometry)
            else:
                taps = geometry.stem_taps if kind is LayerKind.STEM else geometry.taps
                check_int8(packet.payload, tile, weights, geometry, taps)
    assert next(packets, None) is None
    assert found == image.info.layers


@geometries
@pytest.mark.parametrize("network", SMALL_NETWORKS[:5], ids=lambda n: n.name)
def test_small_networks(network, geometry):
    checkpoint = random_checkpoint(network, 1)
    compiled = compile_tensors(*checkpoint, geometry)
    check_image(compiled, fold_network(*checkpoint), geometry)


@settings(max_examples=20, deadline=None, derandomize=True, database=None)
@given(networks(), st.sampled_from(["tiny", "ulx3s-25f"]), st.integers(0, 1000))
def test_random_networks(network, name, seed):
    geometry = GEOMETRIES[name]
    checkpoint = random_checkpoint(network, seed)
    compiled = compile_tensors(*checkpoint, geometry)
    check_image(compiled, fold_network(*checkpoint), geometry)
