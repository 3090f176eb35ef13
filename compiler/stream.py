"""When the image's words arrive: they come at a constant rate, and run ahead of the layers.

How far ahead, the buffers say: those behind the loader (descriptor queue, parameter banks, weight
ring), and the queue in front of it, which fills while the loader has to wait.
"""

from collections import deque
from collections.abc import Sequence

from isa.bits import WORD_BITS
from isa.geometry import Geometry
from isa.image import LAYER_WORDS

PARAMETER_BANKS = 2  # tiles whose parameters are held at once


class Stream:
    """The stream of one frame. ``rate``: words that come in a cycle; the loader takes one a cycle
    at most. ``queue``: words that wait in front of it. Times are in cycles."""

    def __init__(self, geometry: Geometry, *, start: float, rate: float, queue: int) -> None:
        self.now: float = start  # the last word has been taken
        self._rate, self._queue = rate, queue
        self._waiting: float = 0  # words in the queue
        self._ring_words = geometry.ring_words
        self._words_per_cycle = geometry.port_bits // WORD_BITS
        self._held: deque[tuple[int, float]] = deque()  # words and time of release, oldest first
        self._used = 0
        self._banks: deque[float] = deque([0] * PARAMETER_BANKS)  # when each becomes free

    def copy(self) -> "Stream":
        other = object.__new__(type(self))
        other.__dict__ = dict(self.__dict__)
        other._held, other._banks = self._held.copy(), self._banks.copy()
        return other

    def take(self, words: int) -> float:
        """So many words; the time of the last."""
        drain = 1 - self._rate  # of the queue, in a cycle
        if drain * words <= self._waiting:
            self.now += words
            self._waiting -= drain * words
        else:
            self.now += (words - self._waiting) / self._rate
            self._waiting = 0
        return self.now

    def yield_to(self, words: int) -> None:
        """So many words of something else come out of the memory first."""
        self.now += words / self._rate

    def wait(self, until: float) -> None:
        """The loader takes nothing before then."""
        if until > self.now:
            arrived = (until - self.now) * self._rate
            self._waiting = min(self._queue, self._waiting + arrived)
            self.now = until

    def header(self) -> None:
        """A packet's header: a word, and a cycle in which it is judged."""
        self.take(1)
        self.wait(self.now + 1)

    def layer(self, not_before: float) -> float:
        """A LAYER packet, accepted from ``not_before`` on; the time it is complete."""
        self.wait(not_before)
        self.header()
        return self.take(LAYER_WORDS)

    def parameters(self, words: int) -> float:
        """A PARAMS packet, into the bank that the tile before the last one had."""
        self.wait(self._banks.popleft())
        self.header()
        return self.take(words)

    def weights(self, sets: int, words: int) -> list[float]:
        """A WEIGHTS packet of sets of so many words of the ring: when each of them is there."""
        self.header()
        arrivals = []
        for _ in range(sets):
            while self._used + words > self._ring_words:
                freed, time = self._held.popleft()
                self._used -= freed
                self.wait(time)
            self._used += words
            arrivals.append(self.take(words * self._words_per_cycle))
        return arrivals

    def release(self, words: int, times: Sequence[float], end: float) -> None:
        """The tile's sets, of so many words, are in the registers at these times, for the last
        time; its parameters are done with at ``end``."""
        self._held.extend((words, time) for time in times)
        self._banks.append(end)
