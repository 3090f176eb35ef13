"""The bus signature: equality, flipping, exact error text."""

import pytest

from hw.bus import BusSignature, MemoryWriteSignature
from isa import registers


def test_has_the_width_of_the_register_map():
    signature = BusSignature()
    assert signature.address_bits == registers.ADDRESS_BITS
    assert signature == BusSignature(address_bits=registers.ADDRESS_BITS)
    assert signature != BusSignature(address_bits=8)
    assert signature != MemoryWriteSignature(address_bits=registers.ADDRESS_BITS)
    assert repr(signature) == f"BusSignature(address_bits={registers.ADDRESS_BITS})"


def test_memory_writes_compare_by_width():
    assert MemoryWriteSignature(address_bits=5) == MemoryWriteSignature(address_bits=5)
    assert MemoryWriteSignature(address_bits=5) != MemoryWriteSignature(address_bits=6)
    assert repr(MemoryWriteSignature(address_bits=5)) == "MemoryWriteSignature(address_bits=5)"


@pytest.mark.parametrize("bits", [0, -1, "20"])
def test_address_bits_are_checked(bits):
    with pytest.raises(ValueError) as caught:
        BusSignature(address_bits=bits)
    assert str(caught.value) == f"Bus address_bits must be a positive integer, not {bits!r}"
