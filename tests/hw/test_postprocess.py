# amaranth: UnusedElaboratable=no
"""The post-process against isa.fixed: extremes, all shifts, tiles that follow closely."""

import numpy as np
import pytest

from hw.postprocess import PostProcess
from isa.fixed import ChannelParameters, Shifts, limits
from isa.layer import CHANNEL
from sim.bench import send, simulate

FIELDS = {name: field.shape.width for name, field in CHANNEL}


def edge_values(rng, bits, shape):
    """Random signed values of every magnitude, and the extremes."""
    low, high = limits(bits)
    values = rng.integers(low, high + 1, shape) >> rng.integers(0, bits, shape)
    return np.where(
        rng.integers(0, 8, shape) == 0, rng.choice([low, high, 0, -1, 1], shape), values
    )


def random_tile(rng, lanes):
    return ChannelParameters(
        **{name: edge_values(rng, bits, lanes) for name, bits in FIELDS.items()}
    )


def channels(tiles):
    """The stream of parameters."""
    return [
        {name: int(getattr(tile, name)[c]) for name in FIELDS}
        for tile in tiles
        for c in range(len(tile.m))
    ]


def bounded(rng, acc, residual, tile, shifts):
    """Only words whose sum p fits its 40 bits, which the compiler proves of every network."""
    low, high = limits(40)
    acc18 = np.clip((acc + (1 << shifts.a >> 1)) >> shifts.a, *limits(18))
    total = tile.m * acc18 + tile.n + (0 if residual is None else residual << shifts.k)
    fits = (total >= low) & (total <= high)
    return np.where(fits, acc, 0), None if residual is None else np.where(fits, residual, 0)


def run(dut, tiles, words, shifts, shortcut, *, groups, stalls, gaps):
    """``words``: per tile, (pixels, M) accumulators and residuals. Returns the same of outputs."""
    outputs, issued_at, left_at = [], [], []
    total = sum(acc.size // dut_lanes(dut) for acc, _ in words)
    rng = np.random.default_rng(8)

    async def params(ctx):
        await send(ctx, dut.params, channels(tiles), stalls)

    async def feed(ctx):
        ctx.set(dut.a, shifts.a)
        ctx.set(dut.s, shifts.s)
        ctx.set(dut.k, shifts.k)
        ctx.set(dut.shortcut, shortcut)
        cycle = 0

        async def tick():
            nonlocal cycle
            await ctx.tick()
            ctx.set(dut.input.valid, 0)
            ctx.set(dut.tile_done, 0)
            cycle += 1

        for acc, residual in words:
            while not ctx.get(dut.tile_ready):
                await tick()
            last = (len(acc) - 1, groups - 1)
            for p in range(len(acc)):
                for group in range(groups):
                    while gaps and rng.integers(0, 4) == 0:
                        await tick()
                    at = slice(group * dut_lanes(dut), (group + 1) * dut_lanes(dut))
                    # Residuals of a layer without shortcut are whatever the memory holds.
                    word = (
                        residual[p, at]
                        if residual is not None
                        else rng.integers(-256, 256, dut_lanes(dut))
                    )
                    ctx.set(
                        dut.input,
                        {
                            "valid": 1,
                            "group": group,
                            "acc": acc[p, at].tolist(),
                            "residual": word.tolist(),
                        },
                    )
                    ctx.set(dut.tile_done, int((p, group) == last))
                    issued_at.append(cycle)
                    await tick()

    async def collect(ctx):
        cycle = 0
        lanes = dut_lanes(dut)
        while len(outputs) < total:
            if ctx.get(dut.output.valid):
                bits = ctx.get(dut.output.bits)
                outputs.append(
                    [
                        [ctx.get(dut.output.residual[i]) for i in range(lanes)],
                        [bits >> i & 1 for i in range(lanes)],
                        [ctx.get(dut.output.logits[i]) for i in range(lanes)],
                    ]
                )
                left_at.append(cycle)
            await ctx.tick()
            cycle += 1

    simulate(dut, params, feed, collect)
    assert left_at == [cycle + dut.latency for cycle in issued_at]
    return np.array(outputs).swapaxes(0, 1)  # (3, words, L)


def dut_lanes(dut):
    return len(dut.output.bits)


@pytest.mark.parametrize(
    ("lanes", "post_lanes", "shortcut", "stalls", "gaps"),
    [
        (4, 2, True, "none", False),
        (4, 2, False, "light", True),
        (4, 2, True, "heavy", False),
        (8, 2, True, "light", False),
        (2, 2, False, "none", False),
        (2, 1, True, "none", True),
    ],
)
def test_tiles(lanes, post_lanes, shortcut, stalls, gaps):
    """Short tiles, so that parameters are replaced while words are still in the pipeline."""
    rng = np.random.default_rng(lanes + shortcut)
    dut = PostProcess(lanes=lanes, post_lanes=post_lanes)
    shifts = Shifts(
        a=int(rng.integers(0, 12)), s=int(rng.integers(2, 14)), k=int(rng.integers(0, 16))
    )
    tiles, words, expected = [], [], []
    for pixels in (3, 1, 1, 2, 1, 6):
        tile = random_tile(rng, lanes)
        acc = edge_values(rng, 32, (pixels, lanes))
        residual = edge_values(rng, 9, (pixels, lanes)) if shortcut else None
        acc, residual = bounded(rng, acc, residual, tile, shifts)
        tiles.append(tile)
        words.append((acc, residual))
        model = dut.model(acc, residual, tile, shifts)
        expected.append(np.array([x.reshape(-1, post_lanes) for x in model]))
    outputs = run(
        dut, tiles, words, shifts, shortcut,
        groups=lanes // post_lanes, stalls=stalls, gaps=gaps,
    )  # fmt: skip
    np.testing.assert_array_equal(outputs, np.concatenate(expected, axis=1))


@pytest.mark.parametrize("seed", range(8))
def test_arithmetic(seed):
    """Every shift, extremes, and parameters like those of a network."""
    rng = np.random.default_rng(seed)
    dut = PostProcess(lanes=1, post_lanes=1)
    shifts = Shifts(a=4 * seed + seed % 4, s=31 - 4 * seed - seed % 3, k=int(rng.integers(0, 32)))
    tile = random_tile(rng, 1)
    if seed % 2:  # the middle of the ranges: results that do not saturate
        tile.m[:] = rng.integers(-2000, 2000, 1)
        tile.slope[:] = rng.integers(-4096, 8192, 1)
        tile.n[:] = rng.integers(-(1 << 20), 1 << 20, 1)
    acc = edge_values(rng, 32, (300, 1))
    residual = edge_values(rng, 9, (300, 1))
    if seed % 2:
        # p of about 18 + s bits, so that t is spread over its range
        spread = min(32, max(2, 6 + shifts.s + shifts.a))
        acc = edge_values(rng, spread, (300, 1))
    acc, residual = bounded(rng, acc, residual, tile, shifts)
    outputs = run(dut, [tile], [(acc, residual)], shifts, True, groups=1, stalls="none", gaps=False)
    np.testing.assert_array_equal(outputs, np.array(dut.model(acc, residual, tile, shifts)))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((0, 1), ValueError, "PostProcess lanes must be a positive integer, not 0"),
        ((4, "2"), TypeError, "PostProcess post_lanes must be a positive integer, not '2'"),
        ((4, 3), ValueError, "PostProcess lanes must be a multiple of post_lanes (3), not 4"),
    ],
)
def test_errors(arguments, error, message):
    with pytest.raises(error) as caught:
        PostProcess(lanes=arguments[0], post_lanes=arguments[1])
    assert str(caught.value) == message
