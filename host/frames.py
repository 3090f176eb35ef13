"""A frame on its way into an accelerator, as words, and what comes out of it."""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from isa.bits import WORD_BITS


@dataclass(frozen=True)
class Frame:
    """The result of one frame.

    ``top``: (class, logit), largest first, ties by the lower class. ``counters``: perf counters by
    lower-case register name, in cycles; all 0 if the transport cannot count.
    """

    logits: list[int]
    top: list[tuple[int, int]]
    counters: dict[str, int] = field(default_factory=dict)

    @property
    def cycles(self) -> int:
        return self.counters.get("cycles", 0)


def pack_frame(frame: npt.NDArray[np.uint8]) -> list[int]:
    """A frame, uint8 (H, W, C), as the words of the INPUT port; the last one filled with zeros."""
    raw = np.ascontiguousarray(frame, np.uint8).tobytes()
    return [int(word) for word in np.frombuffer(raw + bytes(-len(raw) % 4), "<u4")]


def sign_extended(word: int) -> int:
    """A 32-bit two's complement number."""
    return word - (word >> (WORD_BITS - 1) << WORD_BITS)
