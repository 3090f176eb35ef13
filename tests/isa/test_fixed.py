"""Integer arithmetic and fold against Python's unbounded integers and fractions."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from isa import fixed
from isa.fixed import Affine, ChannelParameters, FixedPointError, Shifts

quick = settings(max_examples=80, deadline=None, derandomize=True, database=None)


def half_up(x: Fraction) -> int:
    return math.floor(x + Fraction(1, 2))


def clamp(x: int, bits: int) -> int:
    return max(-(1 << (bits - 1)), min((1 << (bits - 1)) - 1, x))


def signed(bits):
    low, high = -(1 << (bits - 1)), (1 << (bits - 1)) - 1
    return st.integers(low, high) | st.integers(-40, 40) | st.sampled_from([low, high])


# --- rounding and saturation -----------------------------------------------------------------


def test_ties_go_up():
    halves = np.array([-5, -3, -1, 1, 3, 5])
    assert fixed.round_shift(halves, 1).tolist() == [-2, -1, 0, 1, 2, 3]
    assert fixed.round_half_up(halves / 2).tolist() == [-2, -1, 0, 1, 2, 3]


@quick
@given(signed(40), st.integers(0, 31))
def test_round_shift(x, shift):
    assert fixed.round_shift(np.array(x), shift) == half_up(Fraction(x, 1 << shift))


@quick
@given(st.floats(-1e15, 1e15) | st.floats(-3, 3))
@example(math.nextafter(0.5, 0))  # plus 0.5, this is 1 in floating point
@example(math.nextafter(-0.5, -1))
@example(float((1 << 52) + 1))
@example(float(-(1 << 52) - 1))
def test_round_half_up(x):
    assert fixed.round_half_up(x) == half_up(Fraction(x))


def test_round_half_up_clips_what_no_format_holds():
    assert fixed.round_half_up([1e300, -math.inf]).tolist() == [1 << 62, -(1 << 62)]


@pytest.mark.parametrize("bits", [1, 2, 9, 18, 40])
def test_saturate(bits):
    low, high = fixed.limits(bits)
    assert (low, high) == (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    values = [low - 1, low, low + 1, 0, high - 1, high, high + 1, 1 << 50, -(1 << 50)]
    assert fixed.saturate(np.array(values), bits).tolist() == [clamp(v, bits) for v in values]


# --- the units -------------------------------------------------------------------------------


def one_channel(**values) -> ChannelParameters:
    defaults = {"m": 1, "n": 0, "slope": 1 << fixed.SLOPE_FRACTION, "bias2": 0, "threshold": 0}
    return ChannelParameters(**{k: np.array([v]) for k, v in (defaults | values).items()})


def reference_sum(acc, residual, m, n, shifts):
    acc18 = clamp(half_up(Fraction(acc, 1 << shifts.a)), 18)
    p = m * acc18 + n + (residual << shifts.k)
    return half_up(Fraction(p, 1 << shifts.s))


@quick
@given(
    signed(32), st.none() | signed(9), signed(16), signed(32), signed(16), signed(16), signed(18),
    st.integers(0, 14), st.integers(0, 31), st.integers(0, 30),
)  # fmt: skip
def test_post_process(acc, residual, m, n, slope, bias2, threshold, a, s, k):
    shifts = Shifts(a, s, k)
    t = clamp(reference_sum(acc, residual or 0, m, n, shifts), 18)
    y = t if t >= 0 else clamp(half_up(Fraction(t * slope, 4096)), 18)
    y = clamp(y + bias2, 18)
    params = one_channel(m=m, n=n, slope=slope, bias2=bias2, threshold=threshold)
    shortcut = None if residual is None else np.array([residual])
    got_residual, got_bit = fixed.post_process(np.array([acc]), shortcut, params, shifts)
    assert got_residual.tolist() == [clamp(half_up(Fraction(y, 64)), 9)]
    assert got_bit.tolist() == [int(y >= threshold)]


@quick
@given(signed(32), signed(16), signed(32), st.integers(0, 14), st.integers(0, 31))
def test_logits(acc, m, n, a, s):
    expected = clamp(reference_sum(acc, 0, m, n, Shifts(a, s)), 24)
    params = one_channel(m=m, n=n)
    assert fixed.logits(np.array([acc]), params, Shifts(a, s)).tolist() == [expected]


def test_channels_do_not_mix():
    params = ChannelParameters(*(np.array(v) for v in ([1, 2], [0, 64], [4096, 0], [0, 5], [1, 2])))
    acc = np.array([[[64, -96], [-64, -34]]])  # 1 x 2 pixels of 2 channels
    residuals, bits = fixed.post_process(acc, None, params, Shifts())
    # channel 1: t = 2 * acc + 64, never positive here; slope 0; y = bias2 = 5, or t = -4 -> 5
    assert residuals.tolist() == [[[1, 0], [-1, 0]]]
    assert bits.tolist() == [[[1, 1], [0, 1]]]


def test_average_2x2():
    x = np.random.default_rng(1).integers(-256, 256, (4, 6, 3))
    got = fixed.average_2x2(x)
    assert got.shape == (2, 3, 3)
    for i, j, c in np.ndindex(got.shape):
        four = [int(x[2 * i + u, 2 * j + v, c]) for u in (0, 1) for v in (0, 1)]
        assert got[i, j, c] == half_up(Fraction(sum(four), 4))
    assert fixed.average_2x2(np.array([[[-1], [-1]], [[0], [0]]])) == 0  # -0.5 rounds up


def test_global_sum():
    x = np.array([[[255, -256], [255, -256]], [[3, 1], [-4, -1]]])
    assert fixed.global_sum(x, 0).tolist() == [509, -512]
    assert fixed.global_sum(x, 1).tolist() == [255, -256]  # 254.5


# --- the fold --------------------------------------------------------------------------------


def fits_18(bound: int, a: int) -> bool:
    low, high = fixed.limits(18)
    rounded = fixed.round_shift(np.array([bound, -bound]), a)
    return bool(rounded[0] <= high and rounded[1] >= low)


@quick
@given(st.integers(0, 1 << 31) | st.sampled_from([(1 << 17) - 1, 1 << 17, (1 << 18) - 2, 1 << 18]))
@example((1 << 18) - 1)  # shifted by 1 it rounds up to 2**17, which does not fit
def test_accumulator_shift_is_minimal(bound):
    a = fixed.accumulator_shift(bound)
    assert fits_18(bound, a)
    assert a == 0 or not fits_18(bound, a - 1)


@pytest.mark.parametrize("pixels", [1, 49, 64, 127, 128, 129, 196, 256, 1023, 12544, 65536])
def test_feature_shift_is_minimal(pixels):
    def fits(shift):
        # The most negative sum has the largest magnitude.
        return (pixels * 256 + ((1 << shift) >> 1)) >> shift <= 32767

    shift = fixed.feature_shift(pixels)
    assert fits(shift)
    assert shift == 0 or not fits(shift - 1)
    for value in (-256, 255):
        total = fixed.global_sum(np.full((1, pixels, 1), value), shift)
        assert abs(int(total[0])) <= 32767


gains = st.floats(-0.2, 0.2) | st.floats(-1e-4, 1e-4) | st.just(0.0)
offsets = st.floats(-40, 40) | st.just(0.0)


@st.composite
def layers(draw):
    """Gains, offsets, bound of the accumulator, LSB, exponents in (or None) and out."""
    channels = draw(st.integers(1, 3))
    gain = np.array([draw(gains) for _ in range(channels)])
    offset = np.array([draw(offsets) for _ in range(channels)])
    bound = draw(st.integers(1, 5000) | st.integers(100_000, 30_000_000))
    lsb = draw(st.sampled_from([0.01, 0.05, 0.3]))
    exponent_in = draw(st.none() | st.integers(-3, 3))
    return gain, offset, bound, lsb, exponent_in, draw(st.integers(-3, 3))


def worst_sums(params, acc18, residual, shifts):
    """|p| with its rounding, as Python integers, per channel."""
    shortcut = residual << shifts.k
    for m, n in zip(params.m.tolist(), params.n.tolist(), strict=True):
        yield abs(m) * acc18 + abs(n) + shortcut + ((1 << shifts.s) >> 1)


def holds(m, n, worst):
    in_range = all(abs(v) <= 32767 for v in m) and all(abs(v) <= (1 << 31) - 1 for v in n)
    return in_range and worst < 1 << 39


@settings(quick, max_examples=100)
@given(layers(), st.data())
def test_fold(layer, data):
    gain, offset, bound, lsb, exponent_in, exponent_out = layer
    affine = Affine.plain(gain, offset)
    try:
        folded = fixed.fold(affine, bound, lsb, exponent_in, exponent_out)
    except FixedPointError:
        assume(False)
    params, shifts = folded.params, folded.shifts
    a, s, k = shifts.a, shifts.s, shifts.k
    assert a == fixed.accumulator_shift(bound)
    assert all(0 <= shift < 32 for shift in (a, s, k))
    shortcut = exponent_in is not None
    if shortcut:
        assert k == s + 6 + exponent_in - exponent_out

    # Nothing overflows, whatever the input.
    acc18 = int(fixed.round_shift(np.array(bound), a))
    worst = max(worst_sums(params, acc18, 256 if shortcut else 0, shifts))
    assert holds(params.m.tolist(), params.n.tolist(), worst)

    # A larger s would not do.
    unit = lsb / 64
    t_gain, t_offset = gain * 2.0**a / unit, offset / unit
    if s < 31 and (not shortcut or k < 31):
        m = [half_up(Fraction(float(v)) * 2 ** (s + 1)) for v in t_gain]
        n = [half_up(Fraction(float(v)) * 2 ** (s + 1)) for v in t_offset]
        more = Shifts(a, s + 1, k + 1 if shortcut else 0)
        # per layer, not per channel: _sum_shift adds the largest m and n
        worst = max(map(abs, m)) * acc18 + max(map(abs, n)) + (1 << s)
        worst += 256 << more.k if shortcut else 0
        assert not holds(m, n, worst)

    # The sum approximates the affine: errors of m, n, acc >> a, and the last rounding.
    acc = data.draw(st.integers(-bound, bound) | st.sampled_from([-bound, bound]))
    residual = data.draw(signed(9))
    got = fixed.post_process_sum(
        np.array([acc]), np.array([residual]) if shortcut else None, params, shifts
    )
    for channel in range(len(gain)):
        exact = Fraction(float(t_gain[channel])) * Fraction(acc, 1 << a)
        exact += Fraction(float(t_offset[channel]))
        if shortcut:
            exact += residual * Fraction(2) ** (6 + exponent_in - exponent_out)
        bound_m = Fraction(abs(acc) + ((1 << a) >> 1), (1 << a) << (s + 1))
        bound_n = Fraction(1, 1 << (s + 1))
        bound_acc = abs(Fraction(float(t_gain[channel]))) / 2 if a else 0
        assert abs(int(got[channel]) - exact) <= bound_m + bound_n + bound_acc + Fraction(1, 2)


def test_slope_bias_and_threshold():
    columns = ([1.0] * 5, [0.0] * 5, [0.25, -8.5, 9.0, 0.0, 1.0], [-1.0, 0, 99, -99, 0.01])
    affine = Affine(*map(np.array, columns), sign_bias=np.array([-0.011, 0.011, 0.0, 99.0, -99.0]))
    params = fixed.fold(affine, 100, 0.64, None, 0).params  # unit 0.01
    assert params.slope.tolist() == [1024, -32768, 32767, 0, 4096]
    assert params.bias2.tolist() == [-100, 0, 9900, -9900, 1]
    # y + 0.011 >= 0 for an integer y of 0.01 is y >= -1; y - 0.011 >= 0 is y >= 2
    assert params.threshold.tolist() == [2, -1, 0, -9900, 9900]
    far = Affine.plain(np.ones(2), np.zeros(2), np.array([1e9, -1e9]))
    assert fixed.fold(far, 100, 0.64, None, 0).params.threshold.tolist() == [-(1 << 17), 131071]


@pytest.mark.parametrize(
    ("gain", "offset", "exponents", "message"),
    [
        (
            1e4, 1.0, (None, 0),
            "Gain and offset must fit 16 and 32 bits at some shift, not 6.4e+05 and 64 output LSBs",
        ),
        (
            1.0, 1e9, (None, 0),
            "Gain and offset must fit 16 and 32 bits at some shift, not 64 and 6.4e+10 output LSBs",
        ),
        (
            1.0, 2.0, (40, 0),
            "Gain and offset must fit 16 and 32 bits at some shift, not 64 and 128 output LSBs "
            "beside a shortcut of 2**46",
        ),
        (
            1.0, 2.0, (0, 40),
            "Gain and offset must fit 16 and 32 bits at some shift, not 64 and 128 output LSBs "
            "beside a shortcut of 2**-34",
        ),
    ],
)  # fmt: skip
def test_fold_refuses_what_does_not_fit(gain, offset, exponents, message):
    affine = Affine.plain(np.array([gain, 0.0]), np.array([0.0, offset]))
    with pytest.raises(FixedPointError) as error:
        fixed.fold(affine, 100, 1.0, *exponents)
    assert str(error.value) == message


@quick
@given(
    st.lists(st.tuples(st.floats(-1e-3, 1e-3), st.floats(-5, 5)), min_size=1, max_size=4),
    st.integers(127 * 256, (1 << 31) - 1),  # the least for one full-scale weight and one pixel
    st.data(),
)
def test_fold_classifier(rows, bound, data):
    gain, offset = (np.array(column) for column in zip(*rows, strict=True))
    folded, lsb = fixed.fold_classifier(gain, offset, bound)
    assert math.frexp(lsb)[0] == 0.5  # a power of two
    largest = max(abs(g) * bound + abs(o) for g, o in rows)
    if largest:  # 23 bits and their sign are used, but for at most a factor of two
        assert 1 << 21 <= largest / lsb * (1 + 1e-9)
        assert largest / lsb <= (1 << 22) * (1 + 1e-9)
    a, s = folded.shifts.a, folded.shifts.s
    acc = data.draw(st.integers(-bound, bound) | st.sampled_from([-bound, bound]))
    got = fixed.logits(np.array([acc]), folded.params, folded.shifts)
    acc18 = int(fixed.round_shift(np.array(bound), a))
    assert max(worst_sums(folded.params, acc18, 0, folded.shifts)) < 1 << 39
    for channel, (g, o) in enumerate(rows):
        exact = (g * acc + o) / lsb
        error = (acc18 + 1) / 2.0 ** (s + 1) + abs(g) / lsb * 2.0**a / 2 + 0.5
        assert abs(int(got[channel]) - exact) <= error + 1e-3


def test_fold_classifier_of_zeros():
    folded, lsb = fixed.fold_classifier(np.zeros(2), np.zeros(2), 100)
    assert lsb == 1.0
    assert fixed.logits(np.array([7, 9]), folded.params, folded.shifts).tolist() == [0, 0]


def test_batch_norm():
    gain, offset = fixed.batch_norm(
        *(np.array([v]) for v in (0.5, 3.0, 1.0, 4.0, 0.25 - 1e-5)), 1e-5
    )
    assert gain == pytest.approx([3.0])  # 0.5 * 3 / sqrt(0.25)
    assert offset == pytest.approx([1.0 - 4.0 * 6.0])


def test_quantise_weights():
    weight = np.array([[[-0.5, 1.27]], [[0.0, 0.0]], [[-254.0, 3.0]]])
    integers, scale = fixed.quantise_weights(weight)
    assert integers.tolist() == [[[-50, 127]], [[0, 0]], [[-127, 2]]]  # 1.5 rounds up
    assert scale == pytest.approx([0.01, 1 / 127, 2.0])


def test_border_values():
    assert fixed.border_values((0.0, 0.5, 1.0, 2.0)).tolist() == [0, 128, 255, 255]
