"""The beats that the SDRAM's controller is going to write."""

from amaranth.hdl import Module, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from hw.block_memory import BlockMemory
from hw.sdram_chip import BURST_BEATS, DATA_BITS

BEAT = data.StructLayout({"data": DATA_BITS, "enable": DATA_BITS // 8})
"""What a write puts on the bus; bytes that are not enabled stay as they are in the chip."""


class BeatQueue(wiring.Component):
    """A queue of beats in the domain `memory`; its reader must know how many there are.

    Members
    -------
    input : In(stream of BEAT)
        Ready as long as fewer than those of `bursts` bursts are here, and a few longer.
    whole : Out(1)
        Strobe: the last beat of a burst has been stored.
    next : In(1)
        Strobe: the reader goes on to the next beat. The last one was stored some cycles before.
    beat : Out(BEAT)
        READ_LATENCY cycles after the cycles of `next` come the beats that those went on from.
    """

    READ_LATENCY = 2

    def __init__(self, *, bursts):
        # Twice as long as need be: `ready` is a register, and notices late.
        self._depth = 2 << (bursts * BURST_BEATS - 1).bit_length()
        super().__init__(
            {
                "input": In(stream.Signature(BEAT)),
                "whole": Out(1),
                "next": In(1),
                "beat": Out(BEAT),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.memory = memory = BlockMemory(
            len(self.beat.as_value()), depth=self._depth, source="memory", target="memory"
        )
        stored, loaded = Signal(range(2 * self._depth)), Signal(range(2 * self._depth))
        level = Signal.like(stored)
        place = Signal(range(BURST_BEATS))  # in its burst, of the beat that is being stored
        arrived = Signal(BEAT, reset_less=True)
        m.d.comb += [
            memory.write_data.eq(arrived),
            memory.write_address.eq(stored),
            memory.read_address.eq(loaded),
            memory.read.eq(1),
            memory.move.eq(1),
            self.beat.eq(memory.read_data),
        ]
        m.d.memory += [
            memory.write.eq(self.input.valid & self.input.ready),
            arrived.eq(self.input.payload),
            level.eq(stored - loaded),
            self.input.ready.eq(level[-3:] < 3),
            self.whole.eq(memory.write & (place == BURST_BEATS - 1)),
        ]
        with m.If(memory.write):
            m.d.memory += [stored.eq(stored + 1), place.eq(place + 1)]
        with m.If(self.next):
            m.d.memory += loaded.eq(loaded + 1)
        return m
