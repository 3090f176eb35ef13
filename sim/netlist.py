"""Synthesis for ECP5, and what it takes to simulate the netlist that comes out.

Yosys has behavioural models of most ECP5 cells, written for itself: Icarus stumbles over some of
them. `cell_models` picks those that netlists contain. Block RAM and multipliers are black boxes
there; `sim/models` has models of both, written from the data sheet.
"""

import json
import os
import re
import signal
import subprocess
import sys
from importlib import util
from pathlib import Path

from sim.harness import MODELS
from sim.simulator import SimulationError

#: Cells that `synth_ecp5` leaves in a netlist without I/O buffers, apart from those in `MODELS`,
#: and LUT2, which the carry cell is made of.
LOGIC_CELLS = ("LUT2", "LUT4", "CCU2C", "TRELLIS_FF", "TRELLIS_DPR16X4", "PFUMX", "L6MUX21")

_LIBRARY = ("ccu2c_sim.vh", "common_sim.vh")

_SCRIPT = """
import json, sys
from pyosys import libyosys as yosys
source, top, output, stat, options = json.loads(sys.argv[1])
design = yosys.Design()
for command in (
    f"read_verilog {source}",
    f"synth_ecp5 {options} -top {top}",
    f"tee -q -o {stat} stat -json",
    f"write_verilog -noattr {output}",
):
    yosys.run_pass(command, design)
"""


def synthesise(
    source: Path,
    toplevel: str,
    output: Path,
    *,
    options: str = "-nowidelut",
    timeout_s: float = 1800.0,
) -> dict[str, int]:
    """Map the Verilog `source` to ECP5 cells in `output`; returns the number of cells of each type.

    Yosys runs in a process of its own. Raises `SimulationError` naming the log, which lies beside
    `output`, if it fails or takes longer than `timeout_s`.
    """
    log, stat = output.with_suffix(".log"), output.with_suffix(".json")
    job = json.dumps([str(source), toplevel, str(output), str(stat), options])
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-c", _SCRIPT, job],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            status = process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise SimulationError(
                f"Synthesis of {toplevel} did not finish within {timeout_s:g} s; the log is {log}"
            ) from None
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    if status:
        errors = [line for line in log.read_text().splitlines() if "ERROR" in line]
        raise SimulationError(
            f"Synthesis of {toplevel} failed: {(errors or ['no reason'])[0]}; the log is {log}"
        )
    cells: dict[str, int] = json.loads(stat.read_text())["design"]["num_cells_by_type"]
    return cells


def cell_models(folder: Path) -> list[Path]:
    """The Verilog of every cell that a netlist may contain; one file is made, in `folder`."""
    spec = util.find_spec("pyosys")
    if spec is None or spec.origin is None:
        raise SimulationError("Yosys's cell library was not found: install the package pyosys")
    share = Path(spec.origin).parent / "share" / "lattice"
    text = "\n".join((share / name).read_text() for name in _LIBRARY)
    # Timing arcs are of no use here, and not all simulators read these.
    text = re.sub(r"\bspecify\b.*?\bendspecify\b", "", text, flags=re.S)
    bodies = re.finditer(r"^module\s+(\w+)\b.*?^endmodule", text, flags=re.S | re.M)
    found = {match[1]: match[0] for match in bodies if match[1] in LOGIC_CELLS}
    missing = [cell for cell in LOGIC_CELLS if cell not in found]
    if missing:
        raise SimulationError(f"Yosys's cell library in {share} lacks {', '.join(missing)}")
    path = folder / "ecp5_cells.v"
    path.write_text("\n".join(["`timescale 1ns / 1ps", *found.values(), ""]))
    return [path, MODELS / "dp16kd.v", MODELS / "mult18x18d.v"]
