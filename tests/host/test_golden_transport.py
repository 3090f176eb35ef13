"""The register map in software, access by access, as the gateware's control answers them."""

import numpy as np
import pytest

from host.golden_transport import GoldenTransport
from isa.geometry import TINY
from isa.image import LAYER_WORDS, MAGIC, ImageInfo, Packet, PacketType, build
from isa.registers import NO_CLASS, ErrorCode, Register, Source, State

INFO = ImageInfo("stand-in", (2, 2, 1), classes=2, layers=1, logit_exponent=0)
IMAGE = build(TINY, INFO, [Packet(PacketType.LAYER, [0] * LAYER_WORDS)])
START, CHECK, ABORT = 1, 2, 4


@pytest.fixture
def bus():
    """A device whose logits are the sum of the pixels and its negative."""

    def total(frame):
        return np.array([frame.sum(), -int(frame.sum())], np.int64)

    return GoldenTransport(TINY, make_run=lambda geometry, image: total)


def state(bus):
    return State(bus.read(Register.STATUS, 1)[0])


def load(bus):
    bus.write(Register.IMAGE, IMAGE.words)
    bus.write(Register.CONTROL, [CHECK])
    assert state(bus) is State.READY


def test_identity_cannot_be_written(bus):
    bus.write(Register.ID, [1, 2, 3])
    assert bus.read(Register.ID, 3) == [MAGIC, 1, TINY.digest]


def test_a_frame(bus):
    load(bus)
    assert bus.read(Register.CLASSES, 1) == [2]
    bus.write(Register.INPUT, [0x04030201])
    bus.write(Register.CONTROL, [START])
    assert state(bus) is State.DONE
    assert bus.read(Register.LOGITS, 2) == [10, -10 & 0xFFFF_FFFF]
    assert bus.read(Register.FRAMES, 1) == [1]
    # Entries beyond the classes hold no class and the smallest logit.
    assert bus.read(Register.TOP_CLASS, 3) == [0, 1, NO_CLASS]
    assert bus.read(Register.TOP_LOGIT, 3) == [10, -10 & 0xFFFF_FFFF, -(1 << 23) & 0xFFFF_FFFF]


def test_input_may_follow_the_start(bus):
    load(bus)
    bus.write(Register.CONTROL, [START])
    bus.write(Register.INPUT, [0x01010101])
    assert state(bus) is State.DONE
    assert bus.read(Register.LOGITS, 1) == [4]


def test_missing_input_meets_the_watchdog(bus):
    load(bus)
    bus.write(Register.CONTROL, [START])
    assert state(bus) is State.ERROR
    assert bus.read(Register.ERROR, 1) == [ErrorCode.WATCHDOG.value]


def test_what_is_left_of_a_failed_frame_is_dropped(bus):
    bus.write(Register.CONTROL, [START])  # without an image
    assert state(bus) is State.ERROR
    bus.write(Register.INPUT, [0x09090909])
    load(bus)
    bus.write(Register.INPUT, [0x01010101])
    bus.write(Register.CONTROL, [START])
    assert bus.read(Register.LOGITS, 1) == [4]


def test_abort_empties_the_input(bus):
    bus.write(Register.INPUT, [0x09090909])
    bus.write(Register.CONTROL, [ABORT])
    assert state(bus) is State.IDLE
    load(bus)
    bus.write(Register.INPUT, [0x01010101])
    bus.write(Register.CONTROL, [START])
    assert bus.read(Register.LOGITS, 1) == [4]


@pytest.mark.parametrize("address", [Register.IMAGE + 5, Register.SOURCE])
def test_a_changed_image_must_be_checked_again(bus, address):
    load(bus)
    bus.write(address, [0])
    assert state(bus) is State.IDLE
    bus.write(Register.CONTROL, [START])
    assert bus.read(Register.ERROR, 1) == [ErrorCode.NOT_READY.value]
    assert bus.read(Register.LOGITS, 1) == [0]


def test_accesses_outside_the_map(bus):
    with pytest.raises(ValueError) as caught:
        bus.read(1 << 23, 1)
    assert str(caught.value) == (
        "Access must be at least one word inside 23 bits of address, not 1 at 0x800000"
    )
    with pytest.raises(ValueError, match="not 0 at 0x0"):
        bus.read(0, 0)
    with pytest.raises(ValueError) as caught:
        bus.write(Register.WATCHDOG, [-1])
    assert str(caught.value) == "Words must be unsigned numbers of 32 bits, not -1"
    assert bus.read(0x50, 2) == [0, 0]


def test_a_memory_that_is_not_there_is_refused(bus):
    bus.write(Register.SOURCE, [Source.SDRAM.value])
    bus.write(Register.CONTROL, [CHECK])
    assert state(bus) is State.ERROR
    assert bus.read(Register.ERROR, 1) == [ErrorCode.NO_MEMORY.value]
