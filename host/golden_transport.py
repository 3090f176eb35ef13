"""The register map in software: what a board answers, computed by the golden model.

So one driver is tested, and used, without hardware. Timing does not exist here: a command has been
executed when its write returns, the perf counters read 0, and a frame that still lacks words when
somebody looks at the state has met the watchdog.
"""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from isa import checked
from isa.bits import WORD_BITS
from isa.fixed import LOGIT_BITS, limits
from isa.geometry import Geometry
from isa.image import (
    HEADER,
    HEADER_WORDS,
    MAGIC,
    VERSION,
    Image,
    ImageError,
    crc32,
    parse,
    words_to_bytes,
)
from isa.registers import (
    ADDRESS_BITS,
    CONTROL,
    MEMORY,
    NO_CLASS,
    ErrorCode,
    Register,
    Source,
    State,
)

Run = Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.int64]]
"""Frame, uint8 (H, W, C) -> logits (classes,)."""

_WRITABLE = (Register.WATCHDOG, Register.SOURCE)
_WORD_MASK = (1 << WORD_BITS) - 1


def golden_run(geometry: Geometry, image: Image) -> Run:
    """The golden model of ``image``."""
    from sim.golden import Golden

    golden = Golden(geometry, image)
    return lambda frame: golden.run_batch(frame[None], threads=1)[0]


class GoldenTransport:
    """A device without hardware: a :class:`host.register_access.Transport`.

    ``make_run`` turns a checked image into the function that computes its frames.
    """

    def __init__(
        self, geometry: Geometry, *, make_run: Callable[[Geometry, Image], Run] = golden_run
    ) -> None:
        self._geometry = geometry
        self._make_run = make_run
        self._memories = {
            Source.RAM: np.zeros(geometry.image_words, np.uint32),
            Source.SDRAM: np.zeros(geometry.sdram_image_words, np.uint32),
        }
        sdram = int(bool(geometry.sdram_bytes))
        self._registers: dict[int, int] = {
            **dict.fromkeys(Register, 0),
            Register.ID: MAGIC,
            Register.VERSION: VERSION,
            Register.GEOMETRY: geometry.digest,
            Register.WATCHDOG: (1 << 24) - 1,
            Register.MEMORY: checked.encode(
                MEMORY,
                dict.fromkeys(MEMORY.members, 0) | dict.fromkeys(("present", "ready"), sdram),
            ),
        }
        self._logits = [0] * geometry.classes
        self._input: list[int] = []
        self._stream: list[int] = []
        self._image: Image | None = None
        self._run: Run | None = None
        self._state = State.IDLE
        self._error = ErrorCode.NONE

    # --- the bus ----------------------------------------------------------------------------

    def read(self, address: int, count: int) -> list[int]:
        self._check_range(address, count)
        if self._state in (State.CHECKING, State.RUNNING):
            self._fail(ErrorCode.WATCHDOG)
        return [self._read_word(address + offset) for offset in range(count)]

    def write(self, address: int, words: Sequence[int]) -> None:
        if bad := [word for word in words if not 0 <= word <= _WORD_MASK]:
            raise ValueError(f"Words must be unsigned numbers of 32 bits, not {bad[0]!r}")
        if address in (Register.INPUT, Register.STREAM):
            # What is left of a frame that has failed must not reach the next one.
            if self._state is not State.ERROR:
                queue = self._input if address == Register.INPUT else self._stream
                queue += words
        else:
            self._check_range(address, len(words))
            for offset, word in enumerate(words):
                self._write_word(address + offset, word)
        self._advance()

    def _check_range(self, address: int, count: int) -> None:
        if count < 1 or address < 0 or address + count > 1 << ADDRESS_BITS:
            raise ValueError(
                f"Access must be at least one word inside {ADDRESS_BITS} bits of address, not "
                f"{count} at {address:#x}"
            )

    def _read_word(self, address: int) -> int:
        if address == Register.STATUS:
            return self._state.value
        if address == Register.ERROR:
            return self._error.value
        done = self._state is State.DONE
        if Register.LOGITS <= address < Register.LOGITS + len(self._logits):
            return self._logits[address - Register.LOGITS] & _WORD_MASK if done else 0
        top_k = self._geometry.top_k
        for window, part in ((Register.TOP_CLASS, 0), (Register.TOP_LOGIT, 1)):
            if window <= address < window + top_k:
                return self._top(address - window)[part] & _WORD_MASK if done else 0
        return self._registers.get(address, 0)

    def _write_word(self, address: int, word: int) -> None:
        if address == Register.CONTROL:
            self._control(checked.decode(CONTROL, word & ((1 << CONTROL.size) - 1)))
        elif address in _WRITABLE:
            self._registers[Register(address)] = word
            if address == Register.SOURCE:
                self._forget()
        elif address >= Register.IMAGE:
            if address - Register.IMAGE < len(self._memory):
                self._memory[address - Register.IMAGE] = word
            self._forget()

    @property
    def _memory(self) -> npt.NDArray[np.uint32]:
        """What SOURCE names; empty with the link."""
        source = Source(self._registers[Register.SOURCE])
        return self._memories.get(source, np.zeros(0, np.uint32))

    def _forget(self) -> None:
        """What was checked is no longer what is there."""
        if self._state in (State.READY, State.DONE):
            self._state = State.IDLE

    def _top(self, rank: int) -> tuple[int, int]:
        assert self._image is not None
        logits = self._logits[: self._image.info.classes]
        if rank >= len(logits):
            return NO_CLASS, limits(LOGIT_BITS)[0]
        order = sorted(range(len(logits)), key=lambda c: (-logits[c], c))
        return order[rank], logits[order[rank]]

    # --- commands ---------------------------------------------------------------------------

    def _control(self, bits: dict[str, int]) -> None:
        if bits["abort"]:
            self._input, self._stream = [], []
            self._state, self._error, self._run = State.IDLE, ErrorCode.NONE, None
        if bits["check"] and not self._link and not len(self._memory):
            self._fail(ErrorCode.NO_MEMORY)
        elif bits["check"]:
            self._state, self._error, self._run = State.CHECKING, ErrorCode.NONE, None
        if bits["start"]:
            if self._state in (State.READY, State.DONE):
                self._state, self._error = State.RUNNING, ErrorCode.NONE
            else:
                self._fail(ErrorCode.NOT_READY)

    def _fail(self, code: ErrorCode) -> None:
        """What `abort` does: everything but control is reset."""
        self._state, self._error, self._run = State.ERROR, code, None
        self._input, self._stream = [], []

    def _advance(self) -> None:
        """Goes on with what waited for words."""
        if self._state is State.CHECKING and (size := self._image_size()) is not None:
            words = self._words(size)
            if self._link:
                self._stream = self._stream[size:]
            self._check(words)
        if self._state is State.RUNNING:
            self._frame()

    @property
    def _link(self) -> bool:
        return self._registers[Register.SOURCE] == Source.LINK.value

    def _words(self, count: int) -> list[int]:
        """The first words of the image, or as many as there are."""
        return self._stream[:count] if self._link else self._memory[:count].tolist()

    def _image_size(self) -> int | None:
        """Words of the image, or None while a link has not sent all of them."""
        words = self._words(HEADER_WORDS)
        if len(words) < HEADER_WORDS:
            return None
        header = checked.from_words(HEADER, words)
        if header["crc32"] != crc32(words[: HEADER_WORDS - 1]):
            return HEADER_WORDS
        size = HEADER_WORDS + header["frame_words"]
        return None if self._link and size > len(self._stream) else size

    def _check(self, words: list[int]) -> None:
        try:
            self._image = parse(words_to_bytes(words), self._geometry)
        except ImageError as error:
            self._fail(error.code)
            return
        self._registers[Register.CLASSES] = self._image.info.classes
        self._registers[Register.IMAGE_CRC] = self._image.crc32
        self._run = self._make_run(self._geometry, self._image)
        self._state = State.READY

    def _frame(self) -> None:
        assert self._image is not None
        info, link = self._image.info, self._link
        frame_words = len(self._image.frame) if link else 0
        pixels = -(-info.input_bytes // 4)
        if len(self._input) < pixels or len(self._stream) < frame_words:
            return
        if link and self._stream[:frame_words] != self._image.frame:
            self._fail(ErrorCode.FRAME_CRC)
            return
        held = [] if link else self._words(len(self._image.words))[HEADER_WORDS:]
        if not link and held != self._image.frame:
            # The gateware streams its memory anew for each frame, and so meets what has decayed.
            header = self._image.words[:HEADER_WORDS]
            try:
                parse(words_to_bytes(header + held), self._geometry)
            except ImageError as error:
                self._fail(error.code)
                return
        assert self._run is not None
        raw = words_to_bytes(self._input[:pixels])[: info.input_bytes]
        self._input, self._stream = self._input[pixels:], self._stream[frame_words:]
        frame = np.frombuffer(raw, np.uint8).reshape(info.input_shape)
        self._logits[: info.classes] = [int(value) for value in self._run(frame)]
        self._registers[Register.FRAMES] = self._registers[Register.FRAMES] + 1 & _WORD_MASK
        self._state = State.DONE
