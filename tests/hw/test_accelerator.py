"""The accelerator's parameters: an SDRAM has a clock, and nothing else has."""

import pytest

from hw.accelerator import Accelerator
from isa.geometry import TINY
from tests.geometries import TINY_SDRAM


@pytest.mark.parametrize(
    ("geometry", "clock", "message"),
    [
        (TINY, 100.0, "None without an SDRAM in the geometry, not 100.0"),
        (TINY_SDRAM, None, "given with an SDRAM in the geometry, not None"),
    ],
)
def test_the_memory_has_a_clock_if_there_is_one(geometry, clock, message):
    with pytest.raises(ValueError) as caught:
        Accelerator(geometry=geometry, memory_mhz=clock)
    assert str(caught.value) == f"Accelerator memory_mhz must be {message}"


def test_an_sdram_and_its_flash_have_pins():
    with_memory = Accelerator(geometry=TINY_SDRAM, memory_mhz=100.0).signature.members
    without = Accelerator(geometry=TINY).signature.members
    for name in ("pins", "flash"):
        assert name in with_memory
        assert name not in without
