# amaranth: UnusedElaboratable=no
"""Max-pool and averages against numpy: smallest maps, gaps, pass-through, maps back to back."""

import numpy as np
import pytest

from hw.pool import Average, MaxPool
from isa.fixed import average_2x2, global_sum
from sim.bench import simulate

LANES = 2


def run_pool(dut, maps, *, enable, gaps, parts=False):
    """``maps``: (residuals, bits), each (H, W, C). Returns the words that leave.

    With ``parts``, words of other layers pass between every two rows.
    """
    rng = np.random.default_rng(2)
    words, entered, left, passed = [], [], [], []
    finished = [False]

    async def feed(ctx):
        cycle = 0
        ctx.set(dut.enable, enable)

        async def tick():
            nonlocal cycle
            await ctx.tick()
            ctx.set(dut.input.valid, 0)
            ctx.set(dut.restart, 0)
            cycle += 1

        async def other_layer(width, groups):
            for _ in range(dut.latency):  # its last results have left
                await tick()
            ctx.set(dut.enable, 0)
            ctx.set(dut.width, 2)
            ctx.set(dut.groups, 1)
            await tick()
            for number in range(7):
                value = [99] * LANES
                ctx.set(dut.input, {"valid": 1, "residual": value, "bits": number & 3})
                passed.append(cycle + dut.latency)
                await tick()
            for _ in range(dut.latency):
                await tick()
            ctx.set(dut.width, width)
            ctx.set(dut.groups, groups)
            ctx.set(dut.enable, 1)
            await tick()

        for residual, bits in maps:
            height, width, channels = residual.shape
            ctx.set(dut.width, width)
            ctx.set(dut.groups, channels // LANES)
            await tick()
            ctx.set(dut.restart, 1)
            await tick()
            for r in range(height):
                if parts and r and r % 2 == 0:
                    await other_layer(width, channels // LANES)
                for c in range(width):
                    for g in range(0, channels, LANES):
                        while gaps and rng.integers(0, 3) == 0:
                            ctx.set(dut.input.residual, [255] * LANES)
                            ctx.set(dut.input.bits, -1)
                            await tick()
                        raw = sum(int(bits[r, c, g + i]) << i for i in range(LANES))
                        value = residual[r, c, g : g + LANES].tolist()
                        ctx.set(dut.input, {"valid": 1, "residual": value, "bits": raw})
                        if not enable or (r % 2 and c % 2):
                            entered.append(cycle)
                        await tick()
        for _ in range(dut.latency + 2):
            await tick()
        finished[0] = True

    async def collect(ctx):
        cycle = 0
        while not finished[0]:
            if ctx.get(dut.output.valid) and cycle not in passed:
                raw = ctx.get(dut.output.bits)
                words.append(
                    (
                        [ctx.get(dut.output.residual[i]) for i in range(LANES)],
                        [raw >> i & 1 for i in range(LANES)],
                    )
                )
                left.append(cycle)
            await ctx.tick()
            cycle += 1

    simulate(dut, feed, collect)
    assert left == [cycle + dut.latency for cycle in entered]
    return np.array(words).swapaxes(0, 1)


def random_map(rng, height, width, channels):
    values = rng.integers(-256 * 64, 256 * 64, (height, width, channels))
    bits = (values >= rng.integers(-3000, 3000, channels)).astype(int)
    return (values + 32 >> 6).clip(-256, 255), bits


SHAPES = [(2, 2, 2), (2, 2, 4), (4, 2, 2), (2, 6, 2), (8, 4, 4), (6, 8, 6), (6, 2, 2)]


@pytest.mark.parametrize("parts", [False, True])
@pytest.mark.parametrize("gaps", [False, True])
def test_max_pool(gaps, parts):
    rng = np.random.default_rng(1)
    maps = [random_map(rng, *shape) for shape in SHAPES]
    maps.append(tuple(np.full((4, 4, 2), value) for value in (-256, 0)))  # ignored, not 0
    dut = MaxPool(post_lanes=LANES, max_groups=3, line_words=16)
    words = run_pool(dut, maps, enable=1, gaps=gaps, parts=parts)
    expected = np.concatenate(
        [[dut.model(part).reshape(-1, LANES) for part in pair] for pair in maps], axis=1
    )
    np.testing.assert_array_equal(words, expected)


def test_model():
    rng = np.random.default_rng(1)
    x, _ = random_map(rng, 6, 8, 3)
    padded = np.pad(x, ((1, 1), (1, 1), (0, 0)), constant_values=-999)
    for i in range(3):
        for j in range(4):
            window = padded[2 * i : 2 * i + 3, 2 * j : 2 * j + 3]
            assert MaxPool.model(x)[i, j].tolist() == window.max(axis=(0, 1)).tolist()


def test_pass_through():
    rng = np.random.default_rng(3)
    maps = [random_map(rng, *shape) for shape in SHAPES]
    words = run_pool(
        MaxPool(post_lanes=LANES, max_groups=3, line_words=16), maps, enable=0, gaps=True
    )
    expected = np.concatenate([[x.reshape(-1, LANES) for x in pair] for pair in maps], axis=1)
    np.testing.assert_array_equal(words, expected)


@pytest.mark.parametrize("shift", [0, 1, 2, 7, 8, 13, 31])
def test_average(shift):
    rng = np.random.default_rng(shift)
    dut = Average(post_lanes=LANES)
    # The largest sums that still fit 16 bits, one in each direction.
    most = min(64 << min(shift, 4), 400)
    sums = [rng.integers(-256, 256, (n, LANES)) for n in (1, 4, 4, 1, 1, 9, most)]
    sums += [np.full((most, LANES), -256), np.full((most, LANES), 255)]
    results, ended, left = [], [], []

    async def feed(ctx):
        cycle = 0
        ctx.set(dut.shift, shift)
        for words in sums:
            for n, word in enumerate(words):
                while rng.integers(0, 4) == 0:
                    ctx.set(dut.input, {"valid": 0, "first": 1, "last": 1, "data": [99] * LANES})
                    await ctx.tick()
                    cycle += 1
                flags = {"valid": 1, "first": int(n == 0), "last": int(n == len(words) - 1)}
                ctx.set(dut.input, flags | {"data": word.tolist()})
                if flags["last"]:
                    ended.append(cycle)
                await ctx.tick()
                cycle += 1
        ctx.set(dut.input.valid, 0)

    async def collect(ctx):
        cycle = 0
        while len(results) < len(sums):
            if ctx.get(dut.output.valid):
                results.append([ctx.get(dut.output.data[i]) for i in range(LANES)])
                left.append(cycle)
            await ctx.tick()
            cycle += 1

    simulate(dut, feed, collect)
    assert results == [dut.model(words, shift).tolist() for words in sums]
    assert left == [cycle + dut.latency for cycle in ended]


def test_average_model():
    rng = np.random.default_rng(0)
    x = rng.integers(-256, 256, (4, 4, LANES))
    assert Average.model(x.reshape(-1, LANES), 3).tolist() == global_sum(x, 3).tolist()
    assert Average.model(x[:2, :2].reshape(-1, LANES), 2).tolist() == average_2x2(x)[0, 0].tolist()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: MaxPool(post_lanes=0, max_groups=1, line_words=4),
            "MaxPool post_lanes must be a positive integer, not 0",
        ),
        (
            lambda: MaxPool(post_lanes=2, max_groups=1, line_words=-1),
            "MaxPool line_words must be a positive integer, not -1",
        ),
        (lambda: Average(post_lanes=0), "Average post_lanes must be a positive integer, not 0"),
    ],
)
def test_errors(make, message):
    with pytest.raises(ValueError) as caught:
        make()
    assert str(caught.value) == message
