"""cocotb streams on both simulators: every stall on both ends, and designs that break the rule."""

from pathlib import Path

import pytest
from amaranth.hdl import Module
from amaranth.lib import data, stream, wiring
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.wiring import In, Out

from sim.handshake import STALLS
from sim.simulator import SimulationError, build, to_verilog
from sim.streams import stream_ports
from sim.verilog import ports_of

BENCH = "tests.sim.cocotb_streams"


class Pair(data.Struct):
    low: 3
    high: data.ArrayLayout(5, 2)


class Queue(wiring.Component):
    """A FIFO of structured payloads."""

    i: In(stream.Signature(Pair))
    o: Out(stream.Signature(Pair))

    def elaborate(self, platform):
        m = Module()
        m.submodules.fifo = fifo = SyncFIFOBuffered(width=13, depth=3)
        m.d.comb += [
            fifo.w_data.eq(self.i.payload),
            fifo.w_en.eq(self.i.valid),
            self.i.ready.eq(fifo.w_rdy),
            self.o.payload.eq(fifo.r_data),
            self.o.valid.eq(fifo.r_rdy),
            fifo.r_en.eq(self.o.ready),
        ]
        return m


class Flicker(wiring.Component):
    """Breaks the stream rule: offers a payload every other cycle, taken or not."""

    o: Out(stream.Signature(8))

    def elaborate(self, platform):
        m = Module()
        m.d.sync += self.o.valid.eq(~self.o.valid)
        return m


def compiled(component, name, folder, simulator):
    source = folder / f"{name}.v"
    source.write_text(to_verilog(component, name))
    return build([source], name, list(ports_of(component)), simulator=simulator)


def test_names():
    assert stream_ports("a__b") == ["a__b__payload", "a__b__valid", "a__b__ready"]
    assert list(ports_of(Queue())) == ["clk", "rst", *stream_ports("i"), *stream_ports("o")]


@pytest.mark.parametrize("simulator", ["verilator", "icarus"])
def test_round_trip(simulator, tmp_path: Path):
    built = compiled(Queue(), "queue", tmp_path, simulator)
    for source in STALLS:
        for sink in STALLS:
            env = {"SOURCE_STALLS": source, "SINK_STALLS": sink}
            built.run(BENCH, testcase="queue", results=tmp_path / f"{source}-{sink}", env=env)


@pytest.mark.parametrize("simulator", ["verilator", "icarus"])
@pytest.mark.parametrize("testcase", ["flicker_by_sink", "flicker_by_monitor"])
def test_withdrawn_payload_is_caught(simulator, testcase, tmp_path: Path):
    built = compiled(Flicker(), "flicker", tmp_path, simulator)
    with pytest.raises(SimulationError, match=r"Stream o withdrew payload 0x0 before it was taken"):
        built.run(BENCH, testcase=testcase, results=tmp_path)
