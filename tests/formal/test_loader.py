"""The loader's framing: whatever the first header of a frame is, it is judged by type, length and
CRC-8 alone, and a wrong one ends the frame before anything is delivered.
"""

import pytest
from amaranth.hdl import Assert, Assume, Cat, Elaboratable, Module, Signal, Value

from hw.loader import Loader
from isa.geometry import TINY
from isa.image import LAYER_TYPES, LAYER_WORDS, PACKET
from sim.formal import ProofError, prove

pytestmark = pytest.mark.full

CYCLES = 8  # the start, the header, a word behind it, its verdict, and some to wait in between
JUDGED = 2  # cycles from that word to the verdict


def crc8_of(header):
    """The CRC-8 of a packet header, bit by bit, by the rules of `isa.image.crc8`."""
    crc = [0] * 8
    for octet in (Value.cast(header.type), header.length[:8], header.length[8:]):
        crc = [old ^ new for old, new in zip(crc, octet, strict=True)]
        for _ in range(8):
            top = crc[7]
            crc = [top, crc[0] ^ top, crc[1] ^ top, *crc[2:7]]
    return Cat(crc)


class FirstHeaderIsJudged(Elaboratable):
    """`trusting`: claims that the header's CRC does not matter."""

    def __init__(self, trusting=False):
        self._loader = Loader(geometry=TINY)
        self._trusting = trusting
        self.word, self.valid = Signal(32), Signal()
        self.stem_done, self.more = Signal(), Signal()
        self.inputs = [self.word, self.valid, self.stem_done, self.more]

    def elaborate(self, platform):
        m = Module()
        m.submodules.loader = loader = self._loader
        words = loader.source.words
        started = Signal()
        header = Signal(PACKET)
        count = Signal(2)  # words that were taken; stops at two
        m.d.sync += started.eq(1)
        m.d.comb += [
            loader.start.eq(~started),
            loader.stem_done.eq(self.stem_done),
            loader.more.eq(self.more),
            words.payload.eq(self.word),
            words.valid.eq(self.valid),
            # The source does not keep the header waiting; what follows it may take any time.
            Assume(words.valid | (count != 0)),
        ]
        with m.If(words.valid & words.ready & (count != 2)):
            m.d.sync += count.eq(count + 1)
            with m.If(count == 0):
                m.d.sync += header.eq(words.payload)

        good = Cat(header.type == kind for kind in LAYER_TYPES).any()
        good &= header.length == LAYER_WORDS
        if not self._trusting:
            good &= header.crc8 == crc8_of(header)
        failed, judged = Signal(), Signal(JUDGED)
        m.d.sync += [
            failed.eq(failed | loader.error_valid),
            judged.eq(Cat(count == 2, judged)),
        ]
        with m.If(judged[-1]):
            m.d.comb += Assert(failed == ~good)
        m.d.comb += Assert(~(loader.descriptor.valid | loader.params.valid | loader.weights.valid))
        return m


def test_first_header_is_judged():
    claim = FirstHeaderIsJudged()
    prove(claim, claim.inputs, cycles=CYCLES, forever=False)


def test_a_loader_that_trusts_headers_is_refuted():
    claim = FirstHeaderIsJudged(trusting=True)
    with pytest.raises(ProofError, match=r"^Claim FirstHeaderIsJudged can fail within 8 cycles:"):
        prove(claim, claim.inputs, cycles=CYCLES, forever=False)
