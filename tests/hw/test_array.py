# amaranth: UnusedElaboratable=no
"""Arrays against their models: any block size, gaps, masks, slow weights, blocks back to back."""

import numpy as np
import pytest

from hw.array import Array, mac_array, xnor_array
from hw.dot import MacDot
from isa.bits import pack
from sim.bench import simulate
from sim.handshake import stalls as stall_pattern

XNOR = {"word_bits": 8, "lanes": 4, "port_bits": 16, "post_lanes": 2}
MAC = {"taps": 1, "stem_taps": 1, "lanes": 4, "port_bits": 32, "post_lanes": 2}


class Work:
    """Random blocks: for each, weight sets, and an operand per set and pixel.

    ``further`` operands are bytes. In every other block they are 0, and their weights missing.
    """

    def __init__(self, rng, *, binary, size, lanes, blocks, further=0):
        self.binary, self.lanes, self.blocks, self.taps = binary, lanes, [], size - further
        for number, (pixels, steps) in enumerate(blocks):
            shape = (steps, pixels, size)
            if binary:
                operands = rng.integers(0, 2, shape)
                weights = rng.integers(0, 2, (steps, lanes, size))
            else:
                operands = rng.integers(-(1 << 15), 1 << 15, shape)
                operands[:, :, self.taps :] &= 255 if self.whole(number) else 0
                weights = rng.integers(-128, 128, (steps, lanes, size))
            masked = rng.integers(0, 4, shape[:2]) == 0
            counts = rng.integers(0, size + 1, shape[:2])
            self.blocks.append((operands, weights, masked, counts))

    def whole(self, number):
        return number % 2 == 0

    def words(self, port_bits, number):
        """The stream of a block's weight sets: some bits of every row in each word."""
        width, share = 1 if self.binary else 8, port_bits // self.lanes
        words = []
        for weights in self.blocks[number][1]:
            used = weights if self.whole(number) else weights[:, : self.taps]
            row_bits = width * used.shape[1]
            rows = [pack(row, width, row_bits)[0] for row in used]
            for start in range(0, row_bits, share):
                words += pack([row >> start & (1 << share) - 1 for row in rows], share, port_bits)
        return words

    def operand(self, values):
        if self.binary:
            return pack(values, 1, 8)[0]
        values = values.tolist()
        return {"values": values[: self.taps], "bytes": values[self.taps :]}

    def expected(self, dut):
        return [
            [
                dut.model(operands[:, p, None], weights, masked[:, p], counts[:, p]).tolist()
                for p in range(operands.shape[1])
            ]
            for operands, weights, masked, counts in self.blocks
        ]


def run(dut, work, *, port_bits, post_lanes, stalls, gaps):
    """Results per block and pixel; swaps in the cycle of a set's last word, or later."""
    results = [[None] * block[0].shape[1] for block in work.blocks]
    swaps, lasts, written_at, reads = [], [], [], []
    loaded, drained = [0], [0]
    rng = np.random.default_rng(9)

    async def weights(ctx):
        stalled = stall_pattern(stalls, seed=1)
        cycle = number_of_set = 0

        async def tick():
            nonlocal cycle
            await ctx.tick()
            ctx.set(dut.load_valid, 0)
            cycle += 1

        for number, (_, values, *_) in enumerate(work.blocks):
            words = iter(work.words(port_bits, number))
            set_words = dut.set_words if work.whole(number) else dut.first_words
            for _ in values:
                # In the cycle after the swap of the set before, at the earliest.
                while len(swaps) < number_of_set:
                    await tick()
                number_of_set += 1
                ctx.set(dut.whole, work.whole(number))
                for _ in range(set_words):
                    while next(stalled):
                        await tick()
                    ctx.set(dut.load_valid, 1)
                    await tick()
                    ctx.set(dut.load, next(words))
                loaded[0] += 1
            assert next(words, None) is None

    async def count(ctx):
        cycle = 0
        while drained[0] < len(work.blocks):
            _, _, written, pixel = await ctx.tick().sample(dut.written, dut.written_pixel)
            if written:
                written_at.append((cycle, pixel))
            cycle += 1

    async def steps(ctx):
        cycle = used = 0

        async def step():
            nonlocal cycle
            await ctx.tick()
            ctx.set(dut.step.valid, 0)
            # What a gap leaves on the wires must not matter.
            ctx.set(dut.step.swap, 1)
            ctx.set(dut.step.first, 1)
            ctx.set(dut.step.last, 1)
            cycle += 1

        for index, (operands, _, masked, counts) in enumerate(work.blocks):
            total, pixels = masked.shape
            for s in range(total):
                while loaded[0] <= used:
                    await step()
                used += 1
                # The last set waits until the output RAM has been read.
                while s == total - 1 and drained[0] < index:
                    await step()
                for p in range(pixels):
                    while gaps and rng.integers(0, 3) == 0:
                        await step()
                    ctx.set(
                        dut.step,
                        {
                            "valid": 1,
                            "swap": int(p == 0),
                            "first": int(s == 0),
                            "last": int(s == total - 1),
                            "masked": int(masked[s, p]),
                            "pixel": p,
                            "count": int(counts[s, p]),
                            "operand": work.operand(operands[s, p]),
                        },
                    )
                    if p == 0:
                        swaps.append(cycle)
                    if s == total - 1:
                        lasts.append((cycle, p))
                    await step()

    async def drain(ctx):
        groups = work.lanes // post_lanes
        for block in results:
            for p in range(len(block)):
                while len(written_at) <= len(reads):
                    await ctx.tick()
                reads.append(p)
                values = []
                for group in range(groups + dut.READ_LATENCY):
                    ctx.set(dut.read_pixel, p)
                    ctx.set(dut.read_group, group % groups)
                    if group >= dut.READ_LATENCY:
                        values += [ctx.get(dut.data[lane]) for lane in range(post_lanes)]
                    await ctx.tick()
                block[p] = values
            drained[0] += 1

    simulate(dut, weights, count, steps, drain, deadline_cycles=20_000)
    assert written_at == [(cycle + dut.step_latency, p) for cycle, p in lasts]
    return results


BLOCKS = [(16, 3), (1, 5), (2, 1), (5, 2), (7, 4), (1, 1), (16, 2)]


@pytest.mark.parametrize(("stalls", "gaps"), [("none", False), ("light", True), ("heavy", True)])
@pytest.mark.parametrize(
    "sizes",
    [XNOR, XNOR | {"post_lanes": 4, "port_bits": 32}, XNOR | {"lanes": 16}],
    ids=["tiny", "wide", "two copies"],
)
def test_xnor_array(sizes, stalls, gaps):
    dut = xnor_array(**sizes)
    rng = np.random.default_rng(3)
    work = Work(rng, binary=True, size=8, lanes=sizes["lanes"], blocks=BLOCKS)
    results = run(
        dut, work, port_bits=sizes["port_bits"], post_lanes=sizes["post_lanes"],
        stalls=stalls, gaps=gaps,
    )  # fmt: skip
    assert results == work.expected(dut)


@pytest.mark.parametrize(("stalls", "gaps"), [("none", False), ("light", True), ("heavy", False)])
@pytest.mark.parametrize(
    "sizes",
    [
        MAC,
        MAC | {"taps": 2, "stem_taps": 2, "lanes": 16, "post_lanes": 4},
        MAC | {"taps": 2, "stem_taps": 3},
        MAC | {"taps": 1, "stem_taps": 3, "lanes": 8},
    ],
    ids=["tiny", "two taps", "and one for bytes", "two for bytes"],
)
def test_mac_array(sizes, stalls, gaps):
    dut = mac_array(**sizes)
    rng = np.random.default_rng(4)
    size, further = sizes["stem_taps"], sizes["stem_taps"] - sizes["taps"]
    work = Work(rng, binary=False, size=size, further=further, lanes=sizes["lanes"], blocks=BLOCKS)
    results = run(
        dut, work, port_bits=sizes["port_bits"], post_lanes=sizes["post_lanes"],
        stalls=stalls, gaps=gaps,
    )  # fmt: skip
    assert results == work.expected(dut)


def test_model_is_the_convolution():
    dut = xnor_array(**XNOR)
    rng = np.random.default_rng(5)
    operands, weights = rng.integers(0, 2, (6, 1, 8)), rng.integers(0, 2, (6, 4, 8))
    masked = np.array([0, 1, 0, 0, 1, 0], bool)
    products = (2 * operands - 1) * (2 * weights - 1)
    expected = products[~masked].sum(axis=(0, 2))
    assert dut.model(operands, weights, masked, np.full(6, 8)).tolist() == expected.tolist()


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"lanes": 0}, ValueError, "Array lanes must be a positive integer, not 0"),
        ({"post_lanes": 3}, ValueError, "Array lanes must be a multiple of post_lanes (3), not 4"),
        (
            {"port_bits": 24},
            ValueError,
            "Array weight set must be a multiple of port_bits (24), not 32",
        ),
        ({"acc_bits": 1.5}, TypeError, "Array acc_bits must be a positive integer, not 1.5"),
        ({"word_bits": None}, TypeError, "Array word_bits must be a positive integer, not None"),
    ],
)
def test_errors(changes, error, message):
    with pytest.raises(error) as caught:
        xnor_array(**XNOR | changes)
    assert str(caught.value) == message


def test_taps_error():
    with pytest.raises(ValueError) as caught:
        mac_array(**MAC | {"taps": 0})
    assert str(caught.value) == "Array taps must be a positive integer, not 0"


def test_any_dot_product_will_do():
    """The MAC array with another operand width, straight from the generic class."""
    dut = Array(
        dot=lambda: MacDot(taps=1, stem_taps=1, operand_bits=9), bipolar=False,
        lanes=2, port_bits=16, post_lanes=1, acc_bits=20,
    )  # fmt: skip
    assert dut.set_words == 1
    assert dut.step_latency == 6
