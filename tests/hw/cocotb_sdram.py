"""cocotb benches of the SDRAM: controller with chip, and the chip's own rules."""

import json
import os
import random

import cocotb
from cocotb.triggers import FallingEdge, ReadOnly, RisingEdge, Timer

from hw.sdram import REQUEST
from hw.sdram_chip import BURST_BEATS, Command

#: Cycles before a command, the command, bank and address: what sets the chip up.
SETUP = [
    (12, "PRECHARGE", 0, 1024), (3, "REFRESH", 0, 0), (9, "REFRESH", 0, 0), (9, "MODE", 0, 0x33),
    (2, "NOP", 0, 0),
]  # fmt: skip


def beat(number, index):
    """The content of a beat that nobody has written, as the preloaded file has it."""
    return (number * BURST_BEATS + index) * 40503 & 0xFFFF


class Host:
    """Offers requests, and beats as early as they are taken, and collects what is read."""

    def __init__(self, dut):
        self.dut = dut
        self.read = []
        self.cycles = 0
        self.bursts = 0  # READ and WRITE commands that were seen
        self.refreshes = []  # as many of them came before each REFRESH
        dut.requests__valid.value = 0
        dut.requests__payload.value = 0
        dut.write_data__valid.value = 0
        dut.write_data__payload.value = 0

    async def ready(self):
        if not self.dut.ready.value:
            await RisingEdge(self.dut.ready)
        await FallingEdge(self.dut.clk)

    async def run(self, requests, gaps=None):
        """`requests`: (first burst, bursts, beats to be written or None); `gaps` tells, for a cycle
        and a stream, whether to idle. Returns the cycles from the first request to the last beat
        that was read."""
        dut = self.dut
        beats = [beat for *_, content in requests for beat in content or []]
        reads = [bursts for _, bursts, content in requests if content is None]
        wanted = len(self.read) + BURST_BEATS * sum(reads)
        position, first, last, idle, written = 0, None, self.cycles, 0, 0
        offered = given = False
        while idle < 20:
            if not offered:  # what is offered stays
                offered = position < len(requests) and not (gaps and next(gaps))
            dut.requests__valid.value = offered
            if offered:
                address, bursts, content = requests[position]
                fields = {"write": content is not None, "address": address, "length": bursts - 1}
                dut.requests__payload.value = REQUEST.const(fields).as_value().value
            if not given:
                given = written < len(beats) and not (gaps and next(gaps))
            dut.write_data__valid.value = given
            dut.write_data__payload.value = beats[written] if given else 0x15555
            await ReadOnly()  # what the next rising edge sees
            if offered and dut.requests__ready.value:
                first = self.cycles if first is None else first
                position, offered = position + 1, False
            if given and dut.write_data__ready.value:
                written, given = written + 1, False
            command = int(dut.command.value)
            self.bursts += command in (Command.READ.value, Command.WRITE.value)
            if command == Command.REFRESH.value:
                self.refreshes.append(self.bursts)
            if dut.read_valid.value:
                self.read.append(int(dut.read_data.value))
                last = self.cycles
            self.cycles += 1
            done = position == len(requests) and len(self.read) >= wanted and written == len(beats)
            idle = idle + 1 if done else 0
            await FallingEdge(dut.clk)
        return last - first + 1


def options():
    return json.loads(os.environ["SDRAM_OPTIONS"])


@cocotb.test()
async def stream(dut):
    """Sequential reads from a start, back to back."""
    wanted = options()
    host = Host(dut)
    await host.ready()
    numbers = range(wanted["start"], wanted["start"] + wanted["bursts"])
    length = wanted["length"]
    requests = [(at, min(length, numbers.stop - at), None) for at in numbers[::length]]
    cycles = await host.run(requests)
    expected = [beat(number, index) for number in numbers for index in range(BURST_BEATS)]
    assert host.read == expected
    with open(wanted["result"], "w") as file:
        json.dump({"beats": len(host.read), "cycles": cycles}, file)


@cocotb.test()
async def latency(dut):
    """One burst of an open row, when nothing else goes on."""
    host = Host(dut)
    await host.ready()
    cycles = [await host.run([(5, 1, None)]) for _ in range(2)]
    with open(options()["result"], "w") as file:
        json.dump({"cycles": cycles}, file)


@cocotb.test()
async def phases(dut):
    """The same stream again and again; a refresh is due a cycle earlier each time.

    Reads, or writes that are read afterwards. The first refresh is due `lead` cycles after the
    stream has begun, the last one with it. Leaves, for each of them, the bursts that had begun.
    """
    wanted = options()
    host = Host(dut)
    await host.ready()
    numbers = range(wanted["start"], wanted["start"] + wanted["bursts"])
    content = [[beat(number, index) for index in range(BURST_BEATS)] for number in numbers]
    luck = random.Random(7)
    while dut.command.value != Command.REFRESH.value:
        await FallingEdge(dut.clk)
    before = wanted["period"] - wanted["lead"]  # the next one is due a period after this one
    result = []
    for _ in range(wanted["lead"] + 1):
        await Timer(before * wanted["clock_ps"] - wanted["clock_ps"] // 2, "ps")
        await FallingEdge(dut.clk)
        host.cycles = host.bursts = 0
        host.read.clear()
        host.refreshes.clear()
        if wanted["write"]:
            content = [[luck.getrandbits(16) for _ in range(BURST_BEATS)] for _ in numbers]
            writes = zip(numbers, content, strict=True)
            await host.run([(at, 1, [word | 3 << 16 for word in beats]) for at, beats in writes])
        await host.run([(at, 1, None) for at in numbers])
        assert host.read == [word for beats in content for word in beats]
        result.append(list(host.refreshes))
        before = wanted["period"] + 1 - host.cycles
    with open(wanted["result"], "w") as file:
        json.dump(result, file)


@cocotb.test()
async def mixture(dut):
    """Reads and writes with masks all over the chip, with idle cycles between them."""
    wanted = options()
    luck = random.Random(wanted["seed"])
    host = Host(dut)
    await host.ready()
    memory, requests, expected = {}, [], []
    places = [luck.randrange(1 << 21) for _ in range(6)]
    for _ in range(wanted["requests"]):
        start = luck.choice(places) + luck.randrange(130)
        if luck.random() < 0.5 or start % (1 << 21) not in memory:
            bursts, content = luck.randint(1, 2), []
            for number in (at % (1 << 21) for at in range(start, start + bursts)):
                fresh = number not in memory
                old = memory.setdefault(number, [0] * BURST_BEATS)
                for index in range(BURST_BEATS):
                    data = luck.getrandbits(16)
                    enable = 3 if fresh else luck.choice((3, 3, 1, 2, 0))
                    content.append(data | enable << 16)
                    mask = (enable & 1) * 0xFF | (enable >> 1) * 0xFF00
                    old[index] = old[index] & ~mask | data & mask
            requests.append((start % (1 << 21), bursts, content))
        else:
            bursts = 1
            while bursts < 16 and (start + bursts) % (1 << 21) in memory:
                bursts += 1
            for at in range(start, start + bursts):
                expected += memory[at % (1 << 21)]
            requests.append((start % (1 << 21), bursts, None))
    gaps = (luck.random() < 0.3 for _ in iter(int, 1)) if wanted["gaps"] else None
    await host.run(requests, gaps)
    assert len(expected) > 100
    assert host.read == expected


@cocotb.test()
async def rule(dut):
    """Commands at given cycles after the chip has been set up; the chip must complain."""
    drive = options().get("drive", 0)
    dut.dq_drive.value = drive
    dut.cke.value = options().get("cke", 1)
    script = [tuple(step) for step in options()["script"]]
    dut.command.value = Command.NOP.value
    await FallingEdge(dut.rst)
    for wait, name, bank, address in ([] if options().get("bare") else SETUP) + script:
        for _ in range(wait):
            await RisingEdge(dut.clk)
            dut.command.value = Command.NOP.value
        dut.command.value = 6 if name == "STOP" else Command[name].value
        dut.bank.value = bank
        dut.address.value = address
        dut.dq_drive.value = drive or name == "WRITE"
    for _ in range(options().get("tail", 20)):
        await RisingEdge(dut.clk)
        dut.command.value = Command.NOP.value
        dut.dq_drive.value = drive
