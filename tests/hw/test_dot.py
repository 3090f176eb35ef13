# amaranth: UnusedElaboratable=no
"""Dot products against numpy: every cycle new operands, the clear input, extremes, error texts."""

import numpy as np
import pytest

from hw.dot import ByteProduct, MacDot, XnorDot
from isa.bits import pack
from sim.bench import simulate


def run(dut, operands, weights, clear):
    """Sums of one pair of packed operands a cycle."""
    sums = []

    async def bench(ctx):
        for cycle in range(len(operands) + dut.latency):
            if cycle < len(operands):
                ctx.set(dut.operand, operands[cycle])
                ctx.set(dut.weights, weights[cycle])
            cleared = cycle - (dut.latency - 1)
            ctx.set(dut.clear, int(0 <= cleared < len(clear) and clear[cleared]))
            if cycle >= dut.latency:
                sums.append(ctx.get(dut.sum))
            await ctx.tick()

    simulate(dut, bench)
    return sums


@pytest.mark.parametrize("word_bits", [1, 2, 4, 7, 8, 13, 16, 32, 64, 128])
def test_xnor(word_bits):
    rng = np.random.default_rng(word_bits)
    dut = XnorDot(word_bits=word_bits)
    operands = rng.integers(0, 2, (60, word_bits))
    weights = rng.integers(0, 2, (60, word_bits))
    operands[0], weights[1], weights[2] = weights[0], 1 - operands[1], operands[2]
    clear = rng.integers(0, 4, 60) == 0
    clear[:3] = False
    sums = run(
        dut,
        pack(operands, 1, word_bits),
        pack(weights, 1, word_bits),
        clear,
    )
    expected = np.where(clear, 0, dut.model(operands, weights))
    assert sums == expected.tolist()
    assert sums[:3] == [word_bits, 0, word_bits]


def test_byte_product():
    """Every byte times every weight."""
    dut = ByteProduct()
    operands, weights = (a.ravel() for a in np.meshgrid(np.arange(256), np.arange(-128, 128)))
    expected = dut.model(operands, weights).tolist()

    async def bench(ctx):
        for cycle in range(len(expected) + dut.LATENCY):
            if cycle < len(expected):
                ctx.set(dut.operand, int(operands[cycle]))
                ctx.set(dut.weight, int(weights[cycle]))
            if cycle >= dut.LATENCY:
                assert ctx.get(dut.product) == expected[cycle - dut.LATENCY]
            await ctx.tick()

    simulate(dut, bench, deadline_cycles=70_000)


def by_tap(rows, taps):
    return [{"values": row[:taps], "bytes": row[taps:]} for row in rows.tolist()]


@pytest.mark.parametrize(
    ("taps", "byte_taps"), [(1, 0), (2, 0), (3, 0), (4, 0), (1, 1), (1, 2), (2, 1), (3, 4), (4, 1)]
)
def test_mac(taps, byte_taps):
    rng = np.random.default_rng(taps)
    dut = MacDot(taps=taps, stem_taps=taps + byte_taps)
    values = rng.integers(-(1 << 15), 1 << 15, (60, taps))
    operands = np.concatenate([values, rng.integers(0, 256, (60, byte_taps))], axis=1)
    weights = rng.integers(-128, 128, (60, taps + byte_taps))
    operands[:2, :taps], operands[:2, taps:] = -(1 << 15), 255
    weights[0], weights[1] = -128, 127
    clear = rng.integers(0, 4, 60) == 0
    clear[:2] = False
    sums = run(dut, by_tap(operands, taps), by_tap(weights, taps), clear)
    assert sums == np.where(clear, 0, dut.model(operands, weights)).tolist()
    assert sums[0] == (taps << 22) - 255 * 128 * byte_taps


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (
            lambda: XnorDot(word_bits=0),
            ValueError,
            "XnorDot word_bits must be a positive integer, not 0",
        ),
        (
            lambda: XnorDot(word_bits="8"),
            TypeError,
            "XnorDot word_bits must be a positive integer, not '8'",
        ),
        (
            lambda: MacDot(taps=True, stem_taps=1),
            TypeError,
            "MacDot taps must be a positive integer, not True",
        ),
        (
            lambda: MacDot(taps=4, stem_taps=3),
            ValueError,
            "MacDot stem_taps must be at least taps (4), not 3",
        ),
        (
            lambda: MacDot(taps=1, stem_taps=1, operand_bits=-1),
            ValueError,
            "MacDot operand_bits must be a positive integer, not -1",
        ),
    ],
)
def test_errors(make, error, message):
    with pytest.raises(error) as caught:
        make()
    assert str(caught.value) == message
