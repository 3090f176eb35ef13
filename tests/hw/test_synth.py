"""pyosys runs in a process of its own, writes netlists that simulate, and fails in one line."""

import json
import subprocess

import pytest
from amaranth.back import rtlil
from amaranth.hdl import Fragment, Value

from hw.array import mac_array, xnor_array
from hw.dot import XnorDot
from hw.maps import WordMap
from hw.synth import synthesise, synthesise_netlist
from hw.tools import BuildError
from sim.netlist import cell_models

COUNTER = """
module top(input clk, input up, output reg [3:0] count);
  initial count = 0;
  always @(posedge clk) if (up) count <= count + 3;
endmodule
"""

BENCH = """
module bench;
  reg clk = 0, up = 1;
  wire [3:0] count;
  top dut(.clk(clk), .up(up), .count(count));
  initial begin
    repeat (7) begin #5 clk = 1; #5 clk = 0; end
    up = 0;
    repeat (2) begin #5 clk = 1; #5 clk = 0; end
    $display("count=%0d", count);
    $finish;
  end
endmodule
"""


def test_the_netlist_simulates_like_its_source(tmp_path):
    source = tmp_path / "top.v"
    source.write_text(COUNTER)
    netlist = synthesise_netlist(source, tmp_path / "netlist.v")
    assert "TRELLIS_FF" in netlist.read_text()
    bench = tmp_path / "bench.v"
    bench.write_text(BENCH)
    program = tmp_path / "bench.vvp"
    command = ["iverilog", "-g2012", "-s", "bench", "-o", program]
    command += [bench, netlist, *cell_models(tmp_path)]
    subprocess.run(command, check=True, capture_output=True)
    said = subprocess.run(["vvp", "-n", program], check=True, capture_output=True, text=True)
    assert f"count={7 * 3 % 16}" in said.stdout


def test_both_outputs_and_every_line_of_the_log(tmp_path):
    folder = tmp_path / "a folder"
    folder.mkdir()
    source = folder / "top.v"
    source.write_text(COUNTER)
    lines = []
    synthesise(source, json=folder / "top.json", log=folder / "log", on_line=lines.append)
    assert '"TRELLIS_FF"' in (folder / "top.json").read_text()
    assert any("Executing SYNTH_ECP5" in line or "synth_ecp5" in line for line in lines)
    assert "synth_ecp5 -nowidelut" in (folder / "log").read_text()


def test_an_error_of_yosys_is_one_line(tmp_path):
    source = tmp_path / "top.v"
    source.write_text("module top(input a; endmodule\n")
    with pytest.raises(BuildError) as error:
        synthesise(source, json=tmp_path / "top.json")
    message = str(error.value)
    assert message.startswith("synthesis failed with status 1: ")
    assert message.endswith(f"(see {tmp_path / 'top.synth.log'})")
    assert "syntax error" in message
    assert "\n" not in message


def test_a_missing_source_is_one_line(tmp_path):
    with pytest.raises(BuildError, match=r"^synthesis failed with status 1: ERROR: .*nothing\.il"):
        synthesise(tmp_path / "nothing.il", json=tmp_path / "top.json")


def test_elements_of_arrays_do_not_collide_with_bits(tmp_path):
    """Yosys alone ends with an assertion here, see HIDE_COMMAND."""
    source = tmp_path / "top.il"
    array = mac_array(taps=1, stem_taps=2, lanes=4, port_bits=32, post_lanes=2)
    source.write_text(rtlil.convert(array))
    synthesise(source, json=tmp_path / "top.json")
    cells = json.loads((tmp_path / "top.json").read_text())["modules"]["top"]["cells"].values()
    multipliers = sum(cell["type"] == "MULT18X18D" for cell in cells)
    assert multipliers == 4  # one a lane: products of bytes take none


def netlist_of(dut, tmp_path, platform=None):
    """The cells and the named wires of a component after synthesis."""
    source = tmp_path / "top.il"
    ports = [Value.cast(value) for *_, value in dut.signature.flatten(dut)]
    source.write_text(rtlil.convert(Fragment.get(dut, platform), name="top", ports=ports))
    synthesise(source, json=tmp_path / "top.json")
    top = json.loads((tmp_path / "top.json").read_text())["modules"]["top"]
    return top["cells"], {name: wire["bits"] for name, wire in top["netnames"].items()}


def test_ends_of_carry_chains_are_open(tmp_path):
    """Of our own on both sides; of one that synthesis has made behind its carry out alone."""
    cells, _ = netlist_of(XnorDot(word_bits=64), tmp_path, platform=object())
    chains = [cell["connections"] for cell in cells.values() if cell["type"] == "CCU2C"]
    adders = 8  # of 9 groups
    assert sum(ports["CIN"] == ["x"] for ports in chains) == adders
    assert sum(ports["COUT"] == ["x"] for ports in chains) == adders
    linked = {ports["CIN"][0] for ports in chains} - {"x"}
    assert linked == {ports["COUT"][0] for ports in chains} - {"x"}
    assert all(isinstance(bit, int) for bit in linked)
    source = tmp_path / "inferred.v"
    source.write_text(
        "module top(input [7:0] a, b, output [7:0] s, output c); assign {c, s} = a + b; endmodule"
    )
    synthesise(source, json=tmp_path / "inferred.json")
    cells = json.loads((tmp_path / "inferred.json").read_text())["modules"]["top"]["cells"]
    chains = [cell["connections"] for cell in cells.values() if cell["type"] == "CCU2C"]
    assert [ports["CIN"] for ports in chains].count(["0"]) == 1
    assert [ports["COUT"] for ports in chains].count(["x"]) == 1


def test_copies_of_a_register_stay_apart(tmp_path):
    array = xnor_array(word_bits=8, lanes=16, port_bits=32, post_lanes=4)
    _, wires = netlist_of(array, tmp_path)
    for name in ("swap", "operand", "clear", "add_lanes", "store_lanes", "read_lanes"):
        assert not set(wires[f"{name}_0"]) & set(wires[f"{name}_8"]), name
    assert not set(wires["add_lanes_0"]) & set(wires["store_lanes_0"])


def test_a_memory_without_read_write_check_has_no_logic_beside_it(tmp_path):
    """All that is left: addresses and word on their way, each bank's word, the chosen one."""
    bits, banks = 36, 3
    dut = WordMap(shape=bits, depth=banks * WordMap.BANK_WORDS)
    cells, _ = netlist_of(dut, tmp_path)
    registers = [cell for cell in cells.values() if cell["type"] == "TRELLIS_FF"]
    address = (WordMap.BANK_WORDS - 1).bit_length()
    parts = bits // WordMap.PART_BITS
    before = parts * 3 * address + 2 * bits
    assert len(registers) == before + banks * (bits + 2 * parts) + bits + parts * 3 * 2
