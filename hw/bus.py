"""The register bus: one master (serial link or simulation), one word at a time, any latency.

The master raises `valid` with `address`, `write` and, for a write, `write_data`, and holds them
until the cycle in which `ack` is high; there `read_data` is that of a read. In the next cycle it
may already ask for the next word. A master may give up: it lowers `valid` without having seen
`ack`, and the word then counts as not transferred. So a slave acts on a request only in the cycle
in which both `valid` and `ack` are high, and raises `ack` for one cycle per request.
"""

from amaranth.hdl import Module
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from isa import registers
from isa.bits import WORD_BITS


class BusSignature(wiring.Signature):
    """As the master sees it. `address_bits` counts words of 32 bits."""

    def __init__(self, *, address_bits=registers.ADDRESS_BITS):
        if not isinstance(address_bits, int) or address_bits < 1:
            raise ValueError(f"Bus address_bits must be a positive integer, not {address_bits!r}")
        self._address_bits = address_bits
        super().__init__(
            {
                "valid": Out(1),
                "address": Out(address_bits),
                "write": Out(1),
                "write_data": Out(WORD_BITS),
                "ack": In(1),
                "read_data": In(WORD_BITS),
            }
        )

    @property
    def address_bits(self):
        return self._address_bits

    def __eq__(self, other):
        return type(other) is type(self) and other.address_bits == self.address_bits

    def __repr__(self):
        return f"BusSignature(address_bits={self.address_bits!r})"


class MemoryWriteSignature(wiring.Signature):
    """As the writer of a memory of 32-bit words sees it: `valid` & `ready` write one."""

    def __init__(self, *, address_bits):
        self._address_bits = address_bits
        super().__init__(
            {
                "valid": Out(1),
                "ready": In(1),
                "address": Out(address_bits),
                "data": Out(WORD_BITS),
            }
        )

    @property
    def address_bits(self):
        return self._address_bits

    def __eq__(self, other):
        return type(other) is type(self) and other.address_bits == self.address_bits

    def __repr__(self):
        return f"MemoryWriteSignature(address_bits={self.address_bits!r})"


class PortBuffer(wiring.Component):
    """One word between bus and stream, so that only a word that was acknowledged is pushed."""

    def __init__(self):
        super().__init__(
            {
                "push": In(1),
                "word": In(WORD_BITS),
                "room": Out(1),
                "stream": Out(stream.Signature(WORD_BITS)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.d.comb += self.room.eq(~self.stream.valid)
        with m.If(self.push):
            m.d.sync += [self.stream.payload.eq(self.word), self.stream.valid.eq(1)]
        with m.Elif(self.stream.ready):
            m.d.sync += self.stream.valid.eq(0)
        return m
