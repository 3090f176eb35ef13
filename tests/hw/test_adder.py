# amaranth: UnusedElaboratable=no
"""The adder: all pairs of small operands, extremes of wide ones, and the carry cells of a board."""

import itertools

import numpy as np
import pytest
from amaranth.hdl import Module, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.adder import add
from sim.bench import simulate
from sim.netlist import cell_models
from tests.hw.board_cells import board_verilog, displayed

#: (bits of a, of b, of the sum): an even and an odd number of cells, operands that are extended,
#: a sum that wraps.
WIDTHS = [(1, 1, 2), (2, 3, 4), (3, 3, 3), (4, 2, 3), (9, 10, 10), (14, 7, 14), (32, 26, 32)]


class Adder(wiring.Component):
    def __init__(self, a_bits, b_bits, bits):
        super().__init__(
            {
                "a": In(signed(a_bits)),
                "b": In(signed(b_bits)),
                "carry": In(1),
                "a_on": In(1),
                "b_on": In(1),
                "sum": Out(signed(bits)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        total = add(
            m, platform, "total", self.a, self.b,
            bits=len(self.sum), carry=self.carry, a_on=self.a_on, b_on=self.b_on,
        )  # fmt: skip
        m.d.comb += self.sum.eq(total)
        return m


def cases(a_bits, b_bits, bits):
    """(a, b, carry, a_on, b_on, sum): all of few bits, else extremes and random operands."""

    def operands(width):
        least, most = -(1 << width - 1), (1 << width - 1) - 1
        if width <= 3:
            return range(least, most + 1)
        return [least, most, 0, -1, *np.random.default_rng(width).integers(least, most, 6).tolist()]

    for a, b, *flags in itertools.product(operands(a_bits), operands(b_bits), *[(0, 1)] * 3):
        carry, a_on, b_on = flags
        half = 1 << bits - 1
        yield a, b, *flags, (a * a_on + b * b_on + carry + half) % (2 * half) - half


@pytest.mark.parametrize("widths", WIDTHS)
def test_sums(widths):
    dut = Adder(*widths)

    async def bench(ctx):
        for *inputs, expected in cases(*widths):
            for port, value in zip(
                (dut.a, dut.b, dut.carry, dut.a_on, dut.b_on), inputs, strict=True
            ):
                ctx.set(port, value)
            await ctx.delay(1e-9)
            assert ctx.get(dut.sum) == expected

    simulate(dut, bench)


@pytest.mark.parametrize("widths", WIDTHS)
def test_cells_on_a_board(widths, tmp_path):
    """With any platform the sum is one chain of carry cells, of two bits each, and the same."""
    dut = Adder(*widths)
    a_bits, b_bits, bits = widths
    text = board_verilog(dut)
    assert text.count("CCU2C") == (bits + 2) // 2
    steps = "\n".join(
        f"a = {a}; b = {b}; {{carry, a_on, b_on}} = 3'b{carry}{a_on}{b_on}; #1 check({expected});"
        for a, b, carry, a_on, b_on, expected in cases(*widths)
    )
    bench = f"""
module bench;
    reg signed [{a_bits - 1}:0] a;
    reg signed [{b_bits - 1}:0] b;
    reg carry, a_on, b_on;
    wire signed [{bits - 1}:0] sum;
    integer count = 0;
    dut dut(.a(a), .b(b), .carry(carry), .a_on(a_on), .b_on(b_on), .sum(sum));
    task check(input signed [{bits - 1}:0] expected);
        if (sum !== expected) $display("%0d %0d %b%b%b gave %0d", a, b, carry, a_on, b_on, sum);
        else count = count + 1;
    endtask
    initial begin
    {steps}
    $display("%0d", count);
    $finish;
    end
endmodule
"""
    words = displayed(tmp_path, text, bench, cell_models(tmp_path))
    assert words == [str(len(list(cases(*widths))))]
