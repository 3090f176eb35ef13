# amaranth: UnusedElaboratable=no
"""The multiplier: extremes and random operands, and that the block on a board does the same."""

import numpy as np
import pytest

from hw.multiplier import Multiplier
from sim.bench import simulate
from sim.harness import MODELS
from tests.hw.board_cells import board_verilog, displayed


def operands(a_bits, b_bits):
    rng = np.random.default_rng(a_bits)
    edges = [-(1 << a_bits - 1), (1 << a_bits - 1) - 1], [-(1 << b_bits - 1), (1 << b_bits - 1) - 1]
    pairs = [(a, b) for a in (*edges[0], 0, -1) for b in (*edges[1], 0, -1)]
    a, b = (rng.integers(low, high + 1, 40).tolist() for low, high in edges)
    return pairs + list(zip(a, b, strict=True))


@pytest.mark.parametrize(("a_bits", "b_bits"), [(16, 8), (16, 18), (18, 18), (1, 1)])
def test_products(a_bits, b_bits):
    dut = Multiplier(a_bits=a_bits, b_bits=b_bits)
    pairs = operands(a_bits, b_bits)
    found = []

    async def bench(ctx):
        for a, b in pairs + [(0, 0)] * dut.LATENCY:
            ctx.set(dut.a, a)
            ctx.set(dut.b, b)
            _, _, product = await ctx.tick().sample(dut.product)
            found.append(product)

    simulate(dut, bench)
    assert found[dut.LATENCY :] == [a * b for a, b in pairs]


def test_block_on_a_board(tmp_path):
    """With any platform the block is instantiated; its model computes the same, as late."""
    dut = Multiplier(a_bits=16, b_bits=18)
    text = board_verilog(dut)
    assert text.count("MULT18X18D") == 1
    pairs = operands(16, 18)
    steps = "\n".join(f"a = {a}; b = {b}; #5 clk = 1; #5 clk = 0; show;" for a, b in pairs)
    bench = f"""
module bench;
    reg clk = 0;
    reg signed [15:0] a;
    reg signed [17:0] b;
    wire signed [33:0] product;
    dut dut(.clk(clk), .rst(1'b0), .a(a), .b(b), .product(product));
    task show; $display("%0d", product); endtask
    initial begin
    {steps}
    #5 clk = 1; #5 clk = 0; show;
    $finish;
    end
endmodule
"""
    words = displayed(tmp_path, text, bench, [MODELS / "mult18x18d.v"])
    # A product is on show from the second edge on, and its operands come before the first.
    found = [int(word) for word in words]
    assert found[Multiplier.LATENCY - 1 :] == [a * b for a, b in pairs]


@pytest.mark.parametrize("bits", [0, 19, "8"])
def test_errors(bits):
    with pytest.raises(ValueError) as caught:
        Multiplier(a_bits=bits, b_bits=8)
    assert str(caught.value) == f"Multiplier a_bits must be in 1..18, not {bits!r}"
