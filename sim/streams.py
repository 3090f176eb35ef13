"""The two ends of a stream, and a monitor, for cocotb.

They fit a `stream.Signature` port with the flat names `<name>__payload`, `<name>__valid` and
`<name>__ready`; a stream that is always valid or always ready lacks that signal. Payloads are ints;
gateware's layouts encode and decode them.

Everything happens at the falling edge of the clock: inputs are driven there, and outputs are read
once they have settled, which are the values that the next rising edge sees. So the order in which a
simulator runs its callbacks at the rising edge does not matter, nor who makes the clock.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import cocotb
from cocotb.task import Task
from cocotb.triggers import FallingEdge, ReadOnly

from sim.handshake import WithdrawChecker
from sim.handshake import stalls as stall_pattern


def stream_ports(name: str) -> list[str]:
    """The flat names of a stream's three signals."""
    return [f"{name}__payload", f"{name}__valid", f"{name}__ready"]


class _Pins:
    def __init__(self, dut: Any, name: str) -> None:
        payload, valid, ready = stream_ports(name)
        self.name = name
        self.payload = getattr(dut, payload)
        self.valid = getattr(dut, valid, None)
        self.ready = getattr(dut, ready, None)

    def sample(self) -> tuple[int, int, int]:
        """Valid, ready and payload (0 if not valid, when it may be unknown)."""
        valid = 1 if self.valid is None else int(self.valid.value)
        ready = 1 if self.ready is None else int(self.ready.value)
        return valid, ready, int(self.payload.value) if valid else 0


class StreamSource:
    """Drives a stream into the design. `stalls` is a key of `STALLS` or a pattern of one's own."""

    def __init__(
        self, dut: Any, name: str, *, stalls: str | Iterator[bool] = "none", seed: int = 1
    ) -> None:
        self._clk = dut.clk
        self._pins = _Pins(dut, name)
        self._stalls = stall_pattern(stalls, seed) if isinstance(stalls, str) else stalls
        if self._pins.valid is not None:
            self._pins.valid.value = 0
        self._pins.payload.value = 0

    async def send(self, items: Iterable[int]) -> None:
        """Send every item; returns after the falling edge that follows the last transfer.

        While it stalls the payload is scrambled, so that a design that ignores valid is caught.
        """
        pins = self._pins
        mask = (1 << len(pins.payload)) - 1
        for item in items:
            while pins.valid is not None and next(self._stalls):
                await FallingEdge(self._clk)
                pins.valid.value = 0
                pins.payload.value = ~item & mask
            await FallingEdge(self._clk)
            pins.payload.value = item
            if pins.valid is not None:
                pins.valid.value = 1
            await ReadOnly()
            while not pins.sample()[1]:
                await FallingEdge(self._clk)
                await ReadOnly()
        await FallingEdge(self._clk)
        if pins.valid is not None:
            pins.valid.value = 0


class StreamSink:
    """Takes a stream from the design, and checks that no payload changes or goes before that.

    Only items that `receive` asks for are taken; after it, ready is low.
    """

    def __init__(
        self, dut: Any, name: str, *, stalls: str | Iterator[bool] = "none", seed: int = 2
    ) -> None:
        self._clk = dut.clk
        self._pins = _Pins(dut, name)
        self._stalls = stall_pattern(stalls, seed) if isinstance(stalls, str) else stalls
        self._checker = WithdrawChecker(name)
        if self._pins.ready is not None:
            self._pins.ready.value = 0

    async def receive(self, count: int) -> list[int]:
        """Take `count` items; raises `StreamError` if the design breaks the handshake."""
        pins, items = self._pins, list[int]()
        while len(items) < count:
            await FallingEdge(self._clk)
            if pins.ready is not None:
                pins.ready.value = int(not next(self._stalls))
            await ReadOnly()
            valid, ready, payload = pins.sample()
            self._checker.observe(valid=valid, ready=ready, payload=payload)
            if valid and ready:
                items.append(payload)
        await FallingEdge(self._clk)
        if pins.ready is not None:
            pins.ready.value = 0
        return items


class StreamMonitor:
    """Watches a stream, between any two ends: collects `items`, and checks the handshake.

    A fault ends the cocotb test.
    """

    def __init__(self, dut: Any, name: str) -> None:
        self.items: list[int] = []
        self._clk = dut.clk
        self._pins = _Pins(dut, name)
        self._checker = WithdrawChecker(name)
        self._task: Task[None] = cocotb.start_soon(self._watch())

    def stop(self) -> None:
        self._task.cancel()

    async def _watch(self) -> None:
        while True:
            await FallingEdge(self._clk)
            await ReadOnly()
            valid, ready, payload = self._pins.sample()
            self._checker.observe(valid=valid, ready=ready, payload=payload)
            if valid and ready:
                self.items.append(payload)
