# amaranth: UnusedElaboratable=no
"""Logit store and top-k against numpy: ties, padding lanes, few classes, several frames."""

import numpy as np
import pytest

from hw.result import Result
from isa.registers import NO_CLASS
from sim.bench import simulate


def run(dut, frames, *, classes, lanes, top_k):
    """Per frame: (top classes, top logits, logits as the host reads them)."""
    results = []

    async def bench(ctx):
        for logits, extra_words in frames:
            ctx.set(dut.count, len(logits))
            ctx.set(dut.clear, 1)
            await ctx.tick()
            ctx.set(dut.clear, 0)
            words = -(-len(logits) // lanes) + extra_words
            # Padding lanes and dropped words hold what would win.
            padded = np.full(words * lanes, (1 << 23) - 1)
            padded[: len(logits)] = logits
            for word in padded.reshape(words, lanes):
                ctx.set(dut.input, {"valid": 1, "logits": word.tolist()})
                await ctx.tick()
                ctx.set(dut.input.valid, 0)
                if word[0] & 1:
                    await ctx.tick()
            ctx.set(dut.scan, 1)
            await ctx.tick()
            ctx.set(dut.scan, 0)
            cycles = 1
            while not ctx.get(dut.done):
                await ctx.tick()
                cycles += 1
            assert cycles == len(logits) + dut.scan_latency
            top = [ctx.get(dut.top_class[i]) for i in range(top_k)]
            best = [ctx.get(dut.top_logit[i]) for i in range(top_k)]
            read = []
            for cycle in range(len(logits) + dut.READ_LATENCY):
                ctx.set(dut.read_class, min(cycle, classes - 1))
                if cycle >= dut.READ_LATENCY:
                    read.append(ctx.get(dut.read_logit))
                await ctx.tick()
            assert not ctx.get(dut.done)
            results.append((top, best, read))

    simulate(dut, bench)
    return results


@pytest.mark.parametrize(
    ("classes", "lanes", "top_k"), [(16, 2, 5), (10, 4, 5), (33, 8, 3), (3, 1, 1)]
)
def test_top_k(classes, lanes, top_k):
    rng = np.random.default_rng(classes)
    dut = Result(post_lanes=lanes, classes=classes, top_k=top_k)
    low, high = -(1 << 23), (1 << 23) - 1
    frames = [
        (rng.integers(low, high + 1, classes), 0),
        (rng.integers(-2, 3, classes), 2),  # ties; more words than the store holds
        (np.full(classes, low), 0),
        (np.arange(classes), 0),
        (-np.arange(classes), 0),
        (rng.integers(low, high + 1, 2), 1),
        (np.array([low]), 0),
    ]
    frames = [(logits, 0 if len(logits) % lanes else extra) for logits, extra in frames]
    results = run(dut, frames, classes=classes, lanes=lanes, top_k=top_k)
    for (logits, _), (top, best, read) in zip(frames, results, strict=True):
        expected_top, expected_best = dut.model(logits, top_k)
        assert top == expected_top.tolist()
        assert best == expected_best.tolist()
        assert read == logits.tolist()


def test_model():
    top, best = Result.model([3, 7, -1, 7, 3], 4)
    assert top.tolist() == [1, 3, 0, 4]
    assert best.tolist() == [7, 7, 3, 3]
    top, best = Result.model([5], 2)
    assert top.tolist() == [0, NO_CLASS]
    assert best.tolist() == [5, -(1 << 23)]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"top_k": 0}, "Result top_k must be a positive integer, not 0"),
        ({"classes": 65536}, "Result classes must be at most 65535, not 65536"),
    ],
)
def test_errors(changes, message):
    with pytest.raises(ValueError) as caught:
        Result(**{"post_lanes": 2, "classes": 16, "top_k": 5} | changes)
    assert str(caught.value) == message
