"""The register map in software with a stand-in for a network, and failures on demand."""

import numpy as np

from host.device import Device
from host.golden_transport import GoldenTransport
from isa.geometry import TINY
from isa.image import CHANNEL_WORDS, HEADER_WORDS, LAYER_WORDS, ImageInfo, Packet, PacketType, build
from isa.registers import Register, Source
from tests.geometries import TINY_SDRAM

SHAPE = (3, 3, 1)  # 9 bytes: the last word of a frame is not full
INFO = ImageInfo("stand-in", SHAPE, classes=7, layers=1, logit_exponent=-8)
PACKETS = [
    Packet(PacketType.LAYER, [0] * LAYER_WORDS),
    Packet(PacketType.PARAMS, [5] * TINY.lanes * CHANNEL_WORDS),
    Packet(PacketType.WEIGHTS, [7] * 4),
]
IMAGE = build(TINY, INFO, PACKETS)
FRAMES = np.random.default_rng(3).integers(0, 256, (3, *SHAPE), np.uint8)


def expected_logits(frame):
    """Stands for a network: depends on every pixel, has negative values and ties."""
    flat = frame.ravel().astype(np.int64)
    return np.array([flat[c : c + 3].sum() * (-1) ** c for c in range(6)] + [flat[0:3].sum()])


def make_run(geometry, image):
    return expected_logits


class Faulty(GoldenTransport):
    """Does what `faults[n](transport)` says before the n-th START."""

    def __init__(self, faults=None, geometry=TINY):
        super().__init__(geometry, make_run=make_run)
        self.faults = faults or {}
        self.starts = 0
        self.log = []

    def write(self, address, words):
        self.log.append((address, len(words)))
        if address == Register.CONTROL and words[0] & 1:
            self.starts += 1
            if fault := self.faults.get(self.starts):
                fault(self)
        super().write(address, words)


def lose_input(transport):
    transport._input.clear()


def corrupt_memory(transport):
    transport._memory[HEADER_WORDS + 1] ^= 1


def loaded(transport=None, source=Source.RAM, **options):
    geometry = TINY_SDRAM if source is Source.SDRAM else TINY
    transport = transport or Faulty(geometry=geometry)
    device = Device(transport, expected=geometry, source=source, **options)
    device.load_image(build(geometry, INFO, PACKETS))
    return device


def check(frame, result):
    logits = expected_logits(frame)
    order = sorted(range(len(logits)), key=lambda c: (-logits[c], c))[: TINY.top_k]
    assert result.logits == logits.tolist()
    assert result.top == [(c, logits[c]) for c in order]
