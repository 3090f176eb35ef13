"""The driver on the simulated gateware: `host.device.Device`, unchanged, over the core's bus.

Runs inside the simulator; tests/host/test_driver_rtl.py starts it. The environment names the image,
the frames and the result file.
"""

import json
import os
from pathlib import Path

import cocotb
import numpy as np
from cocotb.task import bridge, resume
from cocotb.triggers import FallingEdge, with_timeout

from host.device import Device, DeviceError
from isa.geometry import TINY
from isa.image import HEADER_WORDS, parse
from isa.registers import Register, Source
from sim.session import Bus


class BusTransport:
    """Blocking reads and writes, for the driver's thread, of a bus in the simulator's."""

    def __init__(self, dut):
        self._dut = dut
        self._bus = Bus(dut, iter(lambda: False, None))
        self.spoil = None  # called with (address, words), may change what is written

    @resume
    async def read(self, address, count):
        return [await self._bus.read(address + offset) for offset in range(count)]

    @resume
    async def write(self, address, words):
        if self.spoil is not None:
            words = self.spoil(address, words)
        step = 0 if address in (Register.INPUT, Register.STREAM) else 1
        for offset, word in enumerate(words):
            await self._bus.write(address + step * offset, word)

    @resume
    async def wait(self, timeout):
        await self._bus.idle(200)


def use(dut, report):
    """What a program on a computer would do; runs in a thread of its own."""
    image = parse(Path(os.environ["DRIVER_IMAGE"]).read_bytes(), TINY)
    frames = np.load(os.environ["DRIVER_FRAMES"])
    transport = BusTransport(dut)

    def frame(device, index):
        result = device.classify(frames[index])
        return {"logits": result.logits, "top": result.top, "cycles": result.cycles}

    device = Device(transport)
    report["geometry"] = device.identify().geometry.name
    device.load_image(image)
    report["ram"] = [frame(device, index) for index in range(2)]

    # A frame whose input stops half-way: the watchdog ends it, the next try works.
    transport.write(Register.WATCHDOG, [2000])
    lost = []

    def lose_input(address, words):
        if address == Register.INPUT and not lost:
            lost.append(len(words))
            return words[: len(words) // 2]
        return words

    transport.spoil = lose_input
    report["retried"] = frame(device, 2)
    assert lost

    # The same twice: the error is explained, and the next frame works.
    device = Device(transport, retries=0)
    lost.clear()
    device.load_image(image)
    try:
        device.classify(frames[0])
    except DeviceError as error:
        report["lost"] = str(error)
    report["after"] = frame(device, 1)

    # An image that is damaged on its way.
    def flip(address, words):
        position = Register.IMAGE + HEADER_WORDS + 20 - address
        if address >= Register.IMAGE and 0 <= position < len(words):
            return [word ^ (index == position) for index, word in enumerate(words)]
        return words

    transport.spoil = flip
    device.load_image(image)  # which the device holds, so that nothing is sent
    transport.write(Register.IMAGE, [0])
    try:
        device.load_image(image)
    except DeviceError as error:
        report["damaged"] = str(error)
    transport.spoil = None

    device = Device(transport, source=Source.LINK)
    device.load_image(image)
    report["link"] = [frame(device, index) for index in (2, 0)]


@cocotb.test()
async def driver(dut):
    report = {}
    await FallingEdge(dut.rst)
    await FallingEdge(dut.clk)
    await with_timeout(cocotb.start_soon(bridge(use)(dut, report)), 20_000_000, "ns")
    Path(os.environ["DRIVER_REPORT"]).write_text(json.dumps(report))
