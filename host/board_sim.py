"""What a board with an SDRAM would do, from a simulation: its own speed, and that of the way to it.

The accelerator's part is simulated: frames that all lie in the SDRAM, one started when the one
before it is done. The serial line's part is counted: the bytes that the driver sends and gets, with
those of the protocol, ten bits each, at the board's baud rate. What computer and USB take is not in
it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from host.device import Device
from host.errors import UserError
from host.golden_transport import GoldenTransport
from host.images import Pixels
from isa import link
from isa.geometry import Geometry
from isa.image import Image
from isa.link import Command, Status
from isa.registers import Register, Source

FRAMES = 4  # the third follows one in steady state, and is in it
BITS_PER_BYTE = 10  # with start and stop bit


def line_seconds(count: int, baud: int) -> float:
    """How long so many bytes take."""
    return count * BITS_PER_BYTE / baud


@dataclass(frozen=True)
class BoardSim:
    """``cycles``: of the core, from the start of a frame to that of the next one, in steady state.
    ``batch_bytes``: over the serial line for each frame that lies in the SDRAM; ``frame_bytes``:
    for each one whose pixels come that way.
    """

    cycles: int
    clock_mhz: float
    baud: int
    batch_bytes: int
    frame_bytes: int

    @property
    def kernel_fps(self) -> float:
        return self.clock_mhz * 1e6 / self.cycles

    @property
    def batch_fps(self) -> float:
        """The line is silent while the core works: it cannot start a frame before the last ends."""
        return 1 / (1 / self.kernel_fps + line_seconds(self.batch_bytes, self.baud))

    @property
    def end_to_end_fps(self) -> float:
        """The next frame's pixels come while one is computed."""
        return min(self.kernel_fps, 1 / line_seconds(self.frame_bytes, self.baud))

    def to_json(self) -> dict[str, Any]:
        return {
            "cycles_start_to_start": self.cycles,
            "clock_mhz": round(self.clock_mhz, 2),
            "kernel_fps": round(self.kernel_fps, 2),
            "uart_baud": self.baud,
            "batch_bytes_per_frame": self.batch_bytes,
            "batch_fps": round(self.batch_fps, 2),
            "bytes_per_frame": self.frame_bytes,
            "end_to_end_fps": round(self.end_to_end_fps, 3),
        }


class CountedTransport:
    """Counts the bytes on the serial line of what passes through it to another transport."""

    def __init__(self, transport: GoldenTransport) -> None:
        self._transport = transport
        self.pixels = 0  # bytes for the INPUT port
        self.others = 0

    def read(self, address: int, count: int) -> list[int]:
        self.others += self._bytes(Command.READ, count)
        return self._transport.read(address, count)

    def write(self, address: int, words: Sequence[int]) -> None:
        if address == Register.INPUT:
            self.pixels += self._bytes(Command.WRITE, len(words))
        else:
            self.others += self._bytes(Command.WRITE, len(words))
        self._transport.write(address, words)

    @staticmethod
    def _bytes(command: Command, words: int) -> int:
        total = 0
        for start in range(0, words, link.MAX_WORDS):
            count = min(words - start, link.MAX_WORDS)
            there: list[int] | int = [0] * count if command is Command.WRITE else count
            back: list[int] | int = count if command is Command.WRITE else [0] * count
            total += len(link.request(0, command, 0, there))
            total += len(link.response(0, command, Status.OK, back))
        return total


def line_bytes(geometry: Geometry, image: Image) -> tuple[int, int]:
    """Bytes on the line for a frame in the SDRAM, of which the largest logits are asked; and for
    one that is sent, of which all are."""

    device, transport = _counted(geometry, image, Source.SDRAM)
    frame = np.zeros(image.info.input_shape, np.uint8)
    found = []
    for logits in (False, True):
        transport.pixels = transport.others = 0
        device.classify_batch([frame], logits=logits)
        found.append(transport.others)
    return found[0], found[1] + transport.pixels


def end_to_end(geometry: Geometry, image: Image, kernel_fps: float) -> dict[str, Any]:
    """Bytes on the line for a frame that is sent and whose logits are all asked for, and frames a
    second then: with the image in SDRAM the next one comes while one is computed."""
    from hw.boards import BOARDS

    baud = BOARDS[geometry.name].uart_baud
    if geometry.source is Source.SDRAM:
        _, count = line_bytes(geometry, image)
        seconds = max(line_seconds(count, baud), 1 / kernel_fps)
    else:
        device, transport = _counted(geometry, image, geometry.source)
        transport.pixels = transport.others = 0
        device.classify(np.zeros(image.info.input_shape, np.uint8))
        count = transport.pixels + transport.others
        seconds = line_seconds(count, baud) + 1 / kernel_fps
    return {"uart_baud": baud, "bytes_per_frame": count, "fps": round(1 / seconds, 2)}


def _counted(geometry: Geometry, image: Image, source: Source) -> tuple[Device, CountedTransport]:
    """A device that has the image and computes nothing, and what counts its bytes."""

    def no_logits(_: Geometry, image: Image) -> Callable[[Pixels], npt.NDArray[np.int64]]:
        return lambda frame: np.zeros(image.info.classes, np.int64)

    transport = CountedTransport(GoldenTransport(geometry, make_run=no_logits))
    device = Device(transport, expected=geometry, source=source)
    device.load_image(image)
    return device, transport


def board_sim(
    geometry: Geometry,
    image: Image,
    pixels: Pixels,
    *,
    progress: Callable[[int], None] | None = None,
) -> BoardSim:
    """Simulates ``pixels``, FRAMES images. Raises UserError for a board without an SDRAM, and where
    the gateware does not do what the golden model does."""
    from hw.boards import BOARDS
    from sim.runner import simulate

    if geometry.name not in BOARDS or not geometry.sdram_bytes:
        raise UserError(f"Board must be one with an SDRAM, not {geometry.name}")
    result = simulate(geometry, image, pixels, source=Source.SDRAM, queued=True, progress=progress)
    if result.mismatches:
        raise UserError(f"Gateware must equal the golden model, but: {result.first}")
    batch, single = line_bytes(geometry, image)
    board = BOARDS[geometry.name]
    return BoardSim(
        cycles=result.starts[3] - result.starts[2],
        clock_mhz=board.clocks.output_mhz,
        baud=board.uart_baud,
        batch_bytes=batch,
        frame_bytes=single,
    )
