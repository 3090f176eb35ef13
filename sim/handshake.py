"""What both simulators share about valid/ready streams: stall patterns and the withdraw rule.

A stall pattern is an endless iterator of booleans, one per clock cycle, true where an end holds
back. A payload that is offered (valid) stays, unchanged, until the cycle in which ready is set too.
"""

import random
from collections.abc import Iterator

#: Share of the cycles in which an endpoint holds back. Every stream test runs with each of them.
STALLS: dict[str, float] = {"none": 0.0, "light": 0.1, "heavy": 0.7}


class StreamError(AssertionError):
    """A stream broke the handshake."""


def stalls(kind: str, seed: int = 0) -> Iterator[bool]:
    """An endless stall pattern, the same for the same `kind` (a key of `STALLS`) and `seed`.

    Give the two ends of a stream different seeds, or they hold back in the same cycles.
    """
    if kind not in STALLS:
        raise ValueError(f"Stall kind must be one of {', '.join(STALLS)}, not {kind!r}")
    return _pattern(STALLS[kind], random.Random(f"{kind}:{seed}"))


def _pattern(share: float, generator: random.Random) -> Iterator[bool]:
    while True:
        yield generator.random() < share


class WithdrawChecker:
    """Checks one stream, one call per clock cycle with the values that the clock edge sees.

    Raises `StreamError`, naming `name`, where an offered payload changed or went untaken.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._cycle = 0
        self._pending: int | None = None

    def observe(self, *, valid: int, ready: int, payload: int) -> None:
        pending, self._pending = self._pending, None
        if pending is not None and not valid:
            raise StreamError(
                f"Stream {self.name} withdrew payload {pending:#x} before it was taken "
                f"(observed cycle {self._cycle})"
            )
        if pending is not None and payload != pending:
            raise StreamError(
                f"Stream {self.name} changed payload {pending:#x} to {payload:#x} "
                f"before it was taken (observed cycle {self._cycle})"
            )
        if valid and not ready:
            self._pending = payload
        self._cycle += 1
