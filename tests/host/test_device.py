"""The driver against the register map in software, with every failure it must survive."""

import dataclasses

import numpy as np
import pytest

from host.device import Device
from host.device_errors import DeviceError
from host.frames import pack_frame
from isa import checked
from isa.geometry import TINY, ULX3S_25F
from isa.image import build
from isa.registers import CONTROL, ErrorCode, Register, Source, State
from tests.geometries import TINY_SDRAM
from tests.host.faulty_transport import (
    FRAMES,
    INFO,
    PACKETS,
    SHAPE,
    Faulty,
    check,
    corrupt_memory,
    expected_logits,
    loaded,
    lose_input,
)


def test_identify():
    identity = Device(Faulty()).identify()
    assert identity.geometry is TINY
    assert identity.version == 1


@pytest.mark.parametrize("source", Source)
def test_frames(source):
    device = loaded(source=source)
    for frame in FRAMES:
        result = device.classify(frame)
        check(frame, result)
        assert result.cycles == 0
        assert set(result.counters) >= {"cycles", "array_busy", "wait_load"}


def test_ties_go_to_the_lower_class():
    frame = np.zeros(SHAPE, np.uint8)
    frame[0] = 1
    result = loaded().classify(frame)
    assert result.logits[0] == result.logits[6] == 3
    assert result.top[:2] == [(0, 3), (6, 3)]


def test_other_device():
    class Other(Faulty):
        def _read_word(self, address):
            return 0x1234 if address == Register.ID else super()._read_word(address)

    with pytest.raises(DeviceError) as caught:
        Device(Other()).identify()
    assert str(caught.value) == (
        "Device must identify itself as 0x4e4e4252, not 0x00001234: is the bitstream loaded?"
    )


def test_other_version():
    transport = Faulty()
    transport._registers[Register.VERSION] = 9
    with pytest.raises(DeviceError) as caught:
        Device(transport).identify()
    assert str(caught.value) == (
        "Device must have image format 1, not 9: build its bitstream again"
    )


def test_other_geometry():
    with pytest.raises(DeviceError) as caught:
        Device(Faulty(), expected=ULX3S_25F).identify()
    assert str(caught.value) == (
        f"Device must have the geometry ulx3s-25f ({ULX3S_25F.digest:#010x}), not tiny "
        f"({TINY.digest:#010x})"
    )
    odd = dataclasses.replace(TINY, classes=3)
    with pytest.raises(DeviceError) as caught:
        Device(Faulty(geometry=odd)).identify()
    assert str(caught.value) == (
        "Device must have a known geometry (tiny, ulx3s-25f, ulx3s-85f), not one with digest "
        f"{odd.digest:#010x}"
    )


@pytest.mark.parametrize("source", [Source.RAM, Source.LINK])
def test_frames_longer_than_the_input_memory_follow_the_start(source):
    small = dataclasses.replace(TINY, input_bytes=8)
    image = build(small, dataclasses.replace(INFO, layers=2), [*PACKETS, PACKETS[0]])
    transport = Faulty(geometry=small)
    device = Device(transport, expected=small, source=source)
    device.load_image(image)
    for frame in FRAMES:
        transport.log.clear()
        check(frame, device.classify(frame))
        stream = [(Register.STREAM, sum(1 + len(p.payload) for p in PACKETS))]
        rest = [(Register.STREAM, len(image.frame) - stream[0][1])]
        if source is Source.RAM:
            stream = rest = []
        assert transport.log == [(Register.CONTROL, 1), *stream, (Register.INPUT, 3), *rest]


def test_a_batch_is_computed_from_sdram():
    transport = Faulty(geometry=TINY_SDRAM)
    device = loaded(transport, source=Source.SDRAM)
    transport.log.clear()
    for frame, result in zip(FRAMES, device.classify_batch(FRAMES), strict=True):
        check(frame, result)
    words = len(pack_frame(FRAMES[0]))
    writes = [(Register.INPUT, words)] * len(FRAMES) + [(Register.CONTROL, 1)] * len(FRAMES)
    assert transport.log == writes
    assert device.classify_batch([]) == []
    check(FRAMES[0], device.classify(FRAMES[0]))


def test_every_frame_of_a_batch_but_the_last_announces_another():
    commands = []

    class Listening(Faulty):
        def write(self, address, words):
            if address == Register.CONTROL:
                commands.append(checked.decode(CONTROL, words[0]))
            super().write(address, words)

    device = loaded(Listening(geometry=TINY_SDRAM), source=Source.SDRAM)
    commands.clear()
    device.classify_batch(FRAMES[:3])
    assert [(bits["start"], bits["more"]) for bits in commands] == [(1, 1), (1, 1), (1, 0)]


def test_a_batch_may_do_without_logits():
    results = loaded(source=Source.SDRAM).classify_batch(FRAMES, logits=False)
    for frame, result in zip(FRAMES, results, strict=True):
        assert result.logits == []
        assert result.top[0][1] == expected_logits(frame).max()


@pytest.mark.parametrize("source", Source)
def test_any_number_of_frames(source):
    device = loaded(source=source)
    assert list(device.classify_all([])) == []
    for frame, result in zip(FRAMES, device.classify_all(iter(FRAMES)), strict=True):
        check(frame, result)


def test_the_next_frame_is_sent_while_one_is_computed():
    transport = Faulty(geometry=TINY_SDRAM)
    device = loaded(transport, source=Source.SDRAM)
    transport.log.clear()
    assert len(list(device.classify_all(FRAMES))) == 3
    pixels, start = (Register.INPUT, len(pack_frame(FRAMES[0]))), (Register.CONTROL, 1)
    assert transport.log == [pixels, start, pixels, start, pixels, start]


@pytest.mark.parametrize("failing", [1, 2, 3])
def test_a_frame_that_fails_does_not_disturb_those_that_follow(failing):
    device = loaded(Faulty({failing: corrupt_memory}, TINY_SDRAM), source=Source.SDRAM)
    for frame, result in zip(FRAMES, device.classify_all(FRAMES), strict=True):
        check(frame, result)


def test_frames_go_on_after_a_transport_that_failed():
    class Unplugged(Faulty):
        plugged = True

        def write(self, address, words):
            if not self.plugged:
                raise OSError("gone")
            super().write(address, words)

    transport = Unplugged(geometry=TINY_SDRAM)
    device = loaded(transport, source=Source.SDRAM)
    results = device.classify_all(FRAMES)
    check(FRAMES[0], next(results))
    transport.plugged = False
    with pytest.raises(OSError, match="gone"):
        next(results)
    transport.plugged = True
    for frame, result in zip(FRAMES, device.classify_all(FRAMES), strict=True):
        check(frame, result)


def test_no_frames_without_an_image():
    device = Device(Faulty(geometry=TINY_SDRAM), expected=TINY_SDRAM, source=Source.SDRAM)
    with pytest.raises(DeviceError, match="load one first"):
        next(device.classify_all(FRAMES))


def test_a_batch_that_fails_is_recovered_from():
    device = loaded(Faulty({2: lose_input}, TINY_SDRAM), source=Source.SDRAM)
    with pytest.raises(DeviceError):
        device.classify_batch(FRAMES)
    for frame, result in zip(FRAMES, device.classify_batch(FRAMES), strict=True):
        check(frame, result)


def test_what_no_batch_can_be():
    with pytest.raises(DeviceError, match="must have its image in SDRAM"):
        loaded().classify_batch(FRAMES)
    device = loaded(source=Source.SDRAM)
    with pytest.raises(ValueError, match="Frame must be uint8 of shape"):
        device.classify_batch([FRAMES[0], FRAMES[0][1:]])
    most = TINY_SDRAM.sdram_frame_bytes
    many = [FRAMES[0]] * (most // (4 * len(pack_frame(FRAMES[0]))) + 1)
    with pytest.raises(ValueError, match=f"at most {most} bytes together"):
        device.classify_batch(many)
    assert len(device.classify_batch(many[:-1])) == len(many) - 1


@pytest.mark.parametrize("fault", [lose_input, corrupt_memory])
def test_one_failure_is_repaired(fault):
    device = loaded(Faulty({2: fault}))
    for frame in FRAMES:
        check(frame, device.classify(frame))


@pytest.mark.parametrize(
    ("fault", "code"),
    [(lose_input, ErrorCode.WATCHDOG), (corrupt_memory, ErrorCode.FRAME_CRC)],
)
def test_a_lasting_failure_is_reported_and_the_next_frame_works(fault, code):
    device = loaded(Faulty({2: fault, 3: fault}))
    check(FRAMES[0], device.classify(FRAMES[0]))
    with pytest.raises(DeviceError) as caught:
        device.classify(FRAMES[1])
    assert caught.value.code is code
    check(FRAMES[2], device.classify(FRAMES[2]))


def test_a_failing_transport_leaves_the_next_frame_working():
    def unplug(transport):
        transport._input.pop()
        raise OSError("cable out")

    transport = Faulty({1: unplug})
    device = loaded(transport)
    with pytest.raises(OSError, match="cable out"):
        device.classify(FRAMES[0])
    check(FRAMES[1], device.classify(FRAMES[1]))


def test_a_lost_start_is_noticed():
    def swallow(transport):
        transport._state = State.IDLE  # so that START is refused ...

    device = loaded(Faulty({2: swallow, 3: swallow}))
    check(FRAMES[0], device.classify(FRAMES[0]))
    with pytest.raises(DeviceError) as caught:
        device.classify(FRAMES[1])
    assert caught.value.code is ErrorCode.NOT_READY

    class Deaf(Faulty):
        def _control(self, bits):
            super()._control(bits | {"start": bits["start"] and self.starts != 2})

    deaf = Deaf()
    device = loaded(deaf, retries=0)
    device.classify(FRAMES[0])
    with pytest.raises(DeviceError) as caught:
        device.classify(FRAMES[1])  # DONE is still there, from the frame before
    assert str(caught.value) == "Device must have finished 2 frames after this one, not 1"


def test_wrong_frame():
    device = loaded()
    with pytest.raises(ValueError) as caught:
        device.classify(FRAMES[0][:2])
    assert str(caught.value) == (
        "Frame must be uint8 of shape (3, 3, 1), not uint8 of shape (2, 3, 1)"
    )
    with pytest.raises(ValueError, match="not float64 of shape"):
        device.classify(FRAMES[0].astype(float))


def test_options_are_checked():
    with pytest.raises(ValueError) as caught:
        Device(Faulty(), retries=-1)
    assert str(caught.value) == "Retries must be at least 0, not -1"
    with pytest.raises(ValueError) as caught:
        Device(Faulty(), frame_timeout=0)
    assert str(caught.value) == "Frame time-out must be positive, not 0"
