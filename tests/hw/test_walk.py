"""The step walker against the loops of isa.layer, written as plain Python."""

import random

import pytest

from hw.walk import StepWalker
from isa import checked
from isa.layer import LAYER, LayerKind
from sim.bench import simulate

BLANK = {name: 0 for name, _ in LAYER}


def steps(layer, stem_taps, words_per_group):
    """The steps of a convolution layer, as isa.layer describes them."""
    stride = 1 + layer["stride2"]
    pixels = [(i, j) for i in range(layer["out_height"]) for j in range(layer["out_width"])]
    sets = [(ky, n) for ky in range(layer["kernel_rows"]) for n in range(layer["inner"])]
    kind = LayerKind(layer["kind"])
    for _ in range(layer["tiles"]):
        for block in range(layer["blocks"]):
            last = block == layer["blocks"] - 1
            first_pixel = block * layer["block"]
            length = layer["last_block"] if last else layer["block"]
            for index, (ky, n) in enumerate(sets):
                for b in range(length):
                    i, j = pixels[first_pixel + b]
                    row = i * stride - layer["pad"] + ky
                    unit = {LayerKind.STEM: n * stem_taps, LayerKind.BINARY: n}.get(
                        kind, n // words_per_group
                    )
                    x = j * stride * layer["src_pixel"] - layer["pad_x"] + unit
                    in_map = 0 <= layer["first_row"] + row < layer["in_height"]
                    inside = [in_map and 0 <= x + t < layer["row_length"] for t in range(stem_taps)]
                    yield {
                        "swap": b == 0,
                        "first": index == 0,
                        "last": index == len(sets) - 1,
                        "pixel": b,
                        "select": n % words_per_group,
                        "inside": sum(bit << t for t, bit in enumerate(inside)),
                        "count": layer["channels"] if n % layer["channel_words"] == 0 else 0,
                        "border": [
                            (n * stem_taps + t) % layer["in_channels"] for t in range(stem_taps)
                        ],
                        "address": layer["src_base"] + row * layer["src_row"] + x
                        if inside[0]
                        else None,
                    }


def conv(kind, *, size, words=1, channels=1, stride=1, kernel=3, taps=1, tiles=1, block=4, base=0):
    """A layer over a map of ``size`` (height, width) with ``words`` units a pixel."""
    height, width = size
    out = height // stride, width // stride
    pixels = out[0] * out[1]
    pad = kernel // 2
    if kind is LayerKind.STEM:
        inner = -(-kernel * words // taps)
    elif kind is LayerKind.BINARY:
        inner = kernel * words
    else:
        inner = -(-channels // taps)
    return BLANK | {
        "kind": kind.value, "src_base": base, "src_row": width * words, "src_pixel": words,
        "in_height": height, "row_length": width * words, "pad": pad, "pad_x": pad * words,
        "kernel_rows": kernel, "inner": inner, "channel_words": words, "channels": channels,
        "in_channels": words if kind is LayerKind.STEM else 1, "stride2": stride - 1,
        "tiles": tiles, "blocks": -(-pixels // block), "block": block,
        "last_block": (pixels - 1) % block + 1, "out_width": out[1], "out_height": out[0],
    }  # fmt: skip


CASES = {
    "binary": (conv(LayerKind.BINARY, size=(3, 4), words=2, channels=13, tiles=2, base=5), 1, 1, 2),
    "binary stride 2": (conv(LayerKind.BINARY, size=(6, 4), words=1, stride=2, block=5), 1, 1, 2),
    "binary beside 3 taps": (conv(LayerKind.BINARY, size=(2, 3), words=3, channels=9), 2, 3, 1),
    "one pixel": (conv(LayerKind.BINARY, size=(1, 1), words=1, block=1), 1, 1, 1),
    "stem": (conv(LayerKind.STEM, size=(4, 4), words=1, block=16), 1, 1, 2),
    "stem, 3 channels, 2 taps": (conv(LayerKind.STEM, size=(4, 6), words=3, taps=2), 2, 2, 4),
    "stem, its last rows": (
        conv(LayerKind.STEM, size=(8, 4), words=3, taps=2, kernel=7, stride=2)
        | {"first_row": 4, "src_base": 48, "out_height": 2, "blocks": 1, "last_block": 4}, 2, 2, 4,
    ),
    "stem, 4 taps": (
        conv(LayerKind.STEM, size=(4, 4), words=3, taps=4, kernel=7, stride=2), 4, 4, 1,
    ),
    "stem, a pixel a step": (
        conv(LayerKind.STEM, size=(6, 4), words=3, taps=3, kernel=7, stride=2), 2, 3, 4,
    ),
    "stem, 3 taps of 1 channel": (conv(LayerKind.STEM, size=(4, 5), words=1, taps=3), 1, 3, 1),
    "stem, 3 taps of 2 channels": (
        conv(LayerKind.STEM, size=(4, 6), words=2, taps=3, kernel=7, stride=2), 2, 3, 2,
    ),
    "stem, 3 taps of 4 channels": (conv(LayerKind.STEM, size=(4, 2), words=4, taps=3), 1, 3, 2),
    "pointwise": (
        conv(LayerKind.POINTWISE, size=(2, 3), words=4, channels=8, kernel=1, tiles=2), 1, 1, 2,
    ),
    "classifier": (
        conv(LayerKind.CLASSIFIER, size=(1, 1), words=3, channels=11, kernel=1, taps=2), 2, 2, 4,
    ),
    "classifier beside 3 taps": (
        conv(LayerKind.CLASSIFIER, size=(1, 1), words=3, channels=11, kernel=1, taps=2), 2, 3, 4,
    ),
}  # fmt: skip


@pytest.mark.parametrize("latency", [1, 2])
def test_a_block_waits_for_the_rows_of_its_own_first_pixel(latency):
    """Rows become ready one after the other, and that is known ``latency`` cycles later."""
    layer = conv(LayerKind.STEM, size=(6, 4), words=1, block=3) | {"rows_ahead": 4}
    dut = StepWalker(taps=1, stem_taps=1, post_lanes=1, ready_latency=latency)

    def last_ready(cycle):
        return cycle // 100 - 1  # a row's blocks take less

    async def bench(ctx):
        ctx.set(dut.layer, LAYER.from_bits(checked.encode(LAYER, layer)))
        ctx.set(dut.freed, 1)
        await ctx.tick().repeat(2)
        ctx.set(dut.start, 1)
        await ctx.tick()
        ctx.set(dut.start, 0)
        await ctx.tick().repeat(5)  # until `row` is the first one's
        rows, begun = [], []
        load = True
        for cycle in range(900):
            rows.append(ctx.get(dut.row))
            seen = rows[max(cycle - latency, 0)]
            ctx.set(dut.input_ready, seen <= last_ready(cycle))
            ctx.set(dut.loaded, load)
            _, _, valid, step = await ctx.tick().sample(dut.step_valid, dut.step)
            load = valid and step.swap
            if load and step.first:
                decided = cycle - dut.LATENCY
                assert rows[decided] <= last_ready(decided)
                begun.append(rows[decided])
        # 24 pixels in blocks of three, row by row of four
        assert begun == [3 * block // 4 - 1 for block in range(8)]

    simulate(dut, bench, deadline_cycles=2000)


@pytest.mark.parametrize("stalled", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_step_walker_follows_the_loops(case, stalled):
    layer, taps, stem_taps, words_per_group = CASES[case]
    dut = StepWalker(
        taps=taps, stem_taps=stem_taps, post_lanes=taps * words_per_group, ready_latency=2
    )
    expected = list(steps(layer, stem_taps, words_per_group))
    found = []
    finished = False

    activity = []  # what the walker says of each cycle until it decides on its last step

    async def watch(ctx):
        waits = dut.wait_input, dut.wait_output, dut.wait_weights
        while not finished:
            _, _, valid, step, preparing, working, *waiting = await ctx.tick().sample(
                dut.step_valid, dut.step, dut.preparing, dut.working, *waits
            )
            assert sum((preparing, *waiting)) <= 1
            assert working or not sum(waiting)
            assert not (working and preparing)
            if preparing or working:
                activity.append("preparing" if preparing else "waits" if sum(waiting) else "steps")
            if valid:
                found.append(
                    {name: step[name] for name in expected[0] if name != "border"}
                    | {"border": [step.border[t] for t in range(stem_taps)]}
                )

    async def bench(ctx):
        nonlocal finished
        ctx.set(dut.layer, LAYER.from_bits(checked.encode(LAYER, layer)))
        await ctx.tick().repeat(2)
        ctx.set(dut.start, 1)
        await ctx.tick()
        ctx.set(dut.start, 0)
        luck = random.Random(2)
        sets_sent = blocks_ended = 0
        while len(found) < len(expected):
            begun = sum(step["swap"] for step in found)
            ended = sum(step["swap"] and step["last"] for step in found)
            ready = not stalled or luck.random() < 0.3
            # A set is loaded once the one before has been taken.
            load = sets_sent == begun and ready
            free = blocks_ended < ended and ready
            sets_sent += load
            blocks_ended += free
            ctx.set(dut.loaded, load)
            ctx.set(dut.freed, free)
            ctx.set(dut.input_ready, ready)
            await ctx.tick()
        ctx.set(dut.loaded, 0)
        await ctx.tick().repeat(5)
        assert not ctx.get(dut.working)
        finished = True

    simulate(dut, bench, watch, deadline_cycles=30000)
    assert len(found) == len(expected)
    assert activity.count("steps") == len(expected)
    assert activity.count("preparing") == layer["pad"] + 1
    assert activity.count("waits") > 0 or not stalled
    for number, (step, right) in enumerate(zip(found, expected, strict=True)):
        if right["address"] is None:
            step["address"] = None
        assert step == right, f"step {number}"


@pytest.mark.parametrize("case", ["binary", "stem", "stem, 4 taps", "pointwise"])
def test_steps_follow_one_another_without_a_gap(case):
    """As long as there are weights, room for the results, and input; in blocks of two or more."""
    layer, taps, stem_taps, words_per_group = CASES[case]
    dut = StepWalker(
        taps=taps, stem_taps=stem_taps, post_lanes=taps * words_per_group, ready_latency=2
    )
    count = len(list(steps(layer, stem_taps, words_per_group)))

    async def bench(ctx):
        ctx.set(dut.layer, LAYER.from_bits(checked.encode(LAYER, layer)))
        ctx.set(dut.freed, 1)
        ctx.set(dut.input_ready, 1)
        await ctx.tick().repeat(2)
        ctx.set(dut.start, 1)
        ctx.set(dut.loaded, 1)  # two sets, and one for each that is begun
        await ctx.tick()
        ctx.set(dut.start, 0)
        await ctx.tick()
        ctx.set(dut.loaded, 0)
        while not ctx.get(dut.step_valid):
            await ctx.tick()
        for _ in range(count):
            assert ctx.get(dut.step_valid)
            ctx.set(dut.loaded, ctx.get(dut.step.swap))
            await ctx.tick()
        assert not ctx.get(dut.step_valid)

    simulate(dut, bench, deadline_cycles=count + 50)
