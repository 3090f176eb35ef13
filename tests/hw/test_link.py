# amaranth: UnusedElaboratable=no
"""The link against the host's transport: every command, damage in both directions, stalls."""

import itertools
import random

import pytest
from amaranth.hdl import Module
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from host.link import LinkError, LinkTransport
from hw.bus import BusSignature
from hw.link import Link
from hw.uart import UARTReceiver, UARTTransmitter
from isa import checked, image, link
from isa.link import Command, Status
from isa.registers import CONTROL, Register, State
from tests.hw.frontend import Content, Frontend
from tests.hw.line import CLOCK_HZ, SimulatedLine, Slave, simulated_link

WORDS = [(i * 0x9E37_79B9 + 0xA5) & 0xFFFF_FFFF for i in range(200)]


def transport(line, **options):
    return LinkTransport(line, clock=line.clock, **({"timeout": 0.1} | options))


def exchange(line, frame):
    """The answer to one raw frame."""
    line.write(frame)
    return line.read(1024, 0.1)


def test_words_come_back_as_they_were_written():
    slave = Slave()
    host = transport(simulated_link(slave))
    host.write(Register.IMAGE, WORDS)
    assert host.read(Register.IMAGE, 200) == WORDS
    assert host.read(Register.IMAGE + 7, 1) == [WORDS[7]]
    host.write(0xFFFFF, [3])
    assert slave.memory[0xFFFFF] == 3
    assert host.retries == 0


def test_ports_take_every_word_at_one_address():
    slave = Slave()
    host = transport(simulated_link(slave))
    host.write(Register.INPUT, WORDS[:70])
    host.write(Register.STREAM, WORDS[70:140])
    assert slave.pushed == WORDS[:140]
    assert slave.accesses == [(Register.INPUT, 1)] * 70 + [(Register.STREAM, 1)] * 70


@pytest.mark.parametrize("direction", ["request", "answer"])
@pytest.mark.parametrize("damage", ["flip", "drop", "insert", "duplicate", "lose", "cut"])
def test_damage_is_repaired_and_nothing_is_pushed_twice(direction, damage):
    generator = random.Random(f"{direction} {damage}")
    slave = Slave()
    line = simulated_link(slave)
    host = transport(line, timeout=0.04, attempts=30)
    hits = []

    def mangle(raw):
        if generator.random() < 0.5:
            return raw
        hits.append(damage)
        at = generator.randrange(len(raw))
        match damage:
            case "flip":
                return raw[:at] + bytes([raw[at] ^ 1 << generator.randrange(8)]) + raw[at + 1 :]
            case "drop":
                return raw[:at] + raw[at + 1 :]
            case "insert":
                return raw[:at] + bytes([generator.choice([0xA5, 0x5A, 0x00])]) + raw[at:]
            case "duplicate":
                return raw + raw
            case "lose":
                return b""
            case "cut":
                return raw[:at]

    host.synchronise()
    if direction == "request":
        line.mangle = mangle
    else:
        line.mangle_back = mangle
    for start in range(0, 30, 3):
        host.write(Register.INPUT, WORDS[start : start + 3])
        host.write(Register.IMAGE + start, WORDS[start : start + 3])
    assert slave.pushed == WORDS[:30]
    assert host.read(Register.IMAGE, 30) == WORDS[:30]
    assert len(hits) > 5


def test_a_repeated_write_is_answered_but_not_executed_again():
    slave = Slave()
    line = simulated_link(slave)
    frame = link.request(7, Command.WRITE, Register.INPUT, [1, 2, 3])
    good = link.response(7, Command.WRITE, Status.OK, 3)
    assert exchange(line, frame) == good
    assert exchange(line, frame) == good
    assert slave.pushed == [1, 2, 3]
    # Any other request in between, whatever its number, and the number means a new write.
    for other, sequence in itertools.product((Command.READ, Command.SYNC), (7, 8)):
        exchange(line, link.request(sequence, other, 0, 1))
        slave.pushed.clear()
        assert exchange(line, frame) == good
        assert slave.pushed == [1, 2, 3]


def test_a_damaged_write_changes_nothing():
    slave = Slave()
    line = simulated_link(slave)
    frame = link.request(1, Command.WRITE, 0x20, [0x1234_5678])
    for at in range(1, len(frame)):
        damaged = frame[:at] + bytes([frame[at] ^ 0x10]) + frame[at + 1 :]
        answer = exchange(line, damaged)
        assert answer[3] == Status.BAD_CRC.value
        line.read(1, link.BYTE_TIMEOUT * 2)
    assert slave.accesses == []
    assert exchange(line, frame) == link.response(1, Command.WRITE, Status.OK, 1)


@pytest.mark.parametrize("length", range(1, 13))
def test_an_incomplete_request_is_given_up(length):
    slave = Slave()
    line = simulated_link(slave)
    frame = link.request(1, Command.WRITE, 0x20, [5])
    line.write(frame[:length])
    began = line.now
    answer = line.read(1024, 0.1)
    assert answer[3] == Status.BAD_CRC.value
    assert link.BYTE_TIMEOUT <= line.now - began < link.BYTE_TIMEOUT + 0.01
    assert exchange(line, frame) == link.response(1, Command.WRITE, Status.OK, 1)


@pytest.mark.parametrize(
    ("command", "address", "payload"),
    [
        (Command.READ, 0, 0),
        (Command.READ, 0, 65),
        (Command.READ, 1 << 23, 1),
        (Command.WRITE, 0, 0),
        (Command.WRITE, 0, [0] * 65),
        (Command.WRITE, 1 << 23, [0]),
    ],
)
def test_what_cannot_be_is_refused(command, address, payload):
    slave = Slave()
    line = simulated_link(slave)
    answer = exchange(line, link.request(3, command, address, payload))
    assert answer == link.response(3, command, Status.BAD_COMMAND, 0)
    assert slave.accesses == []


def test_an_unknown_command_is_refused():
    line = simulated_link(Slave())
    body = bytes([9, 77, 0, 0, 0, 1])
    answer = exchange(line, bytes([link.REQUEST_SYNC]) + body + link.crc16(body))
    body = bytes([9, 77, Status.BAD_COMMAND.value, 0])
    assert answer == bytes([link.RESPONSE_SYNC]) + body + link.crc16(body)


def test_the_largest_request_passes():
    slave = Slave(longest=1)
    line = simulated_link(slave)
    assert exchange(
        line, link.request(1, Command.WRITE, 0x40, WORDS[: link.MAX_WORDS])
    ) == link.response(1, Command.WRITE, Status.OK, link.MAX_WORDS)
    assert exchange(line, link.request(2, Command.READ, 0x40, link.MAX_WORDS)) == link.response(
        2, Command.READ, Status.OK, WORDS[: link.MAX_WORDS]
    )


def test_a_port_that_stalls_answers_busy_with_what_it_took():
    slave = Slave()
    slave.room = 3
    line = simulated_link(slave)
    frame = link.request(5, Command.WRITE, Register.INPUT, WORDS[:5])
    assert exchange(line, frame) == link.response(5, Command.WRITE, Status.BUSY, 3)
    slave.room = 2
    assert exchange(line, frame) == link.response(5, Command.WRITE, Status.BUSY, 3)
    assert slave.pushed == WORDS[:3]
    rest = link.request(6, Command.WRITE, Register.INPUT, WORDS[3:5])
    assert exchange(line, rest) == link.response(6, Command.WRITE, Status.OK, 2)
    assert slave.pushed == WORDS[:5]


def test_the_host_goes_on_where_a_busy_port_stopped():
    slave = Slave()
    slave.room = 0
    line = simulated_link(slave)
    host = transport(line)
    answers = []

    def give_room(raw):
        answers.append(raw)
        slave.room = 7
        return raw

    line.mangle_back = give_room
    host.write(Register.INPUT, WORDS[:100])
    assert slave.pushed == WORDS[:100]
    assert len(answers) > 100 // 7


def test_the_host_gives_up_on_a_port_that_never_has_room():
    slave = Slave()
    slave.room = 10
    line = simulated_link(slave)
    host = transport(line, stall_timeout=0.3)
    with pytest.raises(LinkError) as caught:
        host.write(Register.INPUT, WORDS[:20])
    assert str(caught.value) == (
        "Device must take words at 0x100 within 0.3 s, but is busy: abort, and load the image again"
    )
    assert slave.pushed == WORDS[:10]
    host.write(Register.IMAGE, [1])  # the link itself is fine


def test_a_dead_bus_answers_busy():
    slave = Slave()
    slave.dead = True
    line = simulated_link(slave)
    host = transport(line, stall_timeout=0.1)
    with pytest.raises(LinkError, match="Device must give words at 0x4 within"):
        host.read(Register.STATUS, 1)
    slave.dead = False
    assert host.read(Register.STATUS, 1) == [0]


def test_garbage_between_requests_is_ignored():
    slave = Slave()
    line = simulated_link(slave)
    assert exchange(line, bytes(range(100))) == b""
    frame = link.request(1, Command.WRITE, 0x20, [5])
    assert exchange(line, b"\x00\xff\x5a" + frame) == link.response(1, Command.WRITE, Status.OK, 1)


class UARTLink(wiring.Component):
    """The link with its UART, and a second UART as the host's end of the line."""

    rx: In(stream.Signature(8))
    tx: Out(stream.Signature(8))
    bus: Out(BusSignature())
    noise: In(2)  # inverts the line to the device, or from it

    def elaborate(self, platform):
        m = Module()
        m.submodules.link = dut = Link(clock_hz=CLOCK_HZ)
        m.submodules.receiver = receiver = UARTReceiver(divisor=6)
        m.submodules.transmitter = transmitter = UARTTransmitter(divisor=6)
        m.submodules.far_receiver = far_receiver = UARTReceiver(divisor=6)
        m.submodules.far_transmitter = far_transmitter = UARTTransmitter(divisor=6)
        wiring.connect(m, receiver.bytes, dut.rx)
        wiring.connect(m, dut.tx, transmitter.bytes)
        wiring.connect(m, dut.bus, wiring.flipped(self.bus))
        wiring.connect(m, wiring.flipped(self.rx), far_transmitter.bytes)
        wiring.connect(m, far_receiver.bytes, wiring.flipped(self.tx))
        m.d.comb += [
            receiver.pin.eq(far_transmitter.pin ^ self.noise[0]),
            far_receiver.pin.eq(transmitter.pin ^ self.noise[1]),
        ]
        return m


@pytest.mark.parametrize("noisy", [False, True], ids=["clean", "noisy"])
def test_over_the_uart(noisy):
    generator = random.Random(4)
    slave = Slave()
    dut = UARTLink()

    async def disturb(ctx):
        while noisy:
            for _ in range(generator.randint(1, 4000)):
                await ctx.tick()
            ctx.set(dut.noise, generator.randint(1, 3))
            for _ in range(generator.randint(1, 12)):
                await ctx.tick()
            ctx.set(dut.noise, 0)

    line = SimulatedLine(dut, dut.rx, dut.tx, slave.bench(dut.bus), disturb)
    host = transport(line, timeout=0.15, attempts=30)
    for start in range(0, 12, 4):
        host.write(Register.INPUT, WORDS[start : start + 4])
    host.write(Register.IMAGE, WORDS[:4])
    assert host.read(Register.IMAGE, 4) == WORDS[:4]
    assert slave.pushed == WORDS[:12]
    assert bool(host.retries) == noisy


class LinkedFrontend(wiring.Component):
    """Link, control, loader and sources."""

    rx: In(stream.Signature(8))
    tx: Out(stream.Signature(8))

    def elaborate(self, platform):
        m = Module()
        m.submodules.link = dut = Link(clock_hz=CLOCK_HZ)
        m.submodules.frontend = frontend = Frontend()
        wiring.connect(m, wiring.flipped(self.rx), dut.rx)
        wiring.connect(m, dut.tx, wiring.flipped(self.tx))
        wiring.connect(m, dut.bus, frontend.bus)
        return m


def test_loads_and_checks_an_image():
    dut = LinkedFrontend()
    host = transport(SimulatedLine(dut, dut.rx, dut.tx))
    content = Content(layers=2)
    assert host.read(Register.ID, 2) == [image.MAGIC, image.VERSION]
    host.write(Register.IMAGE, content.image.words)
    check = checked.encode(CONTROL, dict.fromkeys(CONTROL.members, 0) | {"check": 1})
    host.write(Register.CONTROL, [check])
    while host.read(Register.STATUS, 1) == [State.CHECKING.value]:
        pass
    assert host.read(Register.STATUS, 1) == [State.READY.value]
    assert host.read(Register.CLASSES, 1) == [10]
    with pytest.raises(LinkError, match="is busy"):  # nobody takes the input
        transport(host._port, stall_timeout=0.2).write(Register.INPUT, [1, 2])


@pytest.mark.parametrize("clock_hz", [0, 25e6])
def test_clock_is_checked(clock_hz):
    with pytest.raises(ValueError) as caught:
        Link(clock_hz=clock_hz)
    assert str(caught.value) == f"Link clock_hz must be a positive integer, not {clock_hz!r}"


@pytest.mark.parametrize("name", ["byte_timeout", "bus_timeout"])
def test_timeouts_are_checked(name):
    with pytest.raises(ValueError) as caught:
        Link(clock_hz=100, **{name: 0.001})
    assert str(caught.value) == f"Link {name} must be at least one clock cycle, not 0.001 s"
