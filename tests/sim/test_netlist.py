# amaranth: UnusedElaboratable=no
"""Block RAM and multiplier models: netlists against the gateware that they were made from.

Both get the same random stimulus, in one Icarus simulation, and have to agree in every cycle; an
unknown value in the netlist counts as a difference.
"""

import subprocess
from pathlib import Path

import pytest
from amaranth.hdl import Module, Signal, signed, unsigned
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from sim.netlist import cell_models, synthesise
from sim.simulator import SimulationError, to_verilog
from sim.verilog import ports_of


class Table(wiring.Component):
    """A memory with one write and one read port; with `shared`, both have the write address."""

    def __init__(
        self, *, depth, width, granularity=None, transparent=False, shared=False, attrs=None
    ):
        init = [(n * 0x9E3779B97F4A7C15 >> 7) & ((1 << width) - 1) for n in range(depth)]
        self._memory = Memory(shape=unsigned(width), depth=depth, init=init, attrs=attrs)
        self._options = granularity, transparent, shared
        lanes = width // (granularity or width)
        super().__init__(
            {
                "w_addr": In(range(depth)),
                "w_data": In(width),
                "w_en": In(lanes),
                "r_addr": In(range(depth)),
                "r_en": In(1),
                "r_data": Out(width),
            }
        )

    def elaborate(self, platform):
        m = Module()
        granularity, transparent, shared = self._options
        m.submodules.memory = self._memory
        write = self._memory.write_port(granularity=granularity)
        read = self._memory.read_port(transparent_for=(write,) if transparent else ())
        m.d.comb += [
            write.addr.eq(self.w_addr),
            write.data.eq(self.w_data),
            write.en.eq(self.w_en),
            read.addr.eq(self.w_addr if shared else self.r_addr),
            read.en.eq(self.r_en),
            self.r_data.eq(read.data),
        ]
        return m


class Product(wiring.Component):
    """A registered product of two registered operands."""

    def __init__(self, *, a, b):
        super().__init__({"a": In(a), "b": In(b), "p": Out((Signal(a) * Signal(b)).shape())})

    def elaborate(self, platform):
        m = Module()
        a, b = Signal.like(self.a), Signal.like(self.b)
        m.d.sync += [a.eq(self.a), b.eq(self.b), self.p.eq(a * b)]
        return m


def bench(ports, depth, cycles=4000):
    """Verilog that drives `golden` and `mapped` alike and stops at the first difference."""
    inputs = {n: p.width for n, p in ports.items() if p.direction == "input" and n != "clk"}
    outputs = {n: p.width for n, p in ports.items() if p.direction == "output"}
    declare = [f"reg [{w - 1}:0] {n} = 0;" for n, w in inputs.items()]
    declare += [f"wire [{w - 1}:0] {n}_g, {n}_m;" for n, w in outputs.items()]
    pins = {
        suffix: ", ".join(
            [
                ".clk(clk)",
                *(f".{n}({n})" for n in inputs),
                *(f".{n}({n}_{suffix})" for n in outputs),
            ]
        )
        for suffix in "gm"
    }
    # Addresses meet often, as two ports at one place are what goes wrong.
    # Beyond the last word nothing is promised.
    drive = [
        f"{n} = ((n % 8 < 4) ? near + {{$random(seed)}} % 2 : {{$random(seed)}}) % {depth};"
        if n.endswith("addr")
        else f"{n} = {{{', '.join(['$random(seed)'] * (w // 32 + 1))}}};"
        for n, w in inputs.items()
        if n != "rst"
    ]
    check = [
        f'if ({n}_g !== {n}_m) begin $display("DIFFERS: {n} in cycle %0d: %h, netlist %h", '
        f"n, {n}_g, {n}_m); $finish; end"
        for n in outputs
    ]
    newline = "\n        "
    return f"""`timescale 1ns / 1ps
module bench;
    reg clk = 0;
    integer n, seed = 7;
    reg [31:0] near;
    {newline.join(declare)}
    golden golden({pins["g"]});
    mapped mapped({pins["m"]});
    initial begin
        #1 rst = 0;  // wakes the `always @*` blocks of the gateware, now that they all wait
        #1 rst = 1;
        for (n = 0; n < {cycles}; n = n + 1) begin
        near = {{$random(seed)}} % 65536;
        if (n > 1) rst = n % 97 == 0;
        {newline.join(drive)}
        #5 clk = 1;
        #4 if (n > 1) begin {newline.join(check)} end
        #1 clk = 0;
        end
        $display("AGREE");
        $finish;
    end
endmodule
"""


def icarus(folder, sources, top="bench"):
    """Compile and run; returns what was printed."""
    program = folder / "bench.vvp"
    command = ["iverilog", "-g2012", "-s", top, "-o", program, *sources]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    command = ["vvp", "-n", program]
    run = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    return run.stdout.strip()


def compare(folder: Path, component, *, depth=1, models=None):
    """Cells of the netlist, after it has agreed with the gateware; else the first difference."""
    golden, mapped = folder / "golden.v", folder / "source.v"
    golden.write_text(to_verilog(component(), "golden"))
    mapped.write_text(to_verilog(component(), "mapped"))
    ports = ports_of(component())
    cells = synthesise(mapped, "mapped", folder / "netlist.v")
    (folder / "bench.v").write_text(bench(ports, depth))
    sources = [golden, folder / "netlist.v", folder / "bench.v", *(models or cell_models(folder))]
    return cells, icarus(folder, sources)


# (depth, width, options, block RAMs): every width that a port can have, and what does not fit one.
FAST_MEMORIES = [(512, 36, {"granularity": 9}, 1)]
MEMORIES = [
    (16384, 1, {}, 1),
    (8192, 2, {}, 1),
    (4096, 4, {}, 1),
    (2048, 9, {}, 1),
    (2048, 9, {"transparent": True}, 1),
    (1024, 18, {"granularity": 9}, 1),
    (1024, 18, {"shared": True}, 1),
    (1024, 18, {"shared": True, "transparent": True, "granularity": 9}, 1),
    (2048, 9, {"shared": True, "transparent": True}, 1),
    (512, 36, {}, 1),
    (512, 36, {"transparent": True}, 1),
    (512, 32, {"granularity": 8}, 1),
    (700, 72, {}, None),
    (3000, 13, {"transparent": True}, None),
    (1024, 64, {"granularity": 16}, None),
]
FAST_PRODUCTS = [(signed(16), signed(18))]
PRODUCTS = [
    (signed(18), signed(18)),
    (unsigned(18), unsigned(18)),
    (unsigned(8), signed(9)),
    (signed(18), unsigned(17)),
    (signed(25), signed(17)),
]


def check_memory(folder, depth, width, options, blocks):
    cells, verdict = compare(
        folder, lambda: Table(depth=depth, width=width, **options), depth=depth
    )
    assert verdict == "AGREE"
    assert cells.get("DP16KD", 0) >= 1
    assert blocks is None or cells["DP16KD"] == blocks


def check_product(folder, a, b):
    cells, verdict = compare(folder, lambda: Product(a=a, b=b))
    assert verdict == "AGREE"
    assert cells.get("MULT18X18D", 0) >= 1


@pytest.mark.parametrize(("depth", "width", "options", "blocks"), FAST_MEMORIES, ids=str)
def test_memory(depth, width, options, blocks, tmp_path):
    check_memory(tmp_path, depth, width, options, blocks)


@pytest.mark.full
@pytest.mark.parametrize(("depth", "width", "options", "blocks"), MEMORIES, ids=str)
def test_memories(depth, width, options, blocks, tmp_path):
    check_memory(tmp_path, depth, width, options, blocks)


@pytest.mark.parametrize(("a", "b"), FAST_PRODUCTS, ids=str)
def test_product(a, b, tmp_path):
    check_product(tmp_path, a, b)


@pytest.mark.full
@pytest.mark.parametrize(("a", "b"), PRODUCTS, ids=str)
def test_products(a, b, tmp_path):
    check_product(tmp_path, a, b)


def test_memory_without_collision_logic(tmp_path):
    """`no_rw_check` saves the bypass around the block RAM; then a collision reads an unknown."""
    cells, verdict = compare(
        tmp_path, lambda: Table(depth=512, width=36, attrs={"no_rw_check": 1}), depth=512
    )
    assert cells == {"DP16KD": 1}
    assert verdict.startswith("DIFFERS: r_data in cycle ")
    assert "netlist xxxxxxxxx" in verdict


def test_a_broken_model_is_noticed(tmp_path):
    """Two byte enables swapped in the block RAM."""
    models = cell_models(tmp_path)
    broken = tmp_path / "dp16kd.v"
    text = models[1].read_text()
    assert "{9{ad[1]}}, {9{ad[0]}}" in text
    broken.write_text(text.replace("{9{ad[1]}}, {9{ad[0]}}", "{9{ad[0]}}, {9{ad[1]}}"))
    models[1] = broken
    _, verdict = compare(
        tmp_path,
        lambda: Table(depth=512, width=36, granularity=9),
        depth=512,
        models=models,
    )
    assert verdict.startswith("DIFFERS: r_data in cycle ")


DIRECTED_RAM = """`timescale 1ns / 1ps
module bench;
    reg clk = 0, we = 0, ce = 1, rst = 0, wb = 0;
    reg [13:0] ad = 0, bd = 0;
    reg [17:0] di = 0;
    wire [17:0] qt, qb, qn, ql, qi, q4, qo;
    integer seed = 3, n;
@RAMS@
    task cycle; begin #5 clk = 1; #5 clk = 0; end endtask
    task want(input [8*9-1:0] what, input [17:0] got, input [17:0] wanted);
        if (got !== wanted) begin
            $display("DIFFERS: %0s is %h, not %h", what, got, wanted);
            $finish;
        end
    endtask
    initial begin
        ad = {10'd5, 4'd3}; bd = {10'd9, 4'd0};
        cycle;  // word 5 of slice 0
        want("init", qb, 18'h25A5A);
        want("late", ql, 18'h0);
        cycle;
        want("late", ql, 18'h25A5A);
        we = 1; di = 18'h11111; cycle;
        want("through", qt, 18'h11111);
        want("before", qb, 18'h25A5A);
        want("normal", qn, 18'h25A5A);
        ad[1:0] = 2'b10; di = 18'h2AAAA; cycle;  // the upper byte alone
        want("through", qt, {9'h155, 9'h111});
        want("before", qb, 18'h11111);
        we = 0; ce = 0; ad = {10'd6, 4'd3}; cycle;
        want("ce", qb, 18'h11111);
        rst = 1; cycle;
        want("rst", qt, 18'h0);
        want("late rst", ql, 18'h0);
        we = 1; ce = 1; di = 18'h3FFFF; cycle;
        rst = 0; we = 0; cycle;
        want("blocked", qb, 18'h0);
        // A nibble of port B's: word 5, upper byte, upper nibble is bits 16 to 13.
        bd = {10'd5, 4'b1100}; cycle;
        want("nibble", q4, 18'h5);
        // Port B reads what port A writes at the same edge.
        we = 1; ad = {10'd5, 4'd1}; bd = {10'd5, 4'd0}; di = 18'h0; cycle;
        want("clash", qo, {9'h155, 9'bx});
        we = 0; cycle;
        want("after", qo, {9'h155, 9'h0});
        #1 ad = {10'd7, 4'd3}; we = 1; di = 18'h12345;
        #4 clk = 1;
        #1 want("rising", qi == 18'h12345, 18'h0);
        #4 clk = 0;
        #1 want("falling", qi, 18'h12345);
        $display("AGREE");
        $finish;
    end
endmodule
"""


def ram(name, out, port="A", **parameters):
    """An instance of the block RAM, everything on port A but where port B is asked for."""
    pins = [".CLKA(clk), .CLKB(clk), .WEA(we), .WEB(wb), .CEA(ce), .CEB(1'b1), .RSTA(rst)"]
    pins += [".RSTB(1'b0), .OCEA(1'b1), .OCEB(1'b1)"]
    pins += [f".CS{p}{n}(1'b{int(p == 'A' and n == 0)})" for p in "AB" for n in range(3)]
    pins += [f".AD{p}{n}({s}[{n}])" for p, s in (("A", "ad"), ("B", "bd")) for n in range(14)]
    pins += [f".DIA{n}(di[{n}]), .DIB{n}(1'b0)" for n in range(18)]
    pins += [f".DO{port}{n}({out}[{n}])" for n in range(18)]
    values = [f".{key}({value})" for key, value in parameters.items()]
    values += [".INITVAL_00(320'h25A5A << 100)", '.CSDECODE_A("0b001")']
    return f"    DP16KD #({', '.join(values)}) {name} ({', '.join(pins)});"


def test_block_ram_by_the_data_sheet(tmp_path):
    """What yosys seldom uses: output register, chip select, both edges, reset, clashes."""
    rams = [
        ram("ram_t", "qt", WRITEMODE_A='"WRITETHROUGH"'),
        ram("ram_b", "qb", WRITEMODE_A='"READBEFOREWRITE"'),
        ram("ram_n", "qn"),
        ram("ram_l", "ql", REGMODE_A='"OUTREG"'),
        ram("ram_i", "qi", CLKAMUX='"INV"', WRITEMODE_A='"WRITETHROUGH"'),
        ram("ram_4", "q4", port="B", DATA_WIDTH_B=4),
        ram("ram_o", "qo", port="B"),
    ]
    (tmp_path / "bench.v").write_text(DIRECTED_RAM.replace("@RAMS@", "\n".join(rams)))
    assert icarus(tmp_path, [tmp_path / "bench.v", *cell_models(tmp_path)]) == "AGREE"


DIRECTED_PRODUCT = """`timescale 1ns / 1ps
module bench;
    reg clk = 0, ce = 1, rst = 0;
    reg [17:0] a = 0, b = 0;
    reg signed [17:0] sa = 0, sb = 0;
    reg signed [35:0] pipeline = 0, product = 0;
    wire signed [35:0] p;
    integer n, seed = 5;
    MULT18X18D #(.REG_INPUTA_CLK("CLK0"), .REG_INPUTB_CLK("CLK0"), .REG_PIPELINE_CLK("CLK0"),
        .REG_OUTPUT_CLK("CLK0"), .GSR("DISABLED")) dut (@PINS@);
    always @(posedge clk)
        if (rst) begin sa <= 0; sb <= 0; pipeline <= 0; product <= 0; end
        else if (ce) begin sa <= a; sb <= b; pipeline <= sa * sb; product <= pipeline; end
    initial begin
        for (n = 0; n < 2000; n = n + 1) begin
            a = $random(seed); b = $random(seed);
            ce = n % 5 != 0; rst = n % 31 == 0;
            #5 clk = 1;
            #5 clk = 0;
            if (p !== product) begin
                $display("DIFFERS: %h, not %h, in cycle %0d", p, product, n);
                $finish;
            end
        end
        $display("AGREE");
        $finish;
    end
endmodule
"""


def test_multiplier_registers(tmp_path):
    """All four ranks of registers, which synthesis leaves unused but gateware may instantiate."""
    pins = [".CLK0(clk), .CE0(ce), .RST0(rst), .SIGNEDA(1'b1), .SIGNEDB(1'b1)"]
    pins += [f".A{n}(a[{n}]), .B{n}(b[{n}])" for n in range(18)]
    pins += [f".P{n}(p[{n}])" for n in range(36)]
    (tmp_path / "bench.v").write_text(DIRECTED_PRODUCT.replace("@PINS@", ", ".join(pins)))
    assert icarus(tmp_path, [tmp_path / "bench.v", *cell_models(tmp_path)]) == "AGREE"


def test_synthesis_error_names_log(tmp_path):
    source = tmp_path / "bad.v"
    source.write_text("module bad(input a); nonsense!; endmodule\n")
    with pytest.raises(SimulationError) as error:
        synthesise(source, "bad", tmp_path / "netlist.v")
    assert str(error.value).startswith("Synthesis of bad failed: ")
    assert str(error.value).endswith(f"; the log is {tmp_path / 'netlist.log'}")
