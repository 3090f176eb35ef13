"""cocotb bench of a whole core: drives its bus as a host would, by a job in a file.

`sim.runner` writes the job (+job=PATH, JSON) and reads the result; fields are those of `Job`.
Python acts when something has happened and sleeps while the core computes; blocks of words are
written by `bus_feeder.v`.
"""

import dataclasses
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cocotb
from cocotb.triggers import FallingEdge, RisingEdge, Timer, with_timeout
from cocotb.utils import get_sim_time

from isa import registers
from isa.checked import decode, encode
from isa.image import HEADER_WORDS
from isa.registers import CONTROL, MEMORY, ErrorCode, Register, Source, State
from isa.trace import ACTIVITIES
from sim.handshake import stalls as stall_pattern

#: The perf counters' registers, by the names of what they count.
COUNTERS = {"cycles": Register.CYCLES, **dict(zip(ACTIVITIES, registers.COUNTERS[1:], strict=True))}

POLL_NS = 5000  # between two questions whether the memory is ready


@dataclass(frozen=True)
class Job:
    """What to simulate.

    The file of `bus_feeder.v` holds the image, ``image_words`` of it, and then ``frames`` frames of
    ``frame_words``. ``result``: the JSON file to write. ``source``: the name of a `Source`.
    ``load_words``: how much of the image is written into that source; the rest is there already.
    ``stalls``, ``seed``: idle gaps between Python's bus accesses, of a kind of `sim.handshake`.
    ``late_input``: a frame is started before its input arrives, and with source LINK that input
    follows the ``first_words`` of the image's frame section; otherwise the input of the next one is
    sent while a frame is computed. ``overlap``: every frame but the last is started with the
    announcement of the next one. ``queued``: all frames are sent before the first is started, and
    logits are read of the last one only. ``startup``: there is an image in the flash; the host
    waits for what comes of it, and loads its own only where that is not READY. ``idle``: cycles
    before the host begins. ``core_ps``: the clock's period. ``limit_cycles``: a deadline.
    """

    result: str
    image_words: int
    frames: int
    frame_words: int
    classes: int
    top_k: int
    source: str = Source.RAM.name
    stalls: str = "none"
    seed: int = 0
    late_input: bool = False
    overlap: bool = False
    queued: bool = False
    first_words: int = 0
    startup: bool = False
    idle: int = 0
    load_words: int = 0
    core_ps: int = 10_000
    limit_cycles: int = 100_000_000

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(dataclasses.asdict(self), indent=1))

    @classmethod
    def read(cls, path: Path) -> "Job":
        return cls(**json.loads(path.read_text()))


class Bus:
    """The bus's master. Signals change at falling edges of the clock."""

    def __init__(self, dut: Any, gaps: Iterator[bool]) -> None:
        self._dut, self._gaps = dut, gaps
        dut.bus__valid.value = 0
        dut.bus__write.value = 0
        dut.bus__address.value = 0
        dut.bus__write_data.value = 0

    async def read(self, address: int) -> int:
        """One word; signed where the register is."""
        return await self._transfer(address, None)

    async def write(self, address: int, word: int) -> None:
        await self._transfer(address, word)

    async def idle(self, cycles: int) -> None:
        for _ in range(cycles):
            await FallingEdge(self._dut.clk)

    async def _transfer(self, address: int, word: int | None) -> int:
        dut, edge = self._dut, FallingEdge(self._dut.clk)
        while next(self._gaps):
            await edge
        dut.bus__valid.value = 1
        dut.bus__address.value = address
        dut.bus__write.value = word is not None
        dut.bus__write_data.value = 0 if word is None else word
        await edge
        if not dut.bus__ack.value:
            await RisingEdge(dut.bus__ack)
            await edge
        data = 0 if word is not None else dut.bus__read_data.value.to_unsigned()
        await edge  # the word has been taken at the rising edge in between
        dut.bus__valid.value = 0
        return data


class Session:
    """Loads, checks, classifies. Raises RuntimeError where the core reports an error."""

    def __init__(self, dut: Any, job: Job) -> None:
        self.dut, self.job = dut, job
        self.source = Source[job.source]
        self.link = self.source is Source.LINK
        self.bus = Bus(dut, stall_pattern(job.stalls, job.seed))
        dut.feed__start.value = 0

    async def run(self) -> dict[str, Any]:
        """What the result file has: ``frames``, the results of all of them; and ``startup``, names
        of the state and the error that came of the flash, if the host has waited for that."""
        await self.bus.idle(self.job.idle)
        startup = await self._startup() if self.job.startup else None
        if startup is None or startup[0] != State.READY.name:
            await self._load()
        job, late = self.job, self.job.late_input
        stream = job.image_words - HEADER_WORDS if self.link else 0
        first = min(job.first_words, stream) if late else stream
        results: list[dict[str, Any]] = []
        sent = 0
        while job.queued and sent < job.frames:
            await self._send_frame(sent)
            sent += 1
        for number in range(job.frames):
            if not late and sent == number:
                await self._send_frame(sent)
                sent += 1
            more = job.overlap and number + 1 < job.frames
            await self._command(start=1, more=int(more))
            started = round(get_sim_time("ps") / job.core_ps)
            await self._send(Register.STREAM, HEADER_WORDS, first)
            # Without overlap the first frame runs alone, so that its cycles are an idle core's.
            ahead = more or (number > 0 and not late)
            while sent < min(number + 1 + ahead, job.frames):
                await self._send_frame(sent)
                sent += 1
            await self._send(Register.STREAM, HEADER_WORDS + first, stream - first)
            await self._finished(State.DONE, f"Frame {number}")
            last = number == job.frames - 1
            result = await self._result(logits=last or not job.queued)
            results.append(result | {"started": started})
        return {"startup": startup, "frames": results}

    async def _startup(self) -> tuple[str, str]:
        await self._interrupt()
        state = State(await self.bus.read(Register.STATUS))
        return state.name, ErrorCode(await self.bus.read(Register.ERROR)).name

    async def _load(self) -> None:
        bus = self.bus
        await bus.write(Register.SOURCE, self.source.value)
        if self.source is Source.SDRAM:
            await self._memory_ready()
        await self._send(Register.IMAGE, 0, self.job.load_words, increment=True)
        await self._command(check=1)
        if self.link:
            await self._send(Register.STREAM, 0, self.job.image_words)
        await self._finished(State.READY, "Image")

    async def _memory_ready(self) -> None:
        """Waits until the SDRAM has been tested. RuntimeError if it has a fault."""
        while True:
            memory = decode(MEMORY, await self.bus.read(Register.MEMORY))
            if memory["fault"]:
                raise RuntimeError(f"SDRAM has a fault at burst {memory['fault_address']:#x}")
            if memory["ready"]:
                return
            await Timer(POLL_NS, "ns")
            await FallingEdge(self.dut.clk)

    async def _send_frame(self, number: int) -> None:
        job = self.job
        await self._send(
            Register.INPUT, job.image_words + number * job.frame_words, job.frame_words
        )

    async def _send(self, address: int, first: int, count: int, *, increment: bool = False) -> None:
        """Has words of the file written; see `bus_feeder.v`."""
        if not count:
            return
        dut = self.dut
        dut.feed__address.value = address
        dut.feed__increment.value = increment
        dut.feed__first.value = first
        dut.feed__count.value = count
        dut.feed__start.value = 1
        await RisingEdge(dut.feed__busy)
        dut.feed__start.value = 0
        await FallingEdge(dut.feed__busy)
        await FallingEdge(dut.clk)

    async def _command(self, **bits: int) -> None:
        fields = dict.fromkeys(CONTROL.members, 0) | bits
        await self.bus.write(Register.CONTROL, encode(CONTROL, fields))

    async def _finished(self, expected: Any, subject: str) -> None:
        await self.bus.idle(4)  # the state follows the command
        await self._interrupt()
        state = State(await self.bus.read(Register.STATUS))
        if state is not expected:
            error = ErrorCode(await self.bus.read(Register.ERROR))
            raise RuntimeError(f"{subject} ended in state {state.name} with error {error.name}")

    async def _interrupt(self) -> None:
        if not self.dut.interrupt.value:
            await RisingEdge(self.dut.interrupt)
            await FallingEdge(self.dut.clk)

    async def _result(self, *, logits: bool) -> dict[str, Any]:
        count = self.job.classes if logits else 0
        found = [await self._signed(Register.LOGITS + i) for i in range(count)]
        top = [
            [
                await self.bus.read(Register.TOP_CLASS + i),
                await self._signed(Register.TOP_LOGIT + i),
            ]
            for i in range(self.job.top_k)
        ]
        counters = {name: await self.bus.read(number) for name, number in COUNTERS.items()}
        return {"logits": found, "top": top, "counters": counters}

    async def _signed(self, address: int) -> int:
        word = await self.bus.read(address)
        return word - (word >> 31 << 32)


@cocotb.test()
async def session(dut: Any) -> None:
    """The whole test: from the reset's end to the result file."""
    job = Job.read(Path(str(cocotb.plusargs["job"])))
    host = Session(dut, job)
    await FallingEdge(dut.rst)
    await FallingEdge(dut.clk)
    limit = job.limit_cycles * job.core_ps
    results = await with_timeout(cocotb.start_soon(host.run()), limit, "ps")
    Path(job.result).write_text(json.dumps(results))
