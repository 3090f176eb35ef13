"""Harness: HDL clock, reset, cycle counter and trace file, the same on both simulators."""

from pathlib import Path

import numpy as np
import pytest
from amaranth.hdl import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from sim.harness import harness, harness_ports, harness_sources, read_trace
from sim.simulator import build, to_verilog
from sim.verilog import Port, ports_of

BENCH = "tests.sim.cocotb_simulator"


class Counter(wiring.Component):
    """Counts from `start` to `limit`, traces every 64th value, then sets `done`."""

    start: In(1)
    limit: In(32)
    done: Out(1)
    count: Out(32)
    trace_valid: Out(1)
    trace_data: Out(64)

    def elaborate(self, platform):
        m = Module()
        running = Signal()
        # Work that toggles, so that speeds measured on it mean something.
        lanes = [Signal(32, init=n + 1) for n in range(64)]
        total = 0
        for lane in lanes:
            total = total ^ lane
        with m.If(self.start):
            m.d.sync += running.eq(1)
        with m.If(running & ~self.done):
            m.d.sync += [self.count.eq(self.count + 1), self.done.eq(self.count + 1 == self.limit)]
            for lane in lanes:
                m.d.sync += lane.eq((lane << 1) ^ (lane >> 3) ^ self.count)
        m.d.comb += [
            self.trace_valid.eq(running & ~self.done & (self.count[:6] == 0)),
            self.trace_data.eq(self.count | ((total & 0xFFFF_FFFF) << 32)),
        ]
        return m


def expected_trace(limit):
    lanes = [n + 1 for n in range(64)]
    records = []
    for count in range(limit):
        if count % 64 == 0:
            total = 0
            for lane in lanes:
                total ^= lane
            records.append(count | total << 32)
        lanes = [((lane << 1) ^ (lane >> 3) ^ count) & 0xFFFF_FFFF for lane in lanes]
    return np.array(records, dtype=np.uint64)


def harnessed(folder, simulator):
    dut = Counter()
    ports = ports_of(dut)
    design, top = folder / "counter.v", folder / "bench.v"
    top.write_text(harness("bench", "counter", ports, trace="trace"))
    design.write_text(to_verilog(dut, "counter"))
    sources = [design, top, *harness_sources()]
    return build(sources, "bench", harness_ports(ports), simulator=simulator)


@pytest.mark.parametrize("simulator", ["verilator", "icarus"])
def test_trace_and_clock(simulator, tmp_path: Path):
    built = harnessed(tmp_path, simulator)
    trace = tmp_path / "trace.hex"
    built.run(
        BENCH,
        testcase="count_with_hdl_clock",
        results=tmp_path,
        env={"LIMIT": "1000"},
        plusargs=[f"+trace={trace}"],
    )
    assert np.array_equal(read_trace(trace), expected_trace(1000))


def test_reset_is_not_traced(tmp_path: Path):
    design, top = tmp_path / "eager.v", tmp_path / "bench.v"
    ports = {"clk": Port("input", 1), "rst": Port("input", 1)}
    ports |= {"t_valid": Port("output", 1), "t_data": Port("output", 8)}
    design.write_text(
        "module eager(input clk, input rst, output t_valid, output [7:0] t_data);\n"
        "assign t_valid = 1, t_data = {7'd3, rst};\nendmodule\n"
    )
    top.write_text(harness("bench", "eager", ports, trace="t"))
    sources = [design, top, *harness_sources()]
    built = build(sources, "bench", harness_ports(ports), simulator="icarus")
    trace = tmp_path / "trace.hex"
    built.run(BENCH, testcase="waits", results=tmp_path, plusargs=[f"+trace={trace}"])
    assert read_trace(trace).tolist() == [6] * 9


def test_no_trace_without_plusarg(tmp_path: Path):
    built = harnessed(tmp_path, "icarus")
    built.run(BENCH, testcase="count_with_hdl_clock", results=tmp_path / "r", env={"LIMIT": "100"})
    assert not list(tmp_path.glob("**/*.hex"))


@pytest.mark.full
def test_hdl_clock_is_faster(tmp_path: Path):
    """Wall times of the same cycles; the ratio is 1.6 and more where nothing else runs."""
    dut = Counter()
    design = tmp_path / "counter.v"
    design.write_text(to_verilog(dut, "counter"))
    plain = build([design], "counter", list(ports_of(dut)))
    speeds = {}
    for built, case in ((plain, "python"), (harnessed(tmp_path, "verilator"), "hdl")):
        folder = tmp_path / case
        env = {"LIMIT": "2000000"}
        built.run(BENCH, testcase=f"count_with_{case}_clock", results=folder, env=env)
        line = next(x for x in (folder / "sim.log").read_text().splitlines() if "kcycles/s" in x)
        speeds[case] = float(line.split("kcycles/s")[0].split()[-1])
    print(speeds)
    assert speeds["hdl"] > 1.2 * speeds["python"]


def test_unknown_digits_are_refused(tmp_path: Path):
    trace = tmp_path / "trace.hex"
    trace.write_text("00ff\n0x1z\n")
    with pytest.raises(ValueError) as error:
        read_trace(trace)
    assert str(error.value) == f"Trace {trace} line 2 must be hexadecimal, not '0x1z'"


def test_bad_arguments():
    with pytest.raises(ValueError) as error:
        harness("bench", "dut", {"a": Port("input", 1)}, trace="probe")
    assert str(error.value) == (
        "Trace prefix must be that of two ports _valid and _data, not 'probe'"
    )
    with pytest.raises(ValueError) as error:
        harness("bench", "dut", {"cycles": Port("output", 1)})
    assert str(error.value) == (
        "Harness must be given a design without a port 'cycles', not one with it"
    )
