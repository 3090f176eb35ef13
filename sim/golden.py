"""The golden model: executes an encoded image on frames, word for word as the gateware does.

It keeps the machine's memories (input, residual map, bit maps, features), addresses them by the
layer descriptors, and computes with the kernels of `golden_kernels`, which are those of
`isa.fixed` in integers. A whole layer is computed at once: with addresses that do not depend on
the data, the order within a layer does not matter once `golden_access.check_schedule` has proved
it. Frames do not depend on each other, so threads share them out.
"""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from isa.fixed import IntArray
from isa.geometry import Geometry
from isa.image import Image, PacketType
from sim import golden_access as access
from sim.golden_program import GoldenError, decode_image
from sim.golden_units import LayerTrace, State, Unit, Writes, make_unit

__all__ = ["Golden", "GoldenError", "GoldenFrame", "LayerTrace", "Writes"]

#: Bytes of the memories of the frames that a thread computes together: a small network needs many
#: for a kernel's call to pay, and more than this no longer fit the processor's caches.
TOGETHER = 1 << 20


@dataclass(frozen=True)
class GoldenFrame:
    """Result of one frame. ``logits``: int64 (classes,)."""

    logits: IntArray
    layers: list[LayerTrace]


class Golden:
    """An image, ready to be executed. Raises GoldenError if its schedule is not sound."""

    def __init__(self, geometry: Geometry, image: Image) -> None:
        self.geometry, self.info = geometry, image.info
        self.layers = decode_image(geometry, image)
        access.check_schedule(geometry, self.layers, image.info.input_bytes)
        self._units = [make_unit(geometry, layer) for layer in self.layers]
        self._alone = self._executed(stem_done=False, more=False)
        one = State(geometry, np.zeros((1, *image.info.input_shape), np.uint8))
        self._together = max(1, TOGETHER // one.nbytes)

    def run(self, frame: npt.NDArray[np.uint8]) -> GoldenFrame:
        """One frame, uint8 of shape (H, W, C), with all that every layer writes."""
        self._check(frame[None])
        return next(self.run_overlapped(frame[None]))

    def run_overlapped(self, frames: npt.NDArray[np.uint8]) -> Iterator[GoldenFrame]:
        """Frames (N, H, W, C) that follow each other, each announced while the one before is
        computed: its result and all that is written meanwhile, also of the next one's stem."""
        self._check(frames)
        state = State(self.geometry, frames[:1])
        for number, frame in enumerate(frames):
            following = frames[number + 1 : number + 2]
            stem_done = self.ahead and number > 0
            layers: list[LayerTrace] = []
            for unit in self._executed(stem_done=stem_done, more=len(following) > 0):
                is_ahead = unit.layer.packet is PacketType.AHEAD
                state.take(following if is_ahead else frame[None])
                unit.run(state)
                layers.append(replace(unit.trace(state), index=len(layers)))
            yield GoldenFrame(state.logits[0, : self.info.classes].copy(), layers)

    @property
    def ahead(self) -> bool:
        """Whether the image has a frame's stem computed while the frame before it is."""
        return any(layer.packet is PacketType.AHEAD for layer in self.layers)

    def _executed(self, *, stem_done: bool, more: bool) -> list[Unit]:
        layers = access.executed(self.layers, stem_done=stem_done, more=more)
        return [self._units[layer.index] for layer in layers]

    def run_batch(self, frames: npt.NDArray[np.uint8], threads: int | None = None) -> IntArray:
        """Logits (N, classes) of frames (N, H, W, C)."""
        found = list(self.stream(frames, threads))
        return np.array(found, np.int64).reshape(len(frames), self.info.classes)

    def stream(
        self, frames: npt.NDArray[np.uint8], threads: int | None = None
    ) -> Iterator[IntArray]:
        """Logits (classes,) of one frame after the other. ``threads``: None for one a processor."""
        self._check(frames)
        threads = threads or os.cpu_count() or 1
        size = max(1, min(self._together, -(-len(frames) // threads)))
        parts = [frames[start : start + size] for start in range(0, len(frames), size)]
        with ThreadPoolExecutor(threads) as pool:
            for logits in pool.map(self._logits, parts):
                yield from logits

    def _logits(self, frames: npt.NDArray[np.uint8]) -> IntArray:
        state = State(self.geometry, frames)
        for unit in self._alone:
            unit.run(state)
        return state.logits[:, : self.info.classes]

    def _check(self, frames: npt.NDArray[np.uint8]) -> None:
        if frames.dtype != np.uint8:
            raise TypeError(f"Frame must be uint8, not {frames.dtype}")
        if frames.shape[1:] != self.info.input_shape:
            raise ValueError(
                f"Frame must have shape {self.info.input_shape}, not {frames.shape[1:]}"
            )
