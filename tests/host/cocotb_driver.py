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
from cocotb.utils import get_sim_time

from host.device import Device
from host.device_errors import DeviceError
from host.frames import pack_frame
from isa import checked
from isa.geometry import TINY
from isa.image import HEADER_WORDS, build, parse
from isa.registers import CONTROL, ErrorCode, Register, Source, State
from sim.session import Bus
from tests.geometries import TINY_SDRAM

NOTHING = dict.fromkeys(CONTROL.members, 0)


class BusTransport:
    """Blocking reads and writes, for the driver's thread, of a bus in the simulator's."""

    def __init__(self, dut):
        self._dut = dut
        self._bus = Bus(dut, iter(lambda: False, None))
        self.image_words = 0  # written so far
        self.spoil = None  # called with (address, words), may change what is written
        self.unplugged = False  # what is being written is the last

    @resume
    async def read(self, address, count):
        return [await self._bus.read(address + offset) for offset in range(count)]

    @resume
    async def write(self, address, words):
        if self.spoil is not None:
            words = self.spoil(address, words)
        self.image_words += len(words) if address >= Register.IMAGE else 0
        step = 0 if address in (Register.INPUT, Register.STREAM) else 1
        for offset, word in enumerate(words):
            await self._bus.write(address + step * offset, word)
        if self.unplugged:
            raise OSError("unplugged")

    @resume
    async def wait(self, timeout):
        await self._bus.idle(200)


def go_in_the_middle(transport, frame):
    """A host that sends START and half of a frame, and is never heard of again.

    Returns the state that it leaves, and what the device says when the watchdog's 2000 cycles are
    over: its state and its error.
    """
    pixels = pack_frame(frame)
    transport.write(Register.CONTROL, [checked.encode(CONTROL, {**NOTHING, "start": 1})])
    transport.write(Register.INPUT, pixels[: len(pixels) // 2])
    left = State(transport.read(Register.STATUS, 1)[0]).name
    for _ in range(15):
        transport.wait(0)
    state, error = (
        transport.read(register, 1)[0] for register in (Register.STATUS, Register.ERROR)
    )
    return [left, State(state).name, ErrorCode(error).name]


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

    report["gone"] = go_in_the_middle(transport, frames[0])
    before = transport.image_words
    device = Device(transport)  # of another host
    device.load_image(image)
    report["after gone"] = frame(device, 2)
    report["sent again"] = transport.image_words - before

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


def use_with_flash(dut, report):
    """A program that is there as soon as the power is, and knows nothing of the flash."""
    image = parse(Path(os.environ["DRIVER_IMAGE"]).read_bytes(), TINY_SDRAM)
    frame = np.load(os.environ["DRIVER_FRAMES"])[0]
    transport = BusTransport(dut)
    device = Device(
        transport,
        expected=TINY_SDRAM,
        source=Source.SDRAM,
        clock=lambda: get_sim_time("sec"),
        sleep=transport.wait,
    )
    device.load_image(image)
    report["sent"] = transport.image_words
    report["logits"] = device.classify(frame).logits


def use_with_sdram(dut, report):
    """Faults with image and frames in the SDRAM: each has a code, and the next frame works."""
    image = parse(Path(os.environ["DRIVER_IMAGE"]).read_bytes(), TINY_SDRAM)
    frames = np.load(os.environ["DRIVER_FRAMES"])
    transport = BusTransport(dut)

    def connect(**options):
        options = {"expected": TINY_SDRAM, "source": Source.SDRAM} | options
        return Device(transport, clock=lambda: get_sim_time("sec"), sleep=transport.wait, **options)

    device = connect()
    try:
        device.load_image(image)
    except DeviceError as error:
        report["fault"] = str(error)
        return
    report["all"] = [result.logits for result in device.classify_all(frames)]
    report["batch"] = [result.logits for result in device.classify_batch(frames)]

    # An image for another geometry, past the driver, which would refuse it.
    other = build(TINY, image.info, image.packets).words[:HEADER_WORDS]
    transport.write(Register.IMAGE, other)
    transport.write(Register.CONTROL, [checked.encode(CONTROL, {**NOTHING, "check": 1})])
    while transport.read(Register.STATUS, 1)[0] == State.CHECKING.value:
        transport.wait(0)
    report["foreign"] = ErrorCode(transport.read(Register.ERROR, 1)[0]).name
    device.load_image(image)
    report["after foreign"] = device.classify(frames[1]).logits

    # The host is gone in the middle of a frame's pixels, one frame being computed. Another comes.
    sent = []

    def unplug(address, words):
        if address == Register.INPUT:
            sent.append(address)
            if len(sent) == 2:
                transport.spoil, transport.unplugged = None, True
                return words[: len(words) // 2]
        return words

    transport.spoil = unplug
    try:
        list(device.classify_all(frames))
    except OSError as error:
        report["unplugged"] = str(error)
    transport.unplugged = False
    before = transport.image_words
    device = connect()
    device.load_image(image)
    report["after unplugged"] = device.classify(frames[0]).logits
    report["sent again"] = transport.image_words - before

    # Pixels that are lost on the way to a frame that has been started.
    transport.write(Register.WATCHDOG, [2000])

    def lose(address, words):
        if address == Register.INPUT:
            transport.spoil = None
            return words[: len(words) // 2]
        return words

    device = connect(retries=0)
    device.load_image(image)
    transport.spoil = lose
    try:
        device.classify(frames[2])
    except DeviceError as error:
        report["lost"] = str(error)
    report["after lost"] = [result.logits for result in device.classify_all(frames)]

    report["gone"] = go_in_the_middle(transport, frames[0])
    before = transport.image_words
    device = connect()
    device.load_image(image)
    report["after gone"] = [result.logits for result in device.classify_all(frames[1:])]
    report["gone, sent again"] = transport.image_words - before


async def run(dut, program):
    report = {}
    await FallingEdge(dut.rst)
    await FallingEdge(dut.clk)
    await with_timeout(cocotb.start_soon(bridge(program)(dut, report)), 20_000_000, "ns")
    Path(os.environ["DRIVER_REPORT"]).write_text(json.dumps(report))


@cocotb.test()
async def driver(dut):
    await run(dut, use)


@cocotb.test()
async def driver_with_sdram(dut):
    await run(dut, use_with_sdram)


@cocotb.test()
async def driver_with_flash(dut):
    await run(dut, use_with_flash)
