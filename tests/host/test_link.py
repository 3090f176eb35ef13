"""The host's end of the link, over a pseudo-terminal, against a device that misbehaves."""

import os
import select
import threading
import time
import tty

import pytest

from host.link import LinkError, LinkTransport, ResponseParser, SerialPort, open_serial
from isa import link, registers
from isa.checked import decode
from isa.link import Command, Status
from isa.registers import Register

WORDS = [(i * 0x9E37_79B9 + 0x5A) & 0xFFFF_FFFF for i in range(200)]
TIMEOUT = 0.3  # generous: a busy machine may leave the device thread waiting


class PtyDevice:
    """The device's side of the protocol in Python, at the master end of a pseudo-terminal.

    ``mischief`` holds functions (answer -> bytes to send), used up one an answer; ``room`` is how
    many words the ports take before they are BUSY.
    """

    def __init__(self):
        self.memory, self.pushed, self.commands = {}, [], []
        self.mischief, self.room = [], 1 << 30
        self.version = link.VERSION
        self._last, self._stop = None, False
        self._master, self._slave = os.openpty()
        tty.setraw(self._slave)
        self.port = os.ttyname(self._slave)
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self.vanish()

    def vanish(self):
        """Unplugs the device: the port is dead from now on."""
        if self._slave is not None:
            os.close(self._slave)
            self._slave = None
            self._stop = True
            self._thread.join(2)
            os.close(self._master)

    def send(self, raw):
        os.write(self._master, raw)

    def _run(self):
        buffer = b""
        while not self._stop:
            if not select.select([self._master], [], [], 0.1)[0]:
                buffer = b""  # the byte time-out
                continue
            try:
                buffer += os.read(self._master, 4096)
            except OSError:
                return
            while (start := buffer.find(link.REQUEST_SYNC)) >= 0:
                buffer = buffer[start:]
                if len(buffer) < 1 + link.REQUEST_BYTES:
                    break
                raw = buffer[1 : 1 + link.REQUEST_BYTES]
                head = decode(link.REQUEST, int.from_bytes(raw, "little"))
                words = head["count"] if head["command"] == Command.WRITE.value else 0
                end = 1 + link.REQUEST_BYTES + words * 4 + link.CRC_BYTES
                if len(buffer) < end:
                    break
                frame, buffer = buffer[:end], buffer[end:]
                self._answer(head, frame)

    def _answer(self, head, frame):
        command = Command(head["command"])
        body = frame[1 : -link.CRC_BYTES]
        assert link.crc16(body) == frame[-link.CRC_BYTES :]
        words = link.bytes_to_words(body[link.REQUEST_BYTES :])
        self.commands.append(command)
        raw = self._execute(command, head, words)
        if self.mischief:
            raw = self.mischief.pop(0)(raw)
        if raw:
            self.send(raw)

    def _execute(self, command, head, words):
        sequence, address = head["sequence"], head["address"]
        if command is Command.WRITE and self._last and self._last[0] == sequence:
            return self._last[1]
        self._last = None
        if command is Command.SYNC:
            return link.response(sequence, command, Status.OK, [self.version])
        if command is Command.READ:
            found = [self.memory.get(address + i, 0) for i in range(head["count"])]
            return link.response(sequence, command, Status.OK, found)
        status, count = Status.OK, len(words)
        if address in registers.PORTS:
            count = min(count, self.room)
            self.room -= count
            self.pushed += words[:count]
            status = Status.OK if count == len(words) else Status.BUSY
        else:
            self.memory.update({address + i: word for i, word in enumerate(words)})
        raw = link.response(sequence, command, status, count)
        self._last = (sequence, raw)
        return raw


@pytest.fixture
def device():
    with PtyDevice() as device:
        yield device


@pytest.fixture
def host(device):
    with LinkTransport(SerialPort(device.port, 115200), timeout=TIMEOUT) as host:
        yield host


def flipped(raw):
    return raw[:-1] + bytes([raw[-1] ^ 1])


def silent(raw):
    return b""


def garbage(raw):
    return bytes([0x5A, 1, 2, 0, 3, 0xFF, 0x5A, 0x5A, 9])


def half(raw):
    return raw[: len(raw) // 2]


def behind_noise(raw):
    return b"\x5a\x00\x5a" + raw


def twice(raw):
    return raw + raw


def refused(raw):
    return link.response(0, Command.SYNC, Status.BAD_CRC, 0)


MISCHIEF = [flipped, silent, garbage, half, behind_noise, twice, refused]


def test_reads_and_writes_across_requests(device, host):
    host.write(Register.IMAGE, WORDS)
    assert host.read(Register.IMAGE, 200) == WORDS
    host.write(Register.INPUT, WORDS[:100])
    assert device.pushed == WORDS[:100]
    assert device.commands[0] is Command.SYNC
    assert device.commands.count(Command.SYNC) == 1
    assert host.retries == 0


@pytest.mark.parametrize("kind", MISCHIEF)
def test_one_misbehaved_answer_is_survived(device, host, kind):
    device.mischief = [kind]  # the handshake's
    host.write(Register.INPUT, WORDS[:3])
    device.mischief = [kind]
    host.write(Register.INPUT, WORDS[3:6])
    device.memory = dict(enumerate(WORDS, Register.IMAGE))
    device.mischief = [kind, lambda raw: raw] * 3
    assert host.read(Register.IMAGE, 150) == WORDS[:150]
    device.mischief = [kind]
    host.write(Register.INPUT, WORDS[6:9])
    assert device.pushed == WORDS[:9]
    assert (host.retries > 0) == (kind not in (behind_noise, twice))


def test_a_late_answer_is_not_taken_for_the_next_one(device, host):
    host.synchronise()
    device.memory = {1: 11, 2: 22}
    late = []
    device.mischief = [lambda raw: late.append(raw) or b"", lambda raw: raw + late[0]]
    assert host.read(1, 1) == [11]
    assert host.read(2, 1) == [22]
    device.mischief = [lambda raw: late[0] + raw]
    assert host.read(2, 1) == [22]


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (silent, "Device must answer within 0.3 s, not stay silent: check cable, port, baud rate"),
        (garbage, "Device must answer within 0.3 s, not send 9 bytes that are no answer: check"),
        (half, "Device must answer within 0.3 s, not send 5 bytes that are no answer: check"),
        (refused, "Device must receive requests without errors, but every one was corrupt: check"),
    ],
)
def test_a_device_that_keeps_misbehaving_is_reported_in_time(device, host, kind, message):
    host.synchronise()
    device.mischief = [kind] * 4
    device.memory = {5: 55}
    began = time.monotonic()
    with pytest.raises(LinkError) as caught:
        host.read(5, 1)
    assert str(caught.value).startswith(message)
    assert time.monotonic() - began < 5.0
    assert host.read(5, 1) == [55]  # well again, after a handshake
    assert device.commands[-2:] == [Command.SYNC, Command.READ]


def test_a_busy_port_is_continued(device, host):
    device.room = 10

    def more(raw):
        device.room = 30
        return raw

    device.mischief = [lambda raw: raw, *[more] * 8]
    host.write(Register.INPUT, WORDS[:150])
    assert device.pushed == WORDS[:150]


def test_a_port_that_stays_busy_is_an_error(device):
    device.room = 2
    port = SerialPort(device.port, 115200)
    with LinkTransport(port, timeout=TIMEOUT, stall_timeout=0.1) as host:
        with pytest.raises(LinkError) as caught:
            host.write(Register.INPUT, WORDS[:5])
        assert str(caught.value) == (
            "Device must take words at 0x100 within 0.1 s, but is busy: abort, and load the "
            "image again"
        )
        assert device.pushed == WORDS[:2]


def test_a_foreign_protocol_is_refused(device, host):
    device.version = 9
    with pytest.raises(LinkError) as caught:
        host.read(0, 1)
    assert str(caught.value) == (
        "Device must speak version 1 of the link protocol, not 9: build its bitstream again"
    )


def test_a_refused_command_is_an_error(device, host):
    host.synchronise()
    device.mischief = [
        lambda raw: link.response(raw[1], Command.READ, Status.BAD_COMMAND, 0),
    ]
    with pytest.raises(LinkError) as caught:
        host.read(4, 1)
    assert str(caught.value) == (
        "Device must know the command READ at 0x4, but refuses it: build its bitstream again"
    )


class Babble:
    """A port whose line is never silent, and a clock that every read moves on."""

    def __init__(self):
        self.now = 0.0

    def read(self, count, timeout):
        self.now += 0.01
        return b"U"

    def write(self, raw):
        pass

    def close(self):
        pass


def test_a_line_that_never_falls_silent_is_an_error():
    babble = Babble()
    with pytest.raises(LinkError) as caught:
        LinkTransport(babble, clock=lambda: babble.now).read(0, 1)
    assert str(caught.value) == (
        "Serial line must fall silent within 1 s, but bytes keep coming: check port and baud rate"
    )


def test_a_device_that_vanishes_is_an_error(device, host):
    host.synchronise()
    device.vanish()
    with pytest.raises(
        LinkError, match=r"^Serial port must stay usable, but '/dev/pts/\d+' failed"
    ):
        host.read(0, 1)


def test_open_serial_begins_with_the_handshake(device):
    with open_serial(device.port, 115200) as host:
        assert device.commands == [Command.SYNC]
        host.write(0x20, [7])
        assert host.read(0x20, 1) == [7]


def test_an_absent_port_is_an_error(tmp_path):
    name = str(tmp_path / "ttyUSB9")
    with pytest.raises(LinkError) as caught:
        open_serial(name, 115200)
    assert str(caught.value) == (
        f"Serial port must exist, be accessible and take 115200 baud, not {name!r}: "
        f"No such file or directory"
    )


def test_a_port_that_is_no_serial_port_is_an_error(tmp_path):
    path = tmp_path / "file"
    path.write_text("")
    with pytest.raises(LinkError, match="Serial port must exist, be accessible and take 115200"):
        open_serial(str(path), 115200)


@pytest.mark.parametrize(
    ("address", "count"), [(0, 0), (-1, 1), ((1 << registers.ADDRESS_BITS) - 1, 2)]
)
def test_ranges_are_checked(host, address, count):
    message = (
        f"Access must be at least one word inside 23 bits of address, not {count} at {address:#x}"
    )
    with pytest.raises(ValueError) as caught:
        host.read(address, count)
    assert str(caught.value) == message
    with pytest.raises(ValueError) as caught:
        host.write(address, [0] * count)
    assert str(caught.value) == message


@pytest.mark.parametrize("word", [-1, 1 << 32])
def test_words_are_checked(host, word):
    with pytest.raises(ValueError) as caught:
        host.write(0x20, [0, word])
    assert str(caught.value) == f"Words must fit 32 bits, not {word:#x}"


def test_options_are_checked(device):
    port = SerialPort(device.port, 115200)
    with pytest.raises(ValueError) as caught:
        LinkTransport(port, timeout=0)
    assert str(caught.value) == "Link timeout must be positive, not 0"
    with pytest.raises(ValueError) as caught:
        LinkTransport(port, attempts=0)
    assert str(caught.value) == "Link attempts must be at least 1, not 0"
    port.close()


def test_the_parser_takes_bytes_one_by_one():
    parser = ResponseParser()
    answers = [
        link.response(1, Command.READ, Status.OK, WORDS[:3]),
        link.response(2, Command.WRITE, Status.BUSY, 9),
    ]
    found = []
    for byte in b"\x5a\x5a" + answers[0] + b"\x00" + answers[1]:
        parser.feed(bytes([byte]))
        if (response := parser.next()) is not None:
            found.append((response.sequence, response.status, response.count, response.words))
    assert found == [(1, Status.OK, 3, WORDS[:3]), (2, Status.BUSY, 9, [])]
    assert (parser.skipped, parser.pending) == (3, 0)


def test_a_false_header_does_not_swallow_the_answer_behind_it():
    """A sync byte in noise may announce up to 64 words; the answer behind it ends the wait."""
    parser = ResponseParser()
    parser.feed(bytes([0x5A, 1, Command.WRITE.value, 0, 5]))
    parser.feed(link.response(1, Command.READ, Status.OK, [4]))
    response = parser.next()
    assert response is not None
    assert response.words == [4]
