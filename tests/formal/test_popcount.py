"""The popcount, for every word: by how its result changes with one bit, and for one word.

Sums of trees of adders are hard to compare with each other, but two copies of one tree, whose
operands differ in a single bit, are not. If setting any bit of any word adds 1, and the word of all
zeros gives 0, the result is the number of ones.
"""

import pytest
from amaranth.hdl import Assert, Elaboratable, Module, Signal

from hw.dot import XnorDot
from sim.formal import ProofError, prove

pytestmark = pytest.mark.full

WORD_BITS = [8, 32, 64]  # of the geometries that ship


class SettingABitAddsOne(Elaboratable):
    """`equal`: bits of operand and weights that are equal. `step`: what one more claims to add."""

    def __init__(self, word_bits, step=1):
        self._dots = [XnorDot(word_bits=word_bits) for _ in range(2)]
        self._step = step
        self.equal, self.weights = Signal(word_bits), Signal(word_bits)
        self.place = Signal(range(word_bits))
        self.clear = Signal()
        self.inputs = [self.equal, self.weights, self.place, self.clear]

    def elaborate(self, platform):
        m = Module()
        m.submodules.without, m.submodules.with_bit = without, with_bit = self._dots
        bit = Signal.like(self.equal)
        age = Signal(range(without.latency + 1))
        cleared = Signal()
        m.d.comb += bit.eq(1 << self.place)
        for dot, equal in ((without, self.equal & ~bit), (with_bit, self.equal | bit)):
            m.d.comb += [
                dot.operand.eq(~(equal ^ self.weights)),
                dot.weights.eq(self.weights),
                dot.clear.eq(self.clear),
            ]
        m.d.sync += cleared.eq(self.clear)
        with m.If(age != without.latency):
            m.d.sync += age.eq(age + 1)
        with m.Elif(cleared):
            m.d.comb += Assert((without.sum == 0) & (with_bit.sum == 0))
        with m.Else():
            m.d.comb += Assert(with_bit.sum == without.sum + self._step)
        return m


class NoEqualBitGivesZero(Elaboratable):
    def __init__(self, word_bits):
        self._dot = XnorDot(word_bits=word_bits)
        self.weights = Signal(word_bits)
        self.inputs = [self.weights]

    def elaborate(self, platform):
        m = Module()
        m.submodules.dot = dot = self._dot
        age = Signal(range(dot.latency + 1))
        m.d.comb += [dot.operand.eq(~self.weights), dot.weights.eq(self.weights)]
        with m.If(age != dot.latency):
            m.d.sync += age.eq(age + 1)
        with m.Else():
            m.d.comb += Assert(dot.sum == 0)
        return m


@pytest.mark.parametrize("word_bits", WORD_BITS)
def test_setting_a_bit_adds_one(word_bits):
    claim = SettingABitAddsOne(word_bits)
    prove(claim, claim.inputs, cycles=10, forever=True)


@pytest.mark.parametrize("word_bits", WORD_BITS)
def test_no_equal_bit_gives_zero(word_bits):
    claim = NoEqualBitGivesZero(word_bits)
    prove(claim, claim.inputs, cycles=10, forever=True)


def test_a_wrong_claim_is_refuted():
    claim = SettingABitAddsOne(8, step=2)
    with pytest.raises(ProofError, match=r"^Claim SettingABitAddsOne can fail within 10 cycles:\n"):
        prove(claim, claim.inputs, cycles=10, forever=True)
