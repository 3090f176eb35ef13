"""What surrounds a simulated core: a host with frames, a memory, a flash; and how they behave."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hw.memory_bus import BURST_WORDS
from isa.geometry import Geometry
from isa.image import Image
from isa.registers import Source
from sim.core_build import TEST_BURSTS, core_ps
from sim.handshake import STALLS
from sim.session import Job

RESULT, TRACE, PROGRESS = "result.json", "trace.txt", "cycles.txt"

#: How often the memory's clock stands still, in 1/65536 for each of its cycles, by kind of stalls:
#: an eleventh of the time, and two thirds of it.
PAUSES = {"none": 0, "light": 40, "heavy": 800}


@dataclass(frozen=True)
class Stalls:
    """How the core's surroundings behave: idle gaps of a kind of `sim.handshake`, seeded, between
    bus words, and a memory that stands still as often; ``late_input`` starts every frame before its
    input arrives."""

    kind: str = "none"
    seed: int = 0
    late_input: bool = False


@dataclass(frozen=True)
class Flash:
    """What is in the flash when the simulation begins. The host waits for what comes of that, and
    loads its own image only where it is not READY; or it begins ``host_after`` cycles, and loads.
    """

    content: bytes
    host_after: int | None = None


@dataclass(frozen=True)
class Surroundings:
    """All of them. ``source``: where the image is. ``overlap``: each frame's stem is computed while
    the frame before it is. ``queued``: all frames wait in the SDRAM before the first is started.
    ``faults``: plus-args of `sim/models/sdram.v`, by name, with their values.
    """

    source: Source
    overlap: bool = False
    queued: bool = False
    stalls: Stalls = Stalls()
    flash: Flash | None = None
    faults: Mapping[str, int | str] = field(default_factory=dict)

    def prepare(
        self, folder: Path, geometry: Geometry, image: Image, frames: npt.NDArray[np.uint8]
    ) -> dict[str, object]:
        """Writes all files that a simulation reads, and returns its plus-args by name.

        The result will be in ``folder / RESULT``, the trace in ``folder / TRACE``.
        """
        stalls, flash = self.stalls, self.flash
        input_room = geometry.sdram_frame_bytes or geometry.input_bytes
        raw = frames.reshape(len(frames), -1)
        pixels = np.pad(raw, ((0, 0), (0, -raw.shape[1] % 4))).view("<u4")
        words = np.array(image.words, "<u4")
        job = Job(
            result=str(folder / RESULT),
            image_words=len(words),
            frames=len(pixels),
            frame_words=pixels.shape[1],
            load_words=0 if self.source is Source.LINK else len(words),
            classes=image.info.classes,
            top_k=geometry.top_k,
            source=self.source.name,
            stalls=stalls.kind,
            seed=stalls.seed,
            # A frame for which there is no room cannot be there before it is started.
            late_input=stalls.late_input or image.info.input_bytes > input_room,
            overlap=self.overlap,
            queued=self.queued,
            first_words=image.first_layer_words,
            startup=flash is not None and flash.host_after is None,
            idle=(flash and flash.host_after) or 0,
            core_ps=core_ps(geometry),
        )
        (folder / "bus.bin").write_bytes(
            np.concatenate([words, pixels.ravel()]).astype(">u4").tobytes()
        )
        plusargs: dict[str, object] = {
            "job": folder / "job.json",
            "trace": folder / TRACE,
            "progress": folder / PROGRESS,
            "feed": folder / "bus.bin",
            "feed_gaps": round(256 * STALLS[stalls.kind]),
            "feed_seed": stalls.seed,
            "pauses": PAUSES[stalls.kind],
            "pause_seed": stalls.seed,
            **self.faults,
        }
        if flash is not None:
            plusargs["flash"] = folder / "flash.bin"
            (folder / "flash.bin").write_bytes(flash.content)
        elif self.source is Source.SDRAM:
            # The image would take minutes over the bus. What the memory test overwrites goes there.
            plusargs["sdram"] = folder / "sdram.hex"
            (folder / "sdram.hex").write_bytes(beats_as_hex(words))
            job = dataclasses.replace(job, load_words=min(len(words), TEST_BURSTS * BURST_WORDS))
        (folder / RESULT).unlink(missing_ok=True)
        job.write(folder / "job.json")
        return plusargs


def beats_as_hex(words: npt.NDArray[np.uint32]) -> bytes:
    """An image as `sdram.v` is preloaded with it: 16 bits a line, a word's lower half first."""
    digits = np.frombuffer(words.astype("<u4").view("<u2").byteswap().tobytes(), np.uint8)
    text = np.frombuffer(digits.tobytes().hex().encode(), np.uint8).reshape(-1, 4)
    return np.pad(text, ((0, 0), (0, 1)), constant_values=ord("\n")).tobytes()
