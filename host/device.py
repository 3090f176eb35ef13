"""The driver: loads an image into an accelerator and classifies frames, over any transport.

The same code drives the golden model, a simulation and a board. It never hangs: every wait has a
deadline. A frame that fails is tried again after a recovery, and leaves the next one working.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from host.device_errors import DeviceError
from host.frames import Frame, pack_frame, sign_extended
from host.image_loader import ImageLoader
from host.register_access import RegisterAccess, Transport
from isa.geometry import GEOMETRIES, Geometry
from isa.image import MAGIC, VERSION, Image
from isa.registers import COUNTERS, Register, Source, State

FRAME_TIMEOUT = 10.0  # seconds


@dataclass(frozen=True)
class Identity:
    """What a device says of itself."""

    version: int
    geometry: Geometry


class Device:
    """An accelerator behind a transport.

    ``expected``: the geometry that it must have, or None for any known one. ``source``: where the
    image is kept: RAM or SDRAM on the device, or LINK, which streams it again for every frame.
    ``retries``: how often a failed frame is tried again. ``progress(done, total)`` is called with
    words while an image is loaded. ``clock`` and ``sleep`` are time.monotonic's and time.sleep's
    stand-ins.
    """

    def __init__(
        self,
        transport: Transport,
        *,
        expected: Geometry | None = None,
        source: Source = Source.RAM,
        retries: int = 1,
        frame_timeout: float = FRAME_TIMEOUT,
        progress: Callable[[int, int], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        if retries < 0:
            raise ValueError(f"Retries must be at least 0, not {retries!r}")
        if frame_timeout <= 0:
            raise ValueError(f"Frame time-out must be positive, not {frame_timeout!r}")
        self._registers = RegisterAccess(transport, clock=clock, sleep=sleep)
        self._loader = ImageLoader(self._registers, source=source, progress=progress)
        self._expected = expected
        self._source = source
        self._retries = retries
        self._frame_timeout = frame_timeout
        self._identity: Identity | None = None
        self._unsettled = False  # a frame was begun and neither finished nor recovered from

    # --- identity and image -----------------------------------------------------------------

    def identify(self) -> Identity:
        """Checks that an accelerator answers, and which one. Raises DeviceError."""
        magic, version, digest = self._registers.read_window(Register.ID, 3)
        if magic != MAGIC:
            raise DeviceError(
                f"Device must identify itself as {MAGIC:#010x}, not {magic:#010x}: is the "
                f"bitstream loaded?"
            )
        if version != VERSION:
            raise DeviceError(
                f"Device must have image format {VERSION}, not {version}: build its bitstream again"
            )
        known = self._expected
        if known is None:
            found = [g for g in GEOMETRIES.values() if g.digest == digest]
            if not found:
                raise DeviceError(
                    f"Device must have a known geometry ({', '.join(GEOMETRIES)}), not one with "
                    f"digest {digest:#010x}"
                )
            known = found[0]
        if digest != known.digest:
            other = [g.name for g in GEOMETRIES.values() if g.digest == digest]
            raise DeviceError(
                f"Device must have the geometry {known.name} ({known.digest:#010x}), not "
                f"{other[0] if other else 'an unknown one'} ({digest:#010x})"
            )
        self._identity = Identity(version, known)
        return self._identity

    def load_image(self, image: Image) -> None:
        """Has the device hold and check a parsed image. Raises DeviceError.

        One that it holds already, from its bitstream or from an earlier session, is not sent again.
        """
        geometry = (self._identity or self.identify()).geometry
        self._loader.load(image, geometry)

    # --- frames -----------------------------------------------------------------------------

    def classify(self, frame: npt.NDArray[np.uint8]) -> Frame:
        """The result of one frame, uint8 (H, W, C).

        An error that the device reports is answered by a recovery and a new try; the last one is
        raised as DeviceError, after a recovery, so that the next frame may work. An error of the
        transport is raised as it is, and the next frame begins with a recovery.
        """
        image = self._loader.image
        if image is None:
            raise DeviceError("Device must have an image before it can classify: load one first")
        frame = self._checked(frame, image)
        if self._unsettled:
            self.recover()
        for attempt in range(self._retries + 1):
            self._unsettled = True
            try:
                result = self._classify(frame, image)
                self._unsettled = False
                return result
            except DeviceError as error:
                try:
                    self.recover()
                except DeviceError as second:
                    raise error from second
                if attempt == self._retries:
                    raise
        raise AssertionError("unreachable")

    def classify_batch(
        self, frames: Sequence[npt.NDArray[np.uint8]], *, logits: bool = True
    ) -> list[Frame]:
        """The results of frames that all lie in the device's SDRAM before the first is computed.

        So the accelerator works at its own speed, not at the link's: every frame but the last is
        started with the announcement of the next one. Without ``logits`` only the largest of them
        are asked for, which takes less time than a frame on a slow link. ValueError for frames that
        do not fit there together. An error is raised as DeviceError, after a recovery.
        """
        image = self._loader.image
        if image is None or self._identity is None or self._source is not Source.SDRAM:
            raise DeviceError("Device must have its image in SDRAM to compute frames from there")
        pixels = [pack_frame(self._checked(frame, image)) for frame in frames]
        room = self._identity.geometry.sdram_frame_bytes
        if (size := 4 * sum(map(len, pixels))) > room:
            raise ValueError(f"Frames must have at most {room} bytes together, not {size}")
        if self._unsettled:
            self.recover()
        self._unsettled = True
        try:
            for words in pixels:
                self._registers.write_port(Register.INPUT, words)
            results = []
            for left in reversed(range(len(pixels))):
                count = self._registers.read(Register.FRAMES)
                self._registers.command("start", *["more"] * (left > 0))
                results.append(self._finish(count, image, logits=logits))
        except DeviceError as error:
            try:
                self.recover()
            except DeviceError as second:
                raise error from second
            raise
        self._unsettled = False
        return results

    @staticmethod
    def _checked(frame: npt.NDArray[np.uint8], image: Image) -> npt.NDArray[np.uint8]:
        frame = np.asarray(frame)
        if frame.dtype != np.uint8 or frame.shape != image.info.input_shape:
            raise ValueError(
                f"Frame must be uint8 of shape {image.info.input_shape}, not {frame.dtype} of "
                f"shape {frame.shape}"
            )
        return frame

    def _classify(self, frame: npt.NDArray[np.uint8], image: Image) -> Frame:
        assert self._identity is not None
        frames = self._registers.read(Register.FRAMES)
        pixels = pack_frame(frame)
        stream = image.frame if self._source is Source.LINK else []
        room = self._identity.geometry.input_bytes
        if self._source is Source.SDRAM or image.info.input_bytes <= room:
            self._registers.write_port(Register.INPUT, pixels)
            self._registers.command("start")
            self._registers.write_port(Register.STREAM, stream)
        else:
            # The input memory has room for all of it only while the stem works it off.
            first = image.first_layer_words
            self._registers.command("start")
            self._registers.write_port(Register.STREAM, stream[:first])
            self._registers.write_port(Register.INPUT, pixels)
            self._registers.write_port(Register.STREAM, stream[first:])
        return self._finish(frames, image)

    def classify_all(self, frames: Iterable[npt.NDArray[np.uint8]]) -> Iterator[Frame]:
        """The results of any number of frames, in order, as :meth:`classify` gives them.

        With the image in SDRAM the next frame is sent while one is computed.
        """
        if self._source is not Source.SDRAM:
            yield from map(self.classify, frames)
            return
        image = self._loader.image
        if image is None:
            raise DeviceError("Device must have an image before it can classify: load one first")
        coming = (self._checked(frame, image) for frame in frames)
        frame, sent = next(coming, None), False
        while frame is not None:
            following = next(coming, None)
            if self._unsettled:
                self.recover()
                sent = False
            try:
                result = self._classify_and_send(frame, sent, following, image)
                sent = following is not None
            except DeviceError:  # what was sent of the next one goes with the recovery
                result, sent = self.classify(frame), False
            yield result
            frame = following

    def _classify_and_send(
        self,
        frame: npt.NDArray[np.uint8],
        sent: bool,
        following: npt.NDArray[np.uint8] | None,
        image: Image,
    ) -> Frame:
        """The result of ``frame``, whose pixels may have been ``sent``; and sends the next one."""
        self._unsettled = True
        count = self._registers.read(Register.FRAMES)
        if not sent:
            self._registers.write_port(Register.INPUT, pack_frame(frame))
        self._registers.command("start")
        if following is not None:
            self._registers.write_port(Register.INPUT, pack_frame(following))
        result = self._finish(count, image)
        self._unsettled = False
        return result

    def _finish(self, frames: int, image: Image, *, logits: bool = True) -> Frame:
        """The result of the frame that was started last, when ``frames`` had been finished."""
        self._registers.await_state(State.DONE, self._frame_timeout, "finish a frame")
        # DONE may also be what the frame before has left, if START was lost on the way.
        now = self._registers.read(Register.FRAMES)
        if now != (frames + 1) & 0xFFFF_FFFF:
            raise DeviceError(
                f"Device must have finished {frames + 1} frames after this one, not {now}"
            )
        classes = image.info.classes
        found = self._registers.read_window(Register.LOGITS, classes) if logits else []
        counters = self._registers.read_window(Register.CYCLES, len(COUNTERS))
        return Frame(
            [sign_extended(word) for word in found],
            self._read_top(classes),
            {r.name.lower(): value for r, value in zip(COUNTERS, counters, strict=True)},
        )

    def _read_top(self, classes: int) -> list[tuple[int, int]]:
        assert self._identity is not None
        count = min(self._identity.geometry.top_k, classes)
        top_classes = self._registers.read_window(Register.TOP_CLASS, count)
        top_logits = self._registers.read_window(Register.TOP_LOGIT, count)
        return [(c, sign_extended(w)) for c, w in zip(top_classes, top_logits, strict=True)]

    def recover(self) -> None:
        """Brings the device back to READY: aborts, checks, and loads the image if that fails."""
        self._registers.command("abort")
        self._loader.restore()
        self._unsettled = False


assert [r.value for r in COUNTERS] == list(range(Register.CYCLES, Register.CYCLES + len(COUNTERS)))
