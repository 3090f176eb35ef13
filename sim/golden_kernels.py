"""The golden model's inner loops, compiled by Numba: what `isa.fixed` and `isa.bits` define, fast.

Everything is an integer; there is no rounding but `isa.fixed`'s, so results are exact on every
processor. N frames are computed at once; a memory is an array (N, size), and an address in it
stands for a value, or for a *unit* of a bit map: a word of at most 64 bits, bit 0 first.

Compiled code is cached on disk, in `__pycache__` beside this file or, where that cannot be written,
in the user's cache folder. Numba compiles anew when this file changes, but not when a constant
changes that it imports: so it imports none, and the widths of `isa.fixed` come in as arguments.
"""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from isa import fixed
from isa.fixed import ChannelParameters, IntArray, Shifts

Array = npt.NDArray[np.integer]

#: Kernels hold no Python objects, so that threads can run them side by side.
compiled = njit(cache=True, nogil=True)


class Rules(NamedTuple):
    """Shifts of a layer, and the formats of `isa.fixed`."""

    a: int
    s: int
    k: int
    acc18_bits: int = fixed.ACC18_BITS
    t_bits: int = fixed.T_BITS
    residual_bits: int = fixed.RESIDUAL_BITS
    guard_bits: int = fixed.GUARD_BITS
    slope_fraction: int = fixed.SLOPE_FRACTION


def rules_of(shifts: Shifts) -> Rules:
    return Rules(shifts.a, shifts.s, shifts.k)


def table_of(params: ChannelParameters) -> IntArray:
    """The rows that :func:`post_process` takes: m, n, slope, bias2, threshold; (5, channels)."""
    return np.array([params.m, params.n, params.slope, params.bias2, params.threshold], np.int64)


# --- scalars: inlined into the loops below ----------------------------------------------------


@intrinsic
def popcount(context: Any, x: Any) -> Any:
    """Ones of a uint64, as int64: one instruction on most processors."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> ir.Value:
        return builder.ctpop(args[0])

    return types.int64(types.uint64), generate


@compiled
def round_shift(x: int, shift: int) -> int:
    """x / 2**shift, rounded half up."""
    return (x + ((1 << shift) >> 1)) >> shift


@compiled
def saturate(x: int, bits: int) -> int:
    limit = 1 << (bits - 1)
    return min(max(x, -limit), limit - 1)


@compiled
def activate(acc: int, shortcut: int, m: int, n: int, slope: int, bias2: int, rules: Rules) -> int:
    """y of `isa.fixed.post_process`, for one value; ``shortcut`` is shifted already."""
    acc18 = saturate(round_shift(acc, rules.a), rules.acc18_bits)
    t = saturate(round_shift(m * acc18 + n + shortcut, rules.s), rules.t_bits)
    if t < 0:
        t = saturate(round_shift(t * slope, rules.slope_fraction), rules.t_bits)
    return saturate(t + bias2, rules.t_bits)


# --- products ---------------------------------------------------------------------------------


@compiled
def gather_bits(bits: Array, reads: Array, unit_bits: int, operand: Array) -> None:
    """The units of ``bits`` at ``reads``, one after the other, as 64-bit words in ``operand``."""
    operand[:] = 0
    for index in range(len(reads)):
        position = index * unit_bits
        operand[position >> 6] |= bits[reads[index]] << (position & 63)


@compiled
def xnor_products(
    bits: Array, reads: Array, unit_bits: int, weights: Array, constants: Array, kinds: Array,
    acc: Array,
) -> None:  # fmt: skip
    """acc = constant - 2 * popcount(operand XOR weight), where a masked unit reads as zeros.

    ``bits``: (N, units); ``reads``: (pixels, units read); ``weights``: uint64 (words, channels);
    ``constants``: (kinds, channels), what masks make of valid bits and weights, with the kind of
    each pixel in ``kinds``; ``acc``: (N * pixels, channels).
    """
    words, channels = weights.shape
    operand, counts = np.zeros(words, np.uint64), np.zeros(channels, np.int64)
    for frame in range(len(bits)):
        for pixel in range(len(reads)):
            gather_bits(bits[frame], reads[pixel], unit_bits, operand)
            counts[:] = 0
            for word in range(words):
                value, row = operand[word], weights[word]
                for channel in range(channels):
                    counts[channel] += popcount(value ^ row[channel])
            constant, result = constants[kinds[pixel]], acc[frame * len(reads) + pixel]
            for channel in range(channels):
                result[channel] = constant[channel] - 2 * counts[channel]


@compiled
def mac_products(source: Array, reads: Array, weights: Array, acc: Array) -> None:
    """Sums of products, four at a time; ``source``: (N, size), ``reads``: (pixels, values),
    ``weights``: (values, channels), all of int16 but for the addresses; ``acc``: int32
    (N * pixels, channels), where no sum may overflow. A multiple of four values."""
    values, channels = weights.shape
    for frame in range(len(source)):
        memory = source[frame]
        for pixel in range(len(reads)):
            places, result = reads[pixel], acc[frame * len(reads) + pixel]
            result[:] = 0
            for v in range(0, values, 4):
                x0, x1 = np.int32(memory[places[v]]), np.int32(memory[places[v + 1]])
                x2, x3 = np.int32(memory[places[v + 2]]), np.int32(memory[places[v + 3]])
                w0, w1, w2, w3 = weights[v], weights[v + 1], weights[v + 2], weights[v + 3]
                for c in range(channels):
                    result[c] += x0 * w0[c] + x1 * w1[c] + x2 * w2[c] + x3 * w3[c]


# --- after the products -----------------------------------------------------------------------


@compiled
def post_process(
    acc: Array, residual: Array, places: Array, has_shortcut: bool, table: Array, rules: Rules,
    signs: Array,
) -> None:  # fmt: skip
    """`isa.fixed.post_process` in place: the channels of a pixel stand at its place in the memory
    ``residual``, which holds the shortcut before and the result after; ``signs``: 0 or 1.

    ``acc`` and ``signs``: (N * pixels, channels); ``table``: see :func:`table_of`.
    """
    m, n, slope, bias2, threshold = table[0], table[1], table[2], table[3], table[4]
    channels = acc.shape[1]
    for frame in range(len(residual)):
        for pixel in range(len(places)):
            index = frame * len(places) + pixel
            values, sign = acc[index], signs[index]
            here = residual[frame, places[pixel] : places[pixel] + channels]
            for c in range(channels):
                shortcut = here[c] << rules.k if has_shortcut else 0
                y = activate(values[c], shortcut, m[c], n[c], slope[c], bias2[c], rules)
                here[c] = saturate(round_shift(y, rules.guard_bits), rules.residual_bits)
                sign[c] = y >= threshold[c]


@compiled
def max_pool(values: Array, result: Array) -> None:
    """3x3 stride 2 over (N, H, W, C), a border of one ignored. Of sign bits, the maximum is OR."""
    frames, height, width, channels = values.shape
    for frame in range(frames):
        for i in range(height // 2):
            for j in range(width // 2):
                best = result[frame, i, j]
                best[:] = values[frame, 2 * i, 2 * j]
                for row in range(max(2 * i - 1, 0), 2 * i + 2):
                    for column in range(max(2 * j - 1, 0), 2 * j + 2):
                        other = values[frame, row, column]
                        for c in range(channels):
                            best[c] = max(best[c], other[c])


@compiled
def pack_signs(signs: Array, unit_bits: int, units: int, places: Array, bits: Array) -> None:
    """Writes the ``units`` units of each pixel at its place in ``bits``; channel 0 is bit 0, and
    bits beyond the channels are 0. ``signs``: (N * pixels, channels)."""
    for frame in range(len(bits)):
        for pixel in range(len(places)):
            sign = signs[frame * len(places) + pixel]
            for unit in range(units):
                word = np.uint64(0)
                first = unit * unit_bits
                for c in range(first, min(first + unit_bits, len(sign))):
                    word |= np.uint64(sign[c]) << np.uint64(c - first)
                bits[frame, places[pixel] + unit] = word
