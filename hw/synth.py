"""Synthesis for ECP5 with pyosys, in a process of its own.

A process of its own, because Yosys ends the interpreter on an error and keeps its memory until
it ends. `python -m hw.synth` is that process; `synthesise` starts it and reports what went wrong.
"""

import argparse
import json
import sys
from pathlib import Path

from hw.adder import IGNORES_CARRY_IN
from hw.tools import BuildError, run_tool

# Wide multiplexers (PFUMX, L6MUX21) roughly double the area of the popcount trees.
SYNTH_COMMAND = "synth_ecp5 -nowidelut"

# Amaranth gives each element of an array a wire like `sums[0]`, which is also what abc9 calls bit 0
# of `sums`; it then ends with "Assert `count_id(wire->name) == 0' failed" (YosysHQ/yosys#4349).
HIDE_COMMAND = "rename -hide w:*]"

# `keep` on a signal keeps its name alone: equal registers would be merged, and with them the copies
# that divide a large fan-out. So the flip-flops behind such a signal are kept as well.
KEEP_COMMAND = "setattr -set keep 1 a:keep %ci1 t:$dff %i"

# Names what the netlist depends on beside its source.
RECIPE = ("no_rw_check", "free_chain_ends", HIDE_COMMAND, KEEP_COMMAND, SYNTH_COMMAND)


def synthesise(source, *, json=None, verilog=None, top="top", sites=None, log=None, on_line=None):
    """Synthesise `source` (.il or .v) for ECP5; write a netlist as JSON, as Verilog, or both.

    `sites`: where nextpnr shall put cells of the JSON netlist, by their name in it.
    `log` receives everything Yosys says (default: beside the source); `on_line` is called with
    every line of it. BuildError if Yosys refuses.
    """
    source = Path(source).resolve()
    command = [sys.executable, "-m", "hw.synth", str(source), "--top", top]
    if json is not None:
        command += ["--json", str(Path(json).resolve())]
    if verilog is not None:
        command += ["--verilog", str(Path(verilog).resolve())]
    log = source.with_suffix(".synth.log") if log is None else Path(log)
    run_tool("synthesis", command, log=log, cwd=Path(__file__).parents[1], on_line=on_line)
    if sites:
        fix_sites(json, sites, top=top)


def fix_sites(path, sites, *, top="top"):
    """Adds to the cells in a JSON netlist where they shall stand; BuildError if one is missing."""
    path = Path(path)
    netlist = json.loads(path.read_text())
    cells = netlist["modules"][top]["cells"]
    for name, site in sites.items():
        if name not in cells:
            raise BuildError(f"netlist {path} must have the cell {name} that {site} is meant for")
        cells[name]["attributes"]["BEL"] = site
    path.write_text(json.dumps(netlist))


def synthesise_netlist(source, out_verilog, *, top="top", log=None):
    """Write the netlist after synthesis as Verilog, for simulation; returns its path.

    It instantiates ECP5 cells, whose models a simulator needs beside it.
    """
    out_verilog = Path(out_verilog)
    synthesise(source, verilog=out_verilog, top=top, log=log)
    return out_verilog


def main(argv=None):
    """The body of the process: read, synthesise, write."""
    parser = argparse.ArgumentParser(prog="python -m hw.synth", description="Synthesise for ECP5.")
    parser.add_argument("source", type=Path)
    parser.add_argument("--top", default="top")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--verilog", type=Path)
    args = parser.parse_args(argv)

    from pyosys import libyosys

    design = libyosys.Design()
    reader = "read_rtlil" if args.source.suffix == ".il" else "read_verilog -sv"
    # Quoted, because a clone may lie in a folder with a space in its name.
    commands = [
        f'{reader} "{args.source}"',
        HIDE_COMMAND,
        KEEP_COMMAND,
        f"{SYNTH_COMMAND} -top {args.top}",
    ]
    if args.json is not None:
        commands.append(f'write_json "{args.json}"')
    if args.verilog is not None:
        commands.append(f'write_verilog -noattr "{args.verilog}"')
    libyosys.run_pass(commands[0], design)
    _waive_collisions(libyosys, design)
    for command in commands[1:]:
        libyosys.run_pass(command, design)
    if args.json is not None:
        netlist = json.loads(args.json.read_text())
        free_chain_ends(netlist["modules"][args.top]["cells"])
        args.json.write_text(json.dumps(netlist))
    return 0


def free_chain_ends(cells):
    """Leaves the ends of carry chains open where nothing reads the carry.

    nextpnr puts a cell before a carry that comes from anywhere but another carry cell, be it
    constant, and one behind a carry that is connected, though to nothing.
    """
    chain = [cell for cell in cells.values() if cell["type"] == "CCU2C"]
    read = {
        bit
        for cell in cells.values()
        for port, bits in cell["connections"].items()
        if cell["port_directions"][port] != "output"
        for bit in bits
    }
    for cell in chain:
        ports = cell["connections"]
        if ports["COUT"][0] not in read:
            ports["COUT"] = ["x"]  # what nextpnr knows as open
        first = int(cell["parameters"]["INIT0"], 2)
        if ports["CIN"][0] in ("0", "1") and first == IGNORES_CARRY_IN:
            ports["CIN"] = ["x"]


def _waive_collisions(yosys, design):
    """Lets memories with the attribute `no_rw_check` read anything while the word is written.

    Yosys itself heeds the attribute at asynchronous ports alone, and Amaranth has none there: each
    block would get a register beside it for the word that is written, and a multiplexer behind it.
    """
    reads, writes, memid, clock, mask, attribute = map(
        yosys.IdString,
        ("$memrd_v2", "$memwr_v2", "\\MEMID", "\\CLK", "\\COLLISION_X_MASK", "\\no_rw_check"),
    )
    for module in design.modules_.values():
        memories, ports = module.memories, {}
        for cell in module.cells_.values():
            if cell.type in (reads, writes):
                name = cell.getParam(memid).decode_string()
                if memories[yosys.IdString(name)].get_bool_attribute(attribute):
                    ports.setdefault(name, []).append(cell)
        for cells in ports.values():
            # Ports of two clocks know no such rule; Yosys refuses the mask there.
            if all(cell.getPort(clock) == cells[0].getPort(clock) for cell in cells):
                for cell in cells:
                    if cell.type == reads:
                        width = cell.getParam(mask).size()
                        cell.setParam(mask, yosys.Const(yosys.State.S1, width))


if __name__ == "__main__":
    sys.exit(main())
