# amaranth: UnusedElaboratable=no
"""The gated adder: every pair of small operands, extremes of wide ones, the carry cells."""

import itertools
import subprocess

import numpy as np
import pytest
from amaranth.back import verilog
from amaranth.hdl import Fragment

from hw.adder import GatedAdder
from sim.bench import simulate
from sim.netlist import cell_models


def cases(bits):
    """(a, a_on, b, b_on, sum): all of few bits, else extremes and random operands."""
    least, most = -(1 << bits - 1), (1 << bits - 1) - 1
    values = range(least, most + 1)
    if bits > 3:
        drawn = np.random.default_rng(bits).integers(least, most + 1, 8)
        values = [least, most, 0, -1, 1, *drawn.tolist()]
    for a, a_on, b, b_on in itertools.product(values, (0, 1), values, (0, 1)):
        total = a * a_on + b * b_on
        yield a, a_on, b, b_on, (total - least) % (1 << bits) + least


@pytest.mark.parametrize("bits", [1, 2, 3, 10, 14, 32])
def test_sums(bits):
    dut = GatedAdder(bits)

    async def bench(ctx):
        for a, a_on, b, b_on, expected in cases(bits):
            ctx.set(dut.a, a)
            ctx.set(dut.a_on, a_on)
            ctx.set(dut.b, b)
            ctx.set(dut.b_on, b_on)
            await ctx.delay(1e-9)
            assert ctx.get(dut.sum) == expected

    simulate(dut, bench)


@pytest.mark.parametrize("bits", [3, 10])
def test_cells_on_a_board(bits, tmp_path):
    """With any platform carry cells are instantiated, two bits each; they compute the same."""
    dut = GatedAdder(bits)
    fragment = Fragment.get(dut, platform=object())
    ports = [dut.a, dut.a_on, dut.b, dut.b_on, dut.sum]
    text = verilog.convert(fragment, name="dut", ports=ports, emit_src=False)
    assert text.count("CCU2C") == (bits + 1) // 2
    steps = "\n".join(
        f"a = {a}; a_on = {a_on}; b = {b}; b_on = {b_on}; #1 check({expected});"
        for a, a_on, b, b_on, expected in cases(bits)
    )
    (tmp_path / "bench.v").write_text(f"""
module bench;
    reg signed [{bits - 1}:0] a, b;
    reg a_on, b_on;
    wire signed [{bits - 1}:0] sum;
    integer count = 0;
    dut dut(.a(a), .a_on(a_on), .b(b), .b_on(b_on), .sum(sum));
    task check(input signed [{bits - 1}:0] expected);
        if (sum !== expected) $display("%0d*%0d + %0d*%0d gave %0d", a, a_on, b, b_on, sum);
        else count = count + 1;
    endtask
    initial begin
    {steps}
    $display("%0d", count);
    $finish;
    end
endmodule
""")
    (tmp_path / "dut.v").write_text(text)
    sources = [tmp_path / "bench.v", tmp_path / "dut.v", *cell_models(tmp_path)]
    program = tmp_path / "bench.vvp"
    subprocess.run(["iverilog", "-g2012", "-s", "bench", "-o", program, *sources], check=True)
    done = subprocess.run(["vvp", "-n", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [str(len(list(cases(bits))))]


@pytest.mark.parametrize("bits", [0, -1, "8"])
def test_errors(bits):
    with pytest.raises((TypeError, ValueError)) as caught:
        GatedAdder(bits)
    assert str(caught.value) == f"GatedAdder bits must be a positive integer, not {bits!r}"
