"""A Verilog top around a design: clock and reset made in HDL, trace ports written to a file.

So Python leaves the clock loop: a test sets up the inputs, waits for an edge of a done signal, and
reads the trace afterwards.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sim.verilog import Port

MODELS = Path(__file__).parent / "models"

#: Signals that the harness makes, and that a test may read.
MADE = ("clk", "rst", "cycles")


def harness(
    name: str,
    design: str,
    ports: Mapping[str, Port],
    *,
    period_ns: float = 10.0,
    trace: str | None = None,
) -> str:
    """Verilog of a module `name` around an instance `dut` of `design`, whose `ports` it passes on.

    `clk` and `rst` come from `sim_clock`; the counter `cycles` is added. `trace` is the prefix of
    the ports `<trace>_valid` and `<trace>_data`, which go to a `trace_writer`. Compile it with
    `harness_sources()`, the design, and `harness_ports(ports)` as public signals.
    """
    passed = {port: shape for port, shape in ports.items() if port not in MADE}
    if "cycles" in ports:
        raise ValueError("Harness must be given a design without a port 'cycles', not one with it")
    if trace is not None and not {f"{trace}_valid", f"{trace}_data"} <= passed.keys():
        raise ValueError(f"Trace prefix must be that of two ports _valid and _data, not {trace!r}")
    head = ",\n".join(
        f"    {shape.direction} wire [{shape.width - 1}:0] {port}" for port, shape in passed.items()
    )
    pins = ", ".join(f".{port}({port})" for port in ports)
    lines = [
        "`timescale 1ns / 1ps",
        f"module {name} (\n{head}\n);",
        "    wire clk, rst;",
        "    wire [63:0] cycles;",
        f"    sim_clock #(.PERIOD_NS({float(period_ns)!r})) clock "
        "(.clk(clk), .rst(rst), .cycles(cycles));",
        f"    {design} dut ({pins});",
    ]
    if trace is not None:
        lines.append(
            f"    trace_writer #(.WIDTH({passed[f'{trace}_data'].width})) writer "
            f"(.clk(clk), .valid({trace}_valid & ~rst), .data({trace}_data));"
        )
    return "\n".join([*lines, "endmodule", ""])


def harness_sources() -> list[Path]:
    """The Verilog that a harness needs besides the design."""
    return [MODELS / "clock.v", MODELS / "trace_writer.v"]


def harness_ports(ports: Mapping[str, Port]) -> list[str]:
    """What a test may touch in a harness around a design with `ports`."""
    return [*MADE, *(port for port in ports if port not in MADE)]


def read_trace(path: Path) -> NDArray[np.uint64]:
    """The records of a trace file, at most 64 bits each, in the order of their cycles.

    Raises `ValueError` naming the line if one is not a number, as where the design had an unknown.
    """
    records = []
    with path.open() as file:
        for number, line in enumerate(file, start=1):
            try:
                records.append(int(line, 16))
            except ValueError:
                raise ValueError(
                    f"Trace {path} line {number} must be hexadecimal, not {line.strip()!r}"
                ) from None
    return np.array(records, dtype=np.uint64)
