"""Waits under the driver: for the SDRAM, for a state, with a clock of the test's own."""

import pytest

from host.device_errors import DeviceError
from isa import checked
from isa.registers import MEMORY, Register, Source, State
from tests.geometries import TINY_SDRAM
from tests.host.faulty_transport import FRAMES, Faulty, check, loaded


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
