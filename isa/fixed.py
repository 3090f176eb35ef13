"""Fixed-point formats and the integer arithmetic of every unit, in numpy.

Rounding is half up everywhere. These functions define what the gateware, the golden model and the
integer PyTorch network compute; a difference from them is a bug in the other.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]

RESIDUAL_BITS = 9  # a residual value; an ECP5 memory block is 9, 18 or 36 bits wide
GUARD_BITS = 6  # one residual LSB is 2**6 of t and y
ACC_BITS = 32  # accumulator of the MAC array, and acc at the input of the post-process
ACC18_BITS = 18
T_BITS = 18  # t and y
SUM_BITS = 40  # p
M_BITS = 16
N_BITS = 32
SLOPE_BITS = 16
SLOPE_FRACTION = 12
BIAS2_BITS = 16
THRESHOLD_BITS = 18
FEATURE_BITS = 16  # a global sum, the classifier's operand
LOGIT_BITS = 24
WEIGHT_BITS = 8
SHIFT_BITS = 5  # a, s, k and the feature shift


class FixedPointError(ValueError):
    """A network whose values cannot be held in the formats above."""


def limits(bits: int) -> tuple[int, int]:
    """Smallest and largest value of a signed number of ``bits`` bits."""
    return -(1 << (bits - 1)), (1 << (bits - 1)) - 1


def saturate(x: IntArray, bits: int) -> IntArray:
    low, high = limits(bits)
    return np.clip(x, low, high)


def round_shift(x: IntArray, shift: int) -> IntArray:
    """x / 2**shift, rounded half up."""
    return x if shift == 0 else (x + (1 << (shift - 1))) >> shift


def round_half_up(x: npt.ArrayLike) -> IntArray:
    """To integers. Values beyond the int64 range are clipped, far outside every format."""
    values = np.clip(np.asarray(x, np.float64), -(2.0**62), 2.0**62)
    down = np.floor(values)
    # Not floor(x + 0.5): that sum is rounded, which turns 0.5 - 2**-54 into 1.
    return (down + (values - down >= 0.5)).astype(np.int64)


# --- what the units compute ------------------------------------------------------------------


@dataclass(frozen=True)
class Shifts:
    """Per-layer shifts of the post-process: acc by a, p by s, the shortcut left by k."""

    a: int = 0
    s: int = 0
    k: int = 0


@dataclass(frozen=True)
class ChannelParameters:
    """Per-channel parameters of the post-process, each an array of shape (channels,)."""

    m: IntArray
    n: IntArray
    slope: IntArray
    bias2: IntArray
    threshold: IntArray


def post_process_sum(
    acc: IntArray, residual: IntArray | None, params: ChannelParameters, shifts: Shifts
) -> IntArray:
    """round(p >> s), before any saturation. ``acc`` and ``residual``: (..., channels)."""
    acc18 = saturate(round_shift(acc, shifts.a), ACC18_BITS)
    p = params.m * acc18 + params.n
    if residual is not None:
        p = p + (residual << shifts.k)
    return round_shift(p, shifts.s)


def post_process(
    acc: IntArray, residual: IntArray | None, params: ChannelParameters, shifts: Shifts
) -> tuple[IntArray, IntArray]:
    """Everything after a convolution: new residual (9 bits) and sign bit (0 or 1).

    ``acc``: (..., channels); ``residual``: the same shape, or None for a layer without shortcut.
    """
    t = saturate(post_process_sum(acc, residual, params, shifts), T_BITS)
    negative = saturate(round_shift(t * params.slope, SLOPE_FRACTION), T_BITS)
    y = saturate(np.where(t < 0, negative, t) + params.bias2, T_BITS)
    bits = (y >= params.threshold).astype(np.int64)
    return saturate(round_shift(y, GUARD_BITS), RESIDUAL_BITS), bits


def logits(acc: IntArray, params: ChannelParameters, shifts: Shifts) -> IntArray:
    """The classifier's output, 24 bits."""
    return saturate(post_process_sum(acc, None, params, shifts), LOGIT_BITS)


def average_2x2(x: IntArray) -> IntArray:
    """(H, W, C) -> (H/2, W/2, C), rounded half up."""
    h, w, c = x.shape
    return round_shift(x.reshape(h // 2, 2, w // 2, 2, c).sum(axis=(1, 3)), 2)


def global_sum(x: IntArray, shift: int) -> IntArray:
    """(H, W, C) -> (C,): the sum over all pixels, shifted to fit FEATURE_BITS."""
    return round_shift(x.sum(axis=(0, 1)), shift)


# --- the fold from float to integers ---------------------------------------------------------


@dataclass(frozen=True)
class Affine:
    """A convolution with what follows it, in real units, per output channel.

    real = gain * acc + offset (+ shortcut); then PReLU, bias2 and the comparison
    ``y + sign_bias >= 0`` that makes the next block's binary input.
    """

    gain: FloatArray
    offset: FloatArray
    slope: FloatArray
    bias2: FloatArray
    sign_bias: FloatArray

    @classmethod
    def plain(
        cls, gain: FloatArray, offset: FloatArray, sign_bias: FloatArray | None = None
    ) -> "Affine":
        """Without PReLU and bias2."""
        zero = np.zeros_like(offset)
        return cls(
            gain, offset, np.ones_like(offset), zero, zero if sign_bias is None else sign_bias
        )


@dataclass(frozen=True)
class Folded:
    """The integers of one layer's post-process."""

    params: ChannelParameters
    shifts: Shifts


def batch_norm(
    gain: FloatArray,
    weight: FloatArray,
    bias: FloatArray,
    mean: FloatArray,
    var: FloatArray,
    eps: float,
) -> tuple[FloatArray, FloatArray]:
    """Gain and offset of BN applied to ``gain * acc``."""
    factor = weight / np.sqrt(var + eps)
    return gain * factor, bias - mean * factor


def quantise_weights(weight: FloatArray) -> tuple[IntArray, FloatArray]:
    """int8 weights and their scale per output channel; ``weight``: (out, ...)."""
    largest = np.abs(weight).reshape(len(weight), -1).max(axis=1)
    scale = np.where(largest > 0, largest, 1.0) / 127
    shaped = scale.reshape(-1, *[1] * (weight.ndim - 1))
    return np.clip(round_half_up(weight / shaped), -127, 127), scale


def border_values(mean: tuple[float, ...]) -> IntArray:
    """The uint8 values that stand for zero outside the input image, one per channel."""
    return np.clip(round_half_up(255 * np.asarray(mean)), 0, 255)


def accumulator_shift(acc_bound: int) -> int:
    """The smallest a for which round(acc >> a) fits ACC18_BITS, |acc| <= acc_bound."""
    a = 0
    while (acc_bound + (1 << a >> 1)) >> a > limits(ACC18_BITS)[1]:
        a += 1
    return a


def feature_shift(pixels: int) -> int:
    """The smallest shift for which a global sum over ``pixels`` fits FEATURE_BITS."""
    bound, shift = pixels << (RESIDUAL_BITS - 1), 0
    while (bound + (1 << shift >> 1)) >> shift > limits(FEATURE_BITS)[1]:
        shift += 1
    return shift


def _sum_shift(
    gain: FloatArray, offset: FloatArray, acc_bound: int, a: int, shortcut: int | None
) -> int:
    """The largest s for which m, n, p and k fit.

    ``gain`` (per acc18) and ``offset`` are in LSBs of round(p >> s), and one LSB of the shortcut's
    residual is 2**shortcut of these. Raises FixedPointError where there is none.
    """
    acc18 = (acc_bound + (1 << a >> 1)) >> a
    for s in range((1 << SHIFT_BITS) - 1, -1, -1):
        m = np.abs(round_half_up(gain * 2.0**s)).max()
        n = np.abs(round_half_up(offset * 2.0**s)).max()
        k = 0 if shortcut is None else s + shortcut
        if not 0 <= k < 1 << SHIFT_BITS:
            continue
        residual = 0 if shortcut is None else 1 << (RESIDUAL_BITS - 1 + k)
        if (
            m <= limits(M_BITS)[1]
            and n <= limits(N_BITS)[1]
            and m * acc18 + n + residual + (1 << s >> 1) <= limits(SUM_BITS)[1]
        ):
            return s
    beside = "" if shortcut is None else f" beside a shortcut of 2**{shortcut}"
    raise FixedPointError(
        f"Gain and offset must fit {M_BITS} and {N_BITS} bits at some shift, not "
        f"{np.abs(gain).max():.3g} and {np.abs(offset).max():.3g} output LSBs{beside}"
    )


def fold(
    affine: Affine, acc_bound: int, lsb_out: float, exponent_in: int | None, exponent_out: int
) -> Folded:
    """Integers for one convolution. ``lsb_out`` is the real value of one output residual LSB.

    ``exponent_in`` is the power-of-two exponent of the shortcut's scale (None: no shortcut),
    ``exponent_out`` that of the output. PReLU slopes beyond +-8 and bias2 beyond +-512 output LSBs
    saturate, in every level alike. Raises FixedPointError where nothing fits.
    """
    a = accumulator_shift(acc_bound)
    unit = lsb_out / (1 << GUARD_BITS)
    gain, offset = affine.gain * 2.0**a / unit, affine.offset / unit
    shortcut = None if exponent_in is None else GUARD_BITS + exponent_in - exponent_out
    s = _sum_shift(gain, offset, acc_bound, a, shortcut)
    params = ChannelParameters(
        m=round_half_up(gain * 2.0**s),
        n=round_half_up(offset * 2.0**s),
        slope=saturate(round_half_up(affine.slope * 2.0**SLOPE_FRACTION), SLOPE_BITS),
        bias2=saturate(round_half_up(affine.bias2 / unit), BIAS2_BITS),
        # y + b >= 0 for an integer y is y >= ceil(-b)
        threshold=saturate(round_half_up(np.ceil(-affine.sign_bias / unit)), THRESHOLD_BITS),
    )
    return Folded(params, Shifts(a, s, 0 if shortcut is None else s + shortcut))


def fold_classifier(gain: FloatArray, offset: FloatArray, acc_bound: int) -> tuple[Folded, float]:
    """Integers for the classifier, and the real value of one logit LSB."""
    a = accumulator_shift(acc_bound)
    largest = (np.abs(gain) * acc_bound + np.abs(offset)).max()
    lsb = (
        math.ldexp(1.0, math.ceil(math.log2(largest / limits(LOGIT_BITS - 1)[1])))
        if largest
        else 1.0
    )
    s = _sum_shift(gain * 2.0**a / lsb, offset / lsb, acc_bound, a, None)
    zero = np.zeros(len(gain), np.int64)
    params = ChannelParameters(
        m=round_half_up(gain * 2.0**a / lsb * 2.0**s),
        n=round_half_up(offset / lsb * 2.0**s),
        slope=np.full(len(gain), 1 << SLOPE_FRACTION),
        bias2=zero,
        threshold=zero,
    )
    return Folded(params, Shifts(a, s)), lsb
