"""Reads and writes the register map over a serial line, with the frames of :mod:`isa.link`.

Every request is answered, or repeated a few times and then reported: nothing here waits forever.
"""

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol

from isa import checked, link, registers
from isa.bits import WORD_BITS
from isa.link import Command, Status

RESPONSE_TIMEOUT = 0.5  # seconds, from a request's last byte on
STALL_TIMEOUT = 5.0  # seconds that a port may refuse words before that is an error
ATTEMPTS = 4
SILENCE = 2.5 * link.BYTE_TIMEOUT  # after this, the device's parser waits for a new request
BABBLE_TIMEOUT = 1.0  # seconds in which a line must fall silent

Clock = Callable[[], float]


class LinkError(RuntimeError):
    """A serial port that cannot be used, or a device behind it that does not answer properly."""


class BytePort(Protocol):
    """A byte stream in both directions. Errors are LinkErrors."""

    def read(self, count: int, timeout: float) -> bytes:
        """1 to `count` bytes, as soon as there are any, or none after `timeout` seconds."""

    def write(self, raw: bytes) -> None: ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class Response:
    """An answer; `words` is empty unless it carries them."""

    sequence: int
    command: Command
    status: Status
    count: int
    words: list[int]


class ResponseParser:
    """Finds whole, correct answers in a stream of bytes and skips whatever else there is."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self.skipped = 0  # bytes that belonged to no answer

    def clear(self) -> None:
        self._buffer.clear()
        self.skipped = 0

    def feed(self, raw: bytes) -> None:
        self._buffer += raw

    @property
    def pending(self) -> int:
        """Bytes that may be the beginning of an answer."""
        return len(self._buffer)

    def next(self) -> Response | None:
        """The next answer, or None until more bytes come."""
        while True:
            start = self._buffer.find(link.RESPONSE_SYNC)
            self._skip(len(self._buffer) if start < 0 else start)
            if len(self._buffer) < 1 + link.RESPONSE_BYTES:
                return None
            header = self._header()
            if header is None:
                self._skip(1)  # that was no sync byte
                continue
            words = 0 if header["command"] == Command.WRITE.value else header["count"]
            body_bytes = link.RESPONSE_BYTES + words * link.WORD_BYTES
            end = 1 + body_bytes + link.CRC_BYTES
            if len(self._buffer) < end:
                return None
            body = bytes(self._buffer[1 : 1 + body_bytes])
            if link.crc16(body) != bytes(self._buffer[1 + body_bytes : end]):
                self._skip(1)
                continue
            del self._buffer[:end]
            return Response(
                sequence=header["sequence"],
                command=Command(header["command"]),
                status=Status(header["status"]),
                count=header["count"],
                words=link.bytes_to_words(body[link.RESPONSE_BYTES :]),
            )

    def _header(self) -> dict[str, int] | None:
        raw = bytes(self._buffer[1 : 1 + link.RESPONSE_BYTES])
        header = checked.decode(link.RESPONSE, int.from_bytes(raw, "little"))
        plausible = (
            header["command"] in Command._value2member_map_
            and header["status"] in Status._value2member_map_
            and header["count"] <= link.MAX_WORDS
        )
        return header if plausible else None

    def _skip(self, count: int) -> None:
        del self._buffer[:count]
        self.skipped += count


class LinkTransport:
    """The register map behind a byte port.

    ``timeout``: seconds for the answer to one request; ``attempts``: how often one is sent;
    ``stall_timeout``: seconds without a single word taken after which a write fails. The first
    access, and the first after a failure, begins with the handshake of :meth:`synchronise`.
    After a LinkError of :meth:`write`, some of its words may have been written.
    """

    def __init__(
        self,
        port: BytePort,
        *,
        timeout: float = RESPONSE_TIMEOUT,
        attempts: int = ATTEMPTS,
        stall_timeout: float = STALL_TIMEOUT,
        clock: Clock = time.monotonic,
    ) -> None:
        if timeout <= 0:
            raise ValueError(f"Link timeout must be positive, not {timeout!r}")
        if attempts < 1:
            raise ValueError(f"Link attempts must be at least 1, not {attempts!r}")
        self._port = port
        self._timeout = timeout
        self._attempts = attempts
        self._stall_timeout = stall_timeout
        self._clock = clock
        self._parser = ResponseParser()
        self._sequence = 0
        self._synchronised = False
        self.retries = 0  # requests that had to be repeated, since the beginning

    def __enter__(self) -> "LinkTransport":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        self._port.close()

    def read(self, address: int, count: int) -> list[int]:
        """The words at ``count`` consecutive addresses."""
        self._check_range(address, count)
        self._begin()
        words: list[int] = []
        deadline = self._clock() + self._stall_timeout
        while len(words) < count:
            wanted = min(count - len(words), link.MAX_WORDS)
            response = self._request(Command.READ, address + len(words), wanted)
            words += response.words
            deadline = self._progress(response, wanted, deadline, f"{address:#x}", "give")
        return words

    def write(self, address: int, words: Sequence[int]) -> None:
        """Writes consecutive addresses, or pushes every word into a port."""
        port = address in registers.PORTS
        self._check_range(address, 1 if port and words else len(words))
        for word in words:
            if not 0 <= word < 1 << WORD_BITS:
                raise ValueError(f"Words must fit {WORD_BITS} bits, not {word:#x}")
        self._begin()
        done = 0
        deadline = self._clock() + self._stall_timeout
        while done < len(words):
            chunk = [int(word) for word in words[done : done + link.MAX_WORDS]]
            target = address if port else address + done
            response = self._request(Command.WRITE, target, chunk)
            done += response.count
            deadline = self._progress(response, len(chunk), deadline, f"{address:#x}", "take")

    def synchronise(self) -> None:
        """The handshake: lets the line fall silent and makes the device forget sequence numbers.

        Raises LinkError if no device answers, or one with another protocol.
        """
        deadline = self._clock() + BABBLE_TIMEOUT
        while self._port.read(1024, SILENCE):
            if self._clock() > deadline:
                raise LinkError(
                    f"Serial line must fall silent within {BABBLE_TIMEOUT:g} s, but bytes keep "
                    f"coming: check port and baud rate"
                )
        self._parser.clear()
        response = self._request(Command.SYNC, 0, 0)
        if response.words != [link.VERSION]:
            raise LinkError(
                f"Device must speak version {link.VERSION} of the link protocol, not "
                f"{response.words[0] if response.words else 'none'}: build its bitstream again"
            )
        self._synchronised = True

    # --- one request -----------------------------------------------------------------------------

    def _begin(self) -> None:
        if not self._synchronised:
            self.synchronise()

    def _check_range(self, address: int, count: int) -> None:
        if count < 1 or address < 0 or address + count > 1 << registers.ADDRESS_BITS:
            raise ValueError(
                f"Access must be at least one word inside {registers.ADDRESS_BITS} bits of "
                f"address, not {count} at {address:#x}"
            )

    def _request(self, command: Command, address: int, payload: list[int] | int) -> Response:
        """Sends a request until it is answered. Raises LinkError, and wants a new handshake."""
        self._sequence = (self._sequence + 1) & 0xFF
        frame = link.request(self._sequence, command, address, payload)
        trouble = ""
        try:
            for attempt in range(self._attempts):
                self.retries += attempt > 0
                self._port.write(frame)
                response, trouble = self._await(command)
                if response is not None:
                    break
            else:
                raise LinkError(trouble)
        except BaseException:
            self._synchronised = False
            raise
        if response.status is Status.BAD_COMMAND:
            raise LinkError(
                f"Device must know the command {command.name} at {address:#x}, but refuses it: "
                f"build its bitstream again"
            )
        return response

    def _await(self, command: Command) -> tuple[Response | None, str]:
        """The answer to the last request; or None, which asks to repeat it, and why."""
        deadline = self._clock() + self._timeout
        received = 0
        while True:
            while (response := self._parser.next()) is not None:
                if response.status is Status.BAD_CRC:
                    return None, (
                        "Device must receive requests without errors, but every one was corrupt: "
                        "check cable and baud rate"
                    )
                if (response.sequence, response.command) == (self._sequence, command):
                    return response, ""
            left = deadline - self._clock()
            if left <= 0:
                break
            raw = self._port.read(1024, left)
            received += len(raw)
            self._parser.feed(raw)
        self._parser.clear()
        found = f"{received} bytes that are no answer" if received else "stay silent"
        return None, (
            f"Device must answer within {self._timeout:g} s, not {'send ' if received else ''}"
            f"{found}: check cable, port, baud rate and bitstream"
        )

    def _progress(
        self, response: Response, wanted: int, deadline: float, where: str, verb: str
    ) -> float:
        """The next deadline. Raises LinkError when a stalled bus has used up this one."""
        if response.count > wanted:
            raise LinkError(f"Device must {verb} {wanted} words at {where}, not {response.count}")
        now = self._clock()
        if response.count:
            return now + self._stall_timeout
        if now > deadline:
            raise LinkError(
                f"Device must {verb} words at {where} within {self._stall_timeout:g} s, but is "
                f"busy: abort, and load the image again"
            )
        return deadline


# --- serial ports --------------------------------------------------------------------------------


class SerialPort:
    """A pyserial port as a BytePort. Raises LinkError if it cannot be opened."""

    def __init__(self, name: str, baud: int) -> None:
        import serial

        self._error: type[Exception] = serial.SerialException
        self._name = name
        try:
            self._serial = serial.Serial(name, baud, write_timeout=1.0, exclusive=True)
        except (serial.SerialException, OSError, ValueError) as error:
            raise LinkError(
                f"Serial port must exist, be accessible and take {baud} baud, not {name!r}: "
                f"{_reason(error)}"
            ) from error
        try:
            self._serial.set_low_latency_mode(True)  # an FTDI chip holds bytes back for 16 ms
        except (AttributeError, OSError, ValueError, NotImplementedError):
            pass  # no such thing here: slower, not wrong

    def read(self, count: int, timeout: float) -> bytes:
        try:
            self._serial.timeout = timeout
            first: bytes = self._serial.read(1)
            more = min(self._serial.in_waiting, count - 1) if first else 0
            return first + (self._serial.read(more) if more else b"")
        except (self._error, OSError, TypeError) as error:
            raise self._lost(error) from error

    def write(self, raw: bytes) -> None:
        try:
            self._serial.write(raw)
        except (self._error, OSError) as error:
            raise self._lost(error) from error

    def close(self) -> None:
        self._serial.close()

    def _lost(self, error: Exception) -> LinkError:
        return LinkError(
            f"Serial port must stay usable, but {self._name!r} failed ({_reason(error)}): "
            f"check the cable"
        )


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)
    return " ".join(str(error).split())


def open_serial(port: str, baud: int) -> LinkTransport:
    """A transport over a serial port, after the handshake. Close it, or use it in a `with`."""
    transport = LinkTransport(SerialPort(port, baud))
    try:
        transport.synchronise()
    except BaseException:
        transport.close()
        raise
    return transport
