"""cocotb side of `test_streams`: stalls come from the environment, as the design is built once."""

import os

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import FallingEdge

from sim.streams import StreamMonitor, StreamSink, StreamSource

ITEMS = [(n * 2654435761) & 0x1FFF for n in range(200)]


async def reset(dut):
    dut.rst.value = 1
    Clock(dut.clk, 10, unit="ns", impl="gpi").start()
    for _ in range(3):
        await FallingEdge(dut.clk)
    dut.rst.value = 0


@cocotb.test(timeout_time=100, timeout_unit="us")
async def queue(dut):
    source = StreamSource(dut, "i", stalls=os.environ["SOURCE_STALLS"])
    sink = StreamSink(dut, "o", stalls=os.environ["SINK_STALLS"])
    await reset(dut)
    inside, outside = StreamMonitor(dut, "i"), StreamMonitor(dut, "o")
    sending = cocotb.start_soon(source.send(ITEMS))
    assert await sink.receive(len(ITEMS)) == ITEMS
    await sending
    assert inside.items == outside.items == ITEMS
    inside.stop()
    outside.stop()


@cocotb.test(timeout_time=100, timeout_unit="us")
async def flicker_by_sink(dut):
    sink = StreamSink(dut, "o", stalls="heavy")
    await reset(dut)
    await sink.receive(20)


@cocotb.test(timeout_time=100, timeout_unit="us")
async def flicker_by_monitor(dut):
    dut.o__ready.value = 0
    await reset(dut)
    StreamMonitor(dut, "o")
    for _ in range(20):
        await FallingEdge(dut.clk)
