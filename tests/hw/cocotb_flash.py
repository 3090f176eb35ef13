"""cocotb benches of the flash: copier with chip, and the chip's own rules."""

import json
import os
import random

import cocotb
from cocotb.triggers import FallingEdge, ReadOnly, Timer

from sim.handshake import stalls


def options():
    return json.loads(os.environ["FLASH_OPTIONS"])


def pauses(seed):
    """Stalls that are longer than a word takes to come."""
    luck = random.Random(seed)
    while True:
        yield from [True] * luck.choice((0, 0, 60, 64, 65, 66, 130, 200))
        yield False


class Memory:
    """Takes the words of the copier, or of the host behind it, and rests by a pattern of stalls."""

    def __init__(self, dut, kind, seed):
        self.dut = dut
        self.written = []
        self.cycles = 0
        self.copied = 0  # strobes
        self._gaps = pauses(seed) if kind == "long" else stalls(kind, seed)
        self._held = None

    async def cycle(self, *, claim=False):
        dut = self.dut
        ready = not next(self._gaps)
        dut.write__ready.value = ready
        dut.claim.value = claim
        await ReadOnly()  # what the next rising edge sees
        offered = None
        if dut.write__valid.value:
            offered = int(dut.write__address.value), int(dut.write__data.value)
        assert self._held in (None, offered), "an offered word was withdrawn"
        self._held = None if ready or claim else offered
        if offered is not None and ready:
            self.written.append(offered)
        self.copied += int(dut.copied.value)
        await FallingEdge(dut.clk)
        self.cycles += 1

    async def cycles_of(self, count):
        for _ in range(count):
            await self.cycle()


@cocotb.test()
async def copies(dut):
    """A reset and a copy for each of the `scenarios`; what happened in each."""
    for name in ("reset", "memory_ready", "memory_fault", "claim", "host__valid", "host__address",
                 "host__data", "write__ready"):  # fmt: skip
        getattr(dut, name).value = 0
    await FallingEdge(dut.rst)
    await FallingEdge(dut.clk)
    results = []
    for number, scenario in enumerate(options()["scenarios"]):
        dut.reset.value = 1
        await FallingEdge(dut.clk)
        await FallingEdge(dut.clk)
        dut.reset.value = 0
        await FallingEdge(dut.clk)
        results.append(await copy(dut, seed=number, **scenario))
    with open(options()["result"], "w") as file:
        json.dump(results, file)


async def copy(dut, *, seed, stalls="none", fault=None, claim_at=None):
    """From the reset to the end of the copy, or to `claim_at`; then the host writes a word."""
    memory = Memory(dut, stalls, seed)
    dut.memory_ready.value = 0
    dut.memory_fault.value = 0
    await memory.cycles_of(20)
    assert dut.copying.value
    assert not dut.selected.value
    dut.memory_fault.value = fault == "early"
    dut.memory_ready.value = 1
    start = memory.cycles
    while dut.copying.value:
        assert not dut.host__ready.value
        await memory.cycle(claim=memory.cycles - start == claim_at)
        dut.memory_fault.value = fault is not None
        assert memory.cycles < 100_000
    taken, cycles = len(memory.written), memory.cycles - start
    dut.host__valid.value = 1
    dut.host__address.value = 5
    dut.host__data.value = 0x1234
    while len(memory.written) == taken:
        await memory.cycle()
    dut.host__valid.value = 0
    await memory.cycles_of(150)
    assert memory.written[taken:] == [(5, 0x1234)]
    assert not dut.selected.value
    return {"written": memory.written[:taken], "copied": memory.copied, "cycles": cycles}


@cocotb.test()
async def rule(dut):
    """Plays `script`, pairs of nanoseconds to wait before and what to drive then."""
    for name in ("sck", "cs", "copi"):
        getattr(dut, name).value = 0
    await Timer(200, "ns")
    for wait, pins in options()["script"]:
        if wait:
            await Timer(wait, "ns")
        for name, value in pins.items():
            getattr(dut, name).value = value
    await Timer(200, "ns")


@cocotb.test()
async def read(dut):
    """Reads bytes with one of the commands, each bit at the clock's rise, by hand."""
    wanted = options()
    luck = random.Random(1)
    for name in ("sck", "cs", "copi"):
        getattr(dut, name).value = 0
    found = []
    for address, count in wanted["reads"]:
        await Timer(120, "ns")
        dut.cs.value = 1
        sent = [wanted["opcode"], *address.to_bytes(3, "big")]
        sent += [luck.getrandbits(8)] * wanted["dummies"]
        for byte in sent:
            await transfer(dut, byte)
        found.append([await transfer(dut, luck.getrandbits(8)) for _ in range(count)])
        dut.cs.value = 0
    with open(wanted["result"], "w") as file:
        json.dump(found, file)


async def transfer(dut, byte):
    got = 0
    for bit in reversed(range(8)):
        dut.copi.value = byte >> bit & 1
        await Timer(20, "ns")
        got = got << 1 | int(dut.cipo.value)
        dut.sck.value = 1
        await Timer(20, "ns")
        dut.sck.value = 0
    return got
