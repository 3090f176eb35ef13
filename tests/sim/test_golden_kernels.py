"""Every compiled kernel against numpy, `isa.fixed` and `isa.bits`, on random and extreme values."""

import numpy as np
import pytest

from isa import bits as isa_bits
from isa import fixed
from isa.fixed import ChannelParameters, Shifts, limits
from sim import golden_kernels as kernels
from tests.networks import max_pool


def extremes(rng, shape, width):
    """Signed values of ``width`` bits: half of them uniform, half near zero or a limit."""
    low, high = limits(width)
    special = np.array([low, low + 1, -2, -1, 0, 1, 2, high - 1, high])
    uniform = rng.integers(low, high + 1, shape)
    return np.where(rng.random(shape) < 0.5, uniform, rng.choice(special, shape))


def parameters(rng, channels):
    widths = (fixed.M_BITS, fixed.N_BITS, fixed.SLOPE_BITS, fixed.BIAS2_BITS, fixed.THRESHOLD_BITS)
    return ChannelParameters(*(extremes(rng, channels, width) for width in widths))


SHIFTS = [Shifts(0, 0, 0), Shifts(1, 1, 1), Shifts(0, 12, 10), Shifts(5, 20, 31), Shifts(31, 31, 0)]


@pytest.mark.parametrize("has_shortcut", [False, True])
@pytest.mark.parametrize("shifts", SHIFTS, ids=str)
def test_post_process(shifts, has_shortcut):
    rng = np.random.default_rng([shifts.a, shifts.s, shifts.k])
    frames, pixels, channels = 3, 40, 21
    # Small sums too: those of 32 bits nearly all saturate.
    widths = rng.choice([6, 12, 18, 32], (frames * pixels, channels))
    acc = extremes(rng, widths.shape, 32) >> (32 - widths)
    params = parameters(rng, channels)
    # A pixel's channels anywhere in the memory, with gaps that must stay as they are.
    places = rng.permutation(pixels) * (channels + 2) + 1
    memory = extremes(rng, (frames, pixels * (channels + 2) + 1), fixed.RESIDUAL_BITS)
    here = places[:, None] + np.arange(channels)
    old = memory[:, here].reshape(-1, channels) if has_shortcut else None
    expected, expected_signs = fixed.post_process(acc, old, params, shifts)
    wanted = memory.copy()
    wanted[:, here] = expected.reshape(frames, pixels, channels)

    found, signs = memory.astype(np.int16), np.full(acc.shape, 7, np.uint8)
    table, rules = kernels.table_of(params), kernels.rules_of(shifts)
    kernels.post_process(acc.astype(np.int32), found, places, has_shortcut, table, rules, signs)
    assert np.array_equal(found, wanted)
    assert np.array_equal(signs, expected_signs)


@pytest.mark.parametrize("shift", [0, 1, 2, 17, 31])
def test_round_shift_and_saturate(shift):
    values = extremes(np.random.default_rng(shift), 500, 40)
    found = [kernels.round_shift(int(value), shift) for value in values]
    assert np.array_equal(found, fixed.round_shift(values, shift))
    found = [kernels.saturate(int(value), 18) for value in values]
    assert np.array_equal(found, fixed.saturate(values, 18))


def test_popcount():
    values = [0, 1, 1 << 63, (1 << 64) - 1, 0x0123_4567_89AB_CDEF]
    words = np.array(values, np.uint64)[None]
    acc = np.zeros((1, 1), np.int32)
    for column, value in enumerate(values):
        reads, weights = np.array([[column]]), np.zeros((1, 1), np.uint64)
        kernels.xnor_products(
            words, reads, 64, weights, np.zeros((1, 1), int), np.zeros(1, int), acc
        )
        assert acc[0, 0] == -2 * value.bit_count()


@pytest.mark.parametrize("unit_bits", [1, 4, 8, 32, 64])
@pytest.mark.parametrize("fill", [None, 0, 1])
def test_xnor_products(unit_bits, fill):
    """Against sums of +1 and -1; the constants are added as they are."""
    rng = np.random.default_rng(unit_bits)
    frames, units, pixels, steps, channels = 2, 30, 25, 9, 11
    values = rng.integers(0, 2, (frames, units, unit_bits))
    weights = rng.integers(0, 2, (channels, steps * unit_bits))
    if fill is not None:
        values[:], weights[:] = fill, 1 - fill
    reads = rng.integers(0, units, (pixels, steps))
    constants, kinds = rng.integers(-500, 500, (3, channels)), rng.integers(0, 3, pixels)
    operands = values[:, reads].reshape(frames * pixels, -1)
    signed = (2 * operands - 1) @ (2 * weights - 1).T  # equal minus different
    different = (steps * unit_bits - signed) // 2
    wanted = np.tile(constants[kinds], (frames, 1)) - 2 * different

    memory = np.array([isa_bits.pack(frame, 1, unit_bits) for frame in values], np.uint64)
    packed = np.array([isa_bits.pack(row, 1, 64) for row in weights], np.uint64).T.copy()
    acc = np.zeros((frames * pixels, channels), np.int32)
    kernels.xnor_products(memory, reads, unit_bits, packed, constants, kinds, acc)
    assert np.array_equal(acc, wanted)


@pytest.mark.parametrize(("width", "values"), [(9, 512), (16, 512), (9, 4), (16, 0)])
def test_mac_products(width, values):
    """512 products of the largest features and weights come to 31 bits, which still fit."""
    rng = np.random.default_rng(width)
    frames, pixels, channels = 2, 20, 19
    source = extremes(rng, (frames, 900), width)
    weights = extremes(rng, (values, channels), 8)
    weights[:, 0], source[0, :] = -127, limits(width)[0]
    reads = rng.integers(0, 900, (pixels, values))
    wanted = source[:, reads].reshape(frames * pixels, values) @ weights
    assert np.abs(wanted).max() < 1 << 31
    acc = np.zeros((frames * pixels, channels), np.int32)
    kernels.mac_products(source.astype(np.int16), reads, weights.astype(np.int16), acc)
    assert np.array_equal(acc, wanted)


@pytest.mark.parametrize("kind", [np.int16, np.uint8])
@pytest.mark.parametrize("size", [(2, 2), (2, 8), (6, 4)])
def test_max_pool(kind, size):
    rng = np.random.default_rng(1)
    low, high = (-256, 256) if kind is np.int16 else (0, 2)
    values = rng.integers(low, high, (3, *size, 5)).astype(kind)
    values[1] = low
    found = np.full((3, size[0] // 2, size[1] // 2, 5), 99, kind)
    kernels.max_pool(values, found)
    assert np.array_equal(found, max_pool(values))


@pytest.mark.parametrize(("unit_bits", "units", "channels"), [
    (64, 1, 64), (64, 2, 70), (64, 3, 64), (32, 1, 20), (32, 4, 97), (8, 2, 9), (1, 5, 3),
])  # fmt: skip
def test_pack_signs(unit_bits, units, channels):
    rng = np.random.default_rng(channels)
    frames, pixels = 2, 13
    signs = rng.integers(0, 2, (frames, pixels, channels)).astype(np.uint8)
    signs[0, :2] = [[0], [1]]
    places = rng.permutation(pixels) * (units + 1)
    padded = np.pad(signs, ((0, 0), (0, 0), (0, units * unit_bits - channels)))
    memory = rng.integers(0, 1 << 63, (frames, pixels * (units + 1)), np.uint64)
    wanted = memory.copy()
    for frame in range(frames):
        for pixel in range(pixels):
            words = isa_bits.pack(padded[frame, pixel], 1, unit_bits)
            wanted[frame, places[pixel] : places[pixel] + units] = words
    kernels.pack_signs(signs.reshape(-1, channels), unit_bits, units, places, memory)
    assert np.array_equal(memory, wanted)
