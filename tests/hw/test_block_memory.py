"""Block RAM with an output register: when a word comes, and what a board gets."""
# amaranth: UnusedElaboratable=no

import random

import pytest
from amaranth.sim import Simulator

from hw.block_memory import BLOCK_BITS, BLOCK_DEPTH, BlockMemory
from hw.boards import get_board
from hw.memory_queue import CrossingQueue


def test_a_word_is_fetched_and_then_moved():
    dut = BlockMemory(20, depth=32, source="source", target="target")
    luck = random.Random(0)
    words = [luck.getrandbits(20) for _ in range(32)]

    async def bench(ctx):
        ctx.set(dut.write, 1)
        for address, word in enumerate(words):
            ctx.set(dut.write_address, address)
            ctx.set(dut.write_data, word)
            await ctx.tick("source")
        ctx.set(dut.write, 0)
        ctx.set(dut.write_data, 0)
        await ctx.tick("source")
        fetched = moved = None
        for _ in range(300):
            address = luck.randrange(32)
            read, move = luck.random() < 0.5, luck.random() < 0.5
            ctx.set(dut.read_address, address)
            ctx.set(dut.read, read)
            ctx.set(dut.move, move)
            await ctx.tick("target")
            moved = fetched if move else moved
            fetched = words[address] if read else fetched
            assert moved is None or ctx.get(dut.read_data) == moved

    simulator = Simulator(dut)
    simulator.add_clock(7e-9, domain="source")
    simulator.add_clock(8e-9, domain="target")
    simulator.add_testbench(bench)
    simulator.run()


@pytest.mark.parametrize(
    ("width", "depth", "blocks"), [(18, 256, 1), (33, 512, 2), (55, 32, 4), (55, 16, 0)]
)
def test_a_board_gets_blocks_with_their_registers(width, depth, blocks):
    queue = CrossingQueue(width, depth=depth, source="sync", target="sync")
    text = get_board("ulx3s-85f").platform().prepare(queue, "top").files["top.il"]
    text = text if isinstance(text, str) else text.decode()
    assert text.count("cell \\DP16KD") == blocks
    assert text.count('parameter \\REGMODE_B "OUTREG"') == blocks


@pytest.mark.parametrize(
    ("name", "most"), [("width", 4 * BLOCK_BITS), ("depth", BLOCK_DEPTH)]
)  # fmt: skip
@pytest.mark.parametrize("value", [0, 1025, 2.0])
def test_sizes_are_checked(name, most, value):
    sizes = {"width": 8, "depth": 8, name: value}
    with pytest.raises(ValueError) as caught:
        BlockMemory(sizes["width"], depth=sizes["depth"], source="sync", target="sync")
    assert str(caught.value) == f"Block memory {name} must be in 1..{most}, not {value!r}"
