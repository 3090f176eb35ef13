"""Access to an accelerator's registers, over any transport: commands, windows, ports and waits.

Every wait has a deadline, and ends early with the error that the device reports.
"""

import time
from collections.abc import Callable, Sequence
from typing import Protocol

from host.device_errors import EXPLANATIONS, DeviceError
from isa import checked
from isa.registers import CONTROL, MEMORY, ErrorCode, Register, State

CHUNK_WORDS = 1024  # written at once, so that progress can be shown and Ctrl-C is answered
# From the first question; the test of 32 MiB takes half a second, the longest image in flash 3.4 s.
MEMORY_TIMEOUT = 10.0
POLL_SECONDS = 0.0005


class Transport(Protocol):
    """Access to the register map of :mod:`isa.registers`, by word address.

    Addresses increment, except in the port windows. Both methods either do all that was asked or
    raise an OSError or RuntimeError whose message is meant for the user; neither may hang.
    A transport may also have ``wait(timeout) -> None``, which returns when the state has perhaps
    changed, or after ``timeout`` seconds.
    """

    def read(self, address: int, count: int) -> list[int]: ...

    def write(self, address: int, words: Sequence[int]) -> None: ...


class RegisterAccess:
    """The register map behind a transport, whose errors are raised as they are.

    ``clock`` and ``sleep`` are time.monotonic's and time.sleep's stand-ins.
    """

    def __init__(
        self,
        transport: Transport,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._transport = transport
        self._clock = clock
        self._sleep = sleep

    def read(self, address: int) -> int:
        return self._transport.read(address, 1)[0]

    def read_window(self, address: int, count: int) -> list[int]:
        """The words at ``count`` addresses from ``address`` on."""
        return self._transport.read(address, count)

    def write(self, address: int, word: int) -> None:
        self._transport.write(address, [word])

    def write_window(
        self,
        address: int,
        words: Sequence[int],
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        """Writes to addresses from ``address`` on; calls ``progress(done, total)`` with words."""
        for start in range(0, len(words), CHUNK_WORDS):
            self._transport.write(address + start, words[start : start + CHUNK_WORDS])
            if progress is not None:
                progress(min(start + CHUNK_WORDS, len(words)), len(words))

    def write_port(self, address: int, words: Sequence[int]) -> None:
        """Writes all words to the queue at ``address``."""
        for start in range(0, len(words), CHUNK_WORDS):
            self._transport.write(address, words[start : start + CHUNK_WORDS])

    def command(self, *names: str) -> None:
        """Sets these bits of CONTROL, in one write."""
        bits = dict.fromkeys(CONTROL.members, 0) | dict.fromkeys(names, 1)
        self.write(Register.CONTROL, checked.encode(CONTROL, bits))

    def await_state(self, wanted: State, timeout: float, what: str) -> None:
        """Waits until the device has done ``what``; DeviceError for ERROR or a time-out."""
        deadline = self._clock() + timeout
        wait = getattr(self._transport, "wait", None)
        while True:
            raw = self.read(Register.STATUS)
            state = State(raw) if raw in State._value2member_map_ else None
            if state is wanted:
                return
            if state is State.ERROR:
                raise self._reported()
            left = deadline - self._clock()
            if left <= 0:
                name = state.name if state is not None else f"unknown state {raw}"
                raise DeviceError(f"Device must {what} within {timeout:g} s, but is still {name}")
            if wait is not None:
                wait(left)
            else:
                self._sleep(POLL_SECONDS)

    def _reported(self) -> DeviceError:
        raw = self.read(Register.ERROR)
        if raw not in ErrorCode._value2member_map_:
            return DeviceError(f"Device reports an error: unknown code {raw}")
        code = ErrorCode(raw)
        return DeviceError(f"Device reports an error: {EXPLANATIONS[code]} ({code.name})", code)

    def await_memory(self) -> None:
        """Waits until the SDRAM has been tested, and has what is in the flash: that may be the
        image. Raises DeviceError if there is no good one."""
        deadline = self._clock() + MEMORY_TIMEOUT
        while True:
            memory = checked.decode(MEMORY, self.read(Register.MEMORY))
            if not memory["present"]:
                raise DeviceError("Device must have an SDRAM to keep its image there: it has none")
            if memory["ready"] and not memory["copying"]:
                break
            if self._clock() >= deadline:
                done = "copied its flash" if memory["ready"] else "tested its SDRAM"
                raise DeviceError(
                    f"Device must have {done} within {MEMORY_TIMEOUT:g} s of its start"
                )
            self._sleep(POLL_SECONDS)
        if memory["fault"]:
            raise DeviceError(
                f"Device must have an SDRAM that keeps what is written: the 16 bytes at "
                f"{memory['fault_address'] << 4:#x} did not"
            )
