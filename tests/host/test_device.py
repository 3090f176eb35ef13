"""The driver against the register map in software, with every failure it must survive."""

import dataclasses

import numpy as np
import pytest

from host.device import Device, pack_frame, sign_extended
from host.device_errors import EXPLANATIONS, DeviceError
from host.golden_transport import GoldenTransport
from isa import checked
from isa.geometry import TINY, ULX3S_25F
from isa.image import CHANNEL_WORDS, HEADER_WORDS, LAYER_WORDS, ImageInfo, Packet, PacketType, build
from isa.registers import CONTROL, MEMORY, ErrorCode, Register, Source, State
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


def test_progress_reaches_the_end():
    seen = []
    loaded(progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (len(IMAGE.words), len(IMAGE.words))


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


def test_image_that_does_not_fit():
    big = build(TINY, INFO, [*PACKETS[:2], Packet(PacketType.WEIGHTS, [0] * TINY.image_words)])
    with pytest.raises(DeviceError) as caught:
        Device(Faulty()).load_image(big)
    assert str(caught.value) == (
        f"Image must fit the 8192 words of the device's image memory, not {len(big.words)}: "
        f"{len(big.words) - 8192} too many"
    )


@pytest.mark.parametrize(
    ("geometry", "source", "memory"),
    [(TINY, Source.SDRAM, "an SDRAM"), (TINY_SDRAM, Source.RAM, "a block RAM")],
)
def test_an_image_memory_that_is_not_there(geometry, source, memory):
    device = Device(Faulty(geometry=geometry), expected=geometry, source=source)
    with pytest.raises(DeviceError) as caught:
        device.load_image(build(geometry, INFO, PACKETS))
    assert str(caught.value) == f"Device must have {memory} to keep its image there: it has none"


class WithMemory(Faulty):
    """Its SDRAM reports what `memory` says, one item a question."""

    def __init__(self, *memory):
        super().__init__(geometry=TINY_SDRAM)
        self.memory = list(memory)

    def read(self, address, count):
        if address == Register.MEMORY:
            fields = dict.fromkeys(MEMORY.members, 0) | self.memory.pop(0)
            return [checked.encode(MEMORY, fields)]
        return super().read(address, count)


def test_an_sdram_that_is_still_being_tested_or_filled_is_waited_for():
    waited = []
    testing = {"present": 1, "copying": 1}
    copying = testing | {"ready": 1}
    transport = WithMemory(testing, testing, copying, copying, {"present": 1, "ready": 1})
    device = loaded(transport, source=Source.SDRAM, sleep=waited.append)
    assert len(waited) == 4
    check(FRAMES[0], device.classify(FRAMES[0]))


@pytest.mark.parametrize(
    ("memory", "message"),
    [
        ({}, "must have an SDRAM to keep its image there: it has none"),
        (
            {"present": 1, "ready": 1, "fault": 1, "fault_address": 0x1234},
            "must have an SDRAM that keeps what is written: the 16 bytes at 0x12340 did not",
        ),
    ],
)
def test_without_a_good_sdram_nothing_is_loaded(memory, message):
    transport = WithMemory(memory)
    with pytest.raises(DeviceError, match=message):
        loaded(transport, source=Source.SDRAM)
    assert transport.log == []


@pytest.mark.parametrize(("ready", "done"), [(0, "tested its SDRAM"), (1, "copied its flash")])
def test_an_sdram_that_never_gets_ready_is_not_waited_for_forever(ready, done):
    time = iter(range(100))
    transport = WithMemory(*[{"present": 1, "ready": ready, "copying": 1}] * 100)
    with pytest.raises(DeviceError, match=f"must have {done} within 10 s of its start"):
        loaded(transport, source=Source.SDRAM, clock=lambda: next(time), sleep=lambda _: None)


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


def damaged(position, value):
    """The image with one word replaced; header fields keep a valid CRC-32 where it is asked for."""
    words = list(IMAGE.words)
    words[position] = value
    return dataclasses.replace(IMAGE, words=words)


@pytest.mark.parametrize(
    ("position", "value", "code"),
    [
        (0, 0, ErrorCode.MAGIC),
        (2, 0, ErrorCode.HEADER_CRC),
        (HEADER_WORDS, IMAGE.words[HEADER_WORDS] ^ 0x100, ErrorCode.PACKET),
        (HEADER_WORDS + 1, 77, ErrorCode.FRAME_CRC),
    ],
)
def test_the_device_refuses_a_damaged_image(position, value, code):
    device = Device(Faulty())
    with pytest.raises(DeviceError) as caught:
        device.load_image(damaged(position, value))
    assert caught.value.code is code
    assert str(caught.value) == (f"Device reports an error: {EXPLANATIONS[code]} ({code.name})")
    with pytest.raises(DeviceError, match="must have an image before"):
        device.classify(FRAMES[0])
    device.load_image(IMAGE)
    check(FRAMES[0], device.classify(FRAMES[0]))


@pytest.fixture
def holding():
    """A device that was loaded by somebody else, say by its bitstream."""
    transport = Faulty()
    loaded(transport)
    transport.log.clear()
    return transport


def image_writes(transport):
    return sum(count for address, count in transport.log if address >= Register.IMAGE)


def test_an_image_that_the_device_holds_is_not_sent_again(holding):
    device = loaded(holding)
    assert image_writes(holding) == 0
    check(FRAMES[0], device.classify(FRAMES[0]))


def test_another_image_is_sent(holding):
    other = build(TINY, INFO, [*PACKETS[:2], Packet(PacketType.WEIGHTS, [8] * 4)])
    Device(holding).load_image(other)
    assert image_writes(holding) == len(other.words)
    assert holding.read(Register.IMAGE_CRC, 1) == [other.crc32]


def test_a_decayed_image_is_sent_again(holding):
    corrupt_memory(holding)
    device = loaded(holding)
    assert image_writes(holding) == len(IMAGE.words)
    check(FRAMES[0], device.classify(FRAMES[0]))


def test_the_image_is_read_back_by_its_crc():
    class Forgetful(Faulty):
        def _read_word(self, address):
            return 5 if address == Register.IMAGE_CRC else super()._read_word(address)

    with pytest.raises(DeviceError) as caught:
        loaded(Forgetful())
    assert str(caught.value) == (
        f"Device must have the image with CRC-32 {IMAGE.crc32:#010x} after loading it, not the "
        "one with 0x00000005"
    )


def test_foreign_image():
    foreign = build(ULX3S_25F, INFO, PACKETS)
    with pytest.raises(DeviceError) as caught:
        Device(Faulty()).load_image(foreign)
    assert caught.value.code is ErrorCode.FOREIGN_GEOMETRY


def lose_input(transport):
    transport._input.clear()


def corrupt_memory(transport):
    transport._memory[HEADER_WORDS + 1] ^= 1


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


class Stuck(Faulty):
    """Never leaves RUNNING."""

    def read(self, address, count):
        if address == Register.STATUS and self.starts:
            return [State.RUNNING.value]
        return super().read(address, count)


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds


def test_never_hangs():
    clock = Clock()
    device = loaded(Stuck(), retries=0, frame_timeout=2.0, clock=clock, sleep=clock.sleep)
    with pytest.raises(DeviceError) as caught:
        device.classify(FRAMES[0])
    assert str(caught.value) == "Device must finish a frame within 2 s, but is still RUNNING"
    # ... and a recovery that did not succeed either: its two checks took 5 s each at most.
    assert 2 <= clock.now < 2 + 2 * 5 + 0.1


def test_waits_with_the_transport_if_it_can():
    class Interrupting(Faulty):
        waits = 0

        def read(self, address, count):
            if address == Register.STATUS and self._state is State.DONE and not self.waits:
                return [State.RUNNING.value]
            return super().read(address, count)

        def wait(self, timeout):
            assert 0 < timeout <= 10
            self.waits += 1

    transport = Interrupting()
    check(FRAMES[0], loaded(transport).classify(FRAMES[0]))
    assert transport.waits == 1


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


def test_words_of_a_frame():
    frame = np.arange(1, 7, dtype=np.uint8).reshape(1, 2, 3)
    assert pack_frame(frame) == [0x04030201, 0x0605]
    assert sign_extended(0xFFFF_FFFE) == -2
    assert sign_extended(5) == 5
