"""cocotb side of `test_simulator` and `test_harness`."""

import os
import subprocess
import time

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import FallingEdge, ReadOnly, RisingEdge, Timer


@cocotb.test()
async def passes(dut):
    assert os.environ["GREETING"] == "hello"
    assert "PYTEST_CURRENT_TEST" not in os.environ
    assert cocotb.plusargs["answer"] == "42"


@cocotb.test()
async def fails(dut):
    raise ValueError("two and two are five")


@cocotb.test()
async def hangs(dut):
    with open(os.environ["PID_FILE"], "w") as file:
        file.write(str(subprocess.Popen(["sleep", "1000"]).pid))
    time.sleep(1000)


@cocotb.test()
async def dies(dut):
    os._exit(3)


@cocotb.test(timeout_time=1, timeout_unit="sec")
async def count_with_python_clock(dut):
    dut.start.value = 0
    dut.limit.value = int(os.environ["LIMIT"])
    dut.rst.value = 1
    Clock(dut.clk, 10, unit="ns", impl="gpi").start()
    await Timer(25, unit="ns")
    dut.rst.value = 0
    await count(dut)


@cocotb.test(timeout_time=1, timeout_unit="sec")
async def count_with_hdl_clock(dut):
    dut.start.value = 0
    dut.limit.value = int(os.environ["LIMIT"])
    await FallingEdge(dut.rst)
    await count(dut)
    assert int(os.environ["LIMIT"]) <= int(dut.cycles.value) <= int(os.environ["LIMIT"]) + 4


async def count(dut):
    await FallingEdge(dut.clk)
    dut.start.value = 1
    started = time.perf_counter()
    await RisingEdge(dut.done)
    await ReadOnly()  # the design's registers change after the callbacks of the edge
    assert int(dut.count.value) == int(os.environ["LIMIT"])
    seconds = time.perf_counter() - started
    cocotb.log.info("%.0f kcycles/s", int(os.environ["LIMIT"]) / seconds / 1000)


@cocotb.test()
async def waits(dut):
    await FallingEdge(dut.rst)
    await Timer(95, unit="ns")
