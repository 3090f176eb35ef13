"""Dot products of one lane: one bit times one bit (XNOR and popcount), and int8 times 16 bits.

Both are pipelines without flow control that take new operands in every cycle. ``sum`` belongs to
the operands of ``latency`` cycles before; while ``clear`` is high, the sum that appears in the next
cycle is 0. So a producer that masks an operand pair raises ``clear`` ``latency - 1`` cycles later.
``weight_parts`` are the bits of a lane's weights in each part of a weight set.
"""

import numpy as np
from amaranth.hdl import Cat, Const, Module, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from hw.adder import add
from hw.arguments import check_at_least, check_positive
from hw.multiplier import Multiplier
from isa.fixed import FEATURE_BITS, WEIGHT_BITS

#: A 7:3 compressor is four full adders: the largest that wastes no carry.
_COMPRESSOR_BITS = 7
#: Adders between two registers: their carry chains are short.
_LEVELS_PER_STAGE = 2


def _count(m, words):
    """The number of ones at each bit position of seven words: words of weight 1, 2 and 4.

    From full adders in LUTs: `+` would become carry chains, which cost more for so few bits.
    """

    def add(name, a, b, c):
        total, carry = (Signal.like(a, name=f"{name}_{part}") for part in ("sum", "carry"))
        m.d.comb += [total.eq(a ^ b ^ c), carry.eq(a & b | c & (a ^ b))]
        return total, carry

    a, b, c, d, e, f, g = words
    first, carry_0 = add("add_0", a, b, c)
    second, carry_1 = add("add_1", d, e, f)
    ones, carry_2 = add("add_2", first, second, g)
    twos, fours = add("add_3", carry_0, carry_1, carry_2)
    return ones, twos, fours


class XnorDot(wiring.Component):
    """Number of equal bits of two words, ``popcount(~(operand ^ weights))``.

    The word is cut into groups of seven bits, all counted by the same words of adders. A tree sums
    the groups' counts, and the bits left over enter it as carries, so that they cost next to
    nothing.

    Members
    -------
    operand, weights : In(word_bits)
    clear : In(1)
    sum : Out(range(word_bits + 1))
    """

    def __init__(self, *, word_bits):
        check_positive("XnorDot", word_bits=word_bits)
        self.word_bits = word_bits
        self.weight_parts = (word_bits,)
        self.groups, self.spare = divmod(word_bits, _COMPRESSOR_BITS)
        if self.spare > self.groups:
            # There are groups - 1 adders, and one more can be added at the end.
            self.groups, self.spare = self.groups + 1, 0
        levels = (self.groups - 1).bit_length() + (self.spare == self.groups)
        self.latency = 1 + -(-levels // _LEVELS_PER_STAGE)
        super().__init__(
            {
                "operand": In(word_bits),
                "weights": In(word_bits),
                "clear": In(1),
                "sum": Out(range(word_bits + 1)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        stage = 0

        def register(value, name):
            target = Signal(len(value), name=f"{name}_{stage}", reset_less=True)
            if stage == self.latency - 1:
                with m.If(self.clear):
                    m.d.sync += target.eq(0)
                with m.Else():
                    m.d.sync += target.eq(value)
            else:
                m.d.sync += target.eq(value)
            return target

        equal = Signal(self.word_bits)
        m.d.comb += equal.eq(~(self.operand ^ self.weights))
        used = self.word_bits - self.spare
        grouped = Signal(_COMPRESSOR_BITS * self.groups)  # a short last group is filled with zeros
        m.d.comb += grouped.eq(equal[:used])
        words = [grouped.word_select(i, self.groups) for i in range(_COMPRESSOR_BITS)]
        bits = [register(word, f"count{i}") for i, word in enumerate(_count(m, words))]
        counts = [Cat(word[group] for word in bits) for group in range(self.groups)]
        spare = list(register(equal[used:], "spare")) if self.spare else []
        stage, level = 1, 0
        while len(counts) + len(spare) > 1:
            counts, odd = self._pairs(counts)
            sums = []
            if not counts:
                # The tree is complete, and one bit is left.
                counts, odd = [(odd[0], Const(0, 0))], []
            for a, b in counts:
                carry = spare.pop() if spare else Const(0)
                total = add(
                    m, platform, f"level{level}_{len(sums)}", a, b,
                    bits=max(len(a), len(b)) + 1, carry=carry,
                )  # fmt: skip
                sums.append(total.as_unsigned())
            counts = sums + odd
            level += 1
            if level % _LEVELS_PER_STAGE == 0 or len(counts) + len(spare) == 1:
                counts = [register(value, f"sum{i}") for i, value in enumerate(counts)]
                spare = [register(bit, f"spare{i}") for i, bit in enumerate(spare)]
                stage += 1
        assert stage == self.latency
        m.d.comb += self.sum.eq(counts[0])
        return m

    @staticmethod
    def _pairs(values):
        paired = len(values) // 2 * 2
        return list(zip(values[0:paired:2], values[1:paired:2], strict=True)), values[paired:]

    def model(self, operand, weights):
        """Arrays of bits, (..., word_bits), that broadcast against each other -> (...)."""
        return (np.asarray(operand) == np.asarray(weights)).sum(axis=-1)


class ByteProduct(wiring.Component):
    """The product of an unsigned byte and an int8 weight, in LUTs: two bits of the byte switch the
    weight and its double on, and two levels of adders sum what four such pairs yield. Exact.

    Members
    -------
    operand : In(8)
    weight : In(signed(8))
    product : Out(signed(16))
        LATENCY cycles later.
    """

    LATENCY = 2

    operand: In(8)
    weight: In(signed(WEIGHT_BITS))
    product: Out(signed(8 + WEIGHT_BITS))

    def elaborate(self, platform):
        m = Module()
        rows = [Signal(signed(WEIGHT_BITS + 2), name=f"row_{i}", reset_less=True) for i in range(4)]
        for i, row in enumerate(rows):
            once, twice = self.operand.word_select(i, 2)
            # What lies below the lowest bit of both operands bypasses the adder, here and below.
            upper = add(
                m, platform, f"pair_{i}", self.weight >> 1, self.weight,
                bits=len(row) - 1, a_on=once, b_on=twice,
            )  # fmt: skip
            m.d.sync += row.eq(Cat(self.weight[0] & once, upper).as_signed())

        def shifted_sum(name, low, high, shift, bits):
            upper = add(m, platform, name, low >> shift, high, bits=bits - shift)
            return Cat(low[:shift], upper).as_signed()

        low, high = (
            shifted_sum(f"sum_{i}", rows[i], rows[i + 1], 2, WEIGHT_BITS + 4) for i in (0, 2)
        )
        product = Signal.like(self.product, reset_less=True)
        m.d.sync += product.eq(shifted_sum("total", low, high, 4, len(product)))
        m.d.comb += self.product.eq(product)
        return m

    def model(self, operand, weight):
        """Integer arrays of the same shape."""
        return np.asarray(operand, np.int64) * np.asarray(weight, np.int64)


def _by_tap(taps, stem_taps, value, byte):
    return data.StructLayout(
        {
            "values": data.ArrayLayout(value, taps),
            "bytes": data.ArrayLayout(byte, stem_taps - taps),
        }
    )


def mac_operand(*, taps, stem_taps, operand_bits=FEATURE_BITS):
    """What a MacDot multiplies: ``taps`` signed values, then bytes up to ``stem_taps``."""
    return _by_tap(taps, stem_taps, signed(operand_bits), 8)


class MacDot(wiring.Component):
    """Sum of products, ``sum(operand[t] * weights[t])``, exact.

    Its first ``taps`` products are those of DSP multipliers. The others, up to ``stem_taps``, take
    unsigned bytes and are made of LUTs. A tree of adders, at least one register deep, sums them.

    Members
    -------
    operand : In(mac_operand)
    weights : In(the same, all signed(8))
    clear : In(1)
    sum : Out(signed)
    """

    def __init__(self, *, taps, stem_taps, operand_bits=FEATURE_BITS):
        check_positive("MacDot", taps=taps, stem_taps=stem_taps, operand_bits=operand_bits)
        check_at_least("MacDot", "stem_taps", stem_taps, "taps", taps)
        self.taps, self.stem_taps = taps, stem_taps
        byte_taps = stem_taps - taps
        self.weight_parts = taps * WEIGHT_BITS, byte_taps * WEIGHT_BITS
        levels = (stem_taps - 1).bit_length()
        assert ByteProduct.LATENCY == Multiplier.LATENCY
        self.latency = Multiplier.LATENCY + max(levels, 1)
        self._products = [Multiplier(a_bits=operand_bits, b_bits=WEIGHT_BITS) for _ in range(taps)]
        value, weight = signed(operand_bits), signed(WEIGHT_BITS)
        sum_bits = operand_bits + WEIGHT_BITS + levels
        super().__init__(
            {
                "operand": In(_by_tap(taps, stem_taps, value, 8)),
                "weights": In(_by_tap(taps, stem_taps, weight, weight)),
                "clear": In(1),
                "sum": Out(signed(sum_bits)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        operand, weights = self.operand, self.weights
        values = []
        for tap, multiplier in enumerate(self._products):
            m.submodules[f"product_{tap}"] = multiplier
            m.d.comb += [
                multiplier.a.eq(operand.values[tap]),
                multiplier.b.eq(weights.values[tap]),
            ]
            values.append(multiplier.product)
        for tap in range(self.stem_taps - self.taps):
            m.submodules[f"byte_{tap}"] = byte = ByteProduct()
            m.d.comb += [byte.operand.eq(operand.bytes[tap]), byte.weight.eq(weights.bytes[tap])]
            values.append(byte.product)
        for stage in range(Multiplier.LATENCY, self.latency):
            sums = [
                add(
                    m, platform, f"total_{stage}_{i}", values[i], values[i + 1],
                    bits=max(len(values[i]), len(values[i + 1])) + 1,
                )
                for i in range(0, len(values) - 1, 2)
            ]  # fmt: skip
            sums += values[len(values) // 2 * 2 :]
            values = [
                Signal(value.shape(), name=f"sum_{stage}_{index}", reset_less=True)
                for index, value in enumerate(sums)
            ]
            for target, value in zip(values, sums, strict=True):
                m.d.sync += target.eq(value)
                if stage == self.latency - 1:
                    with m.If(self.clear):
                        m.d.sync += target.eq(0)
        m.d.comb += self.sum.eq(values[0])
        return m

    def model(self, operand, weights):
        """Integer arrays, (..., stem_taps), that broadcast against each other -> (...)."""
        return (np.asarray(operand, np.int64) * np.asarray(weights, np.int64)).sum(axis=-1)
