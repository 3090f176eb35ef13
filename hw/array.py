# amaranth: UnusedElaboratable=no
# An array may be made for its model() or its latency alone; its dot products are made with it.
"""The arrays: M lanes that each multiply the same operand by their own weights and accumulate.

One generic class serves the XNOR array and the MAC array; they differ in their dot products.
A weight set stays while the pixels of a block pass, one a cycle; each pixel has an accumulator.
"""

from functools import partial

import numpy as np
from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from hw.adder import add
from hw.arguments import check_multiple, check_positive
from hw.copies import copy, shares
from hw.dot import MacDot, XnorDot
from isa.fixed import ACC_BITS
from isa.geometry import Geometry
from isa.layer import SIZE_BITS

#: Signals that every lane needs are copied for so many lanes, or their fan-out bounds the clock;
LANES_PER_COPY = 8
#: and what every bit of them needs, for so many bits: weights, and sums.
WEIGHT_BITS_PER_COPY = 256
SUM_BITS_PER_COPY = 128
#: Valid bits of one step: at most the channels of a layer.
COUNT_BITS = SIZE_BITS + 1
#: Popcounts up to 9 x 1024.
POPCOUNT_BITS = 14

PIXEL_BITS = (Geometry.BLOCK_PIXELS - 1).bit_length()


def step_layout(operand_shape):
    """One operand, and what becomes of its dot products."""
    return data.StructLayout(
        {
            "valid": 1,
            "swap": 1,  # the set that was loaded becomes active, from this step on
            "first": 1,  # accumulate from zero
            "last": 1,  # the sum goes to the output RAM
            "masked": 1,  # the dot products, and `count`, are 0
            "pixel": PIXEL_BITS,
            "count": COUNT_BITS,  # valid bits of the operand; ignored by the MAC array
            "operand": operand_shape,
        }
    )


class Array(wiring.Component):
    """Weight registers, dot products, accumulators and output RAM of M lanes. No flow control.

    ``dot`` makes the dot product of one lane. ``bipolar``: the dot product is a number of equal
    bits, and the result 2*sum - valid bits; otherwise the result is the sum. ``acc_bits`` is the
    width of a lane's accumulator (unsigned if bipolar).

    Members
    -------
    load_valid, load : In(1), In(port_bits)
        The words of the next weight set, each one cycle after its ``load_valid``. Each brings the
        next bits of every lane's weights, lane 0 in its lowest ones. There is room for one set: its
        first word comes in the cycle after the swap or later.
    whole : In(1)
        The set that is loaded has all the parts that the dot product names in ``weight_parts``.
        Otherwise it ends with the first, and what the other weights are multiplied by must be 0.
    step : In(step_layout)
        One operand. A ``swap`` comes with the last word of its set, or later. A pixel may come in
        consecutive cycles.
    written, written_pixel : Out
        A pulse ``step_latency`` cycles after a ``last`` step: its sums can be read from this cycle
        on, until the same pixel's next ``last`` step is written.
    read_pixel, read_group : In
    data : Out(array of L x signed(32))
        Results of lanes group*L.. of the pixel asked for READ_LATENCY cycles before.
    """

    READ_LATENCY = 4

    def __init__(self, *, dot, bipolar, lanes, port_bits, post_lanes, acc_bits):
        check_positive(
            "Array", lanes=lanes, port_bits=port_bits, post_lanes=post_lanes, acc_bits=acc_bits
        )
        check_multiple("Array", "lanes", lanes, "post_lanes", post_lanes)
        check_multiple("Array", "port_bits", port_bits, "lanes", lanes)
        self._dots = [dot() for _ in range(lanes)]
        self._bipolar = bipolar
        self._lanes, self._post_lanes = lanes, post_lanes
        self._port_bits, self._acc_bits = port_bits, acc_bits
        self._parts = self._dots[0].weight_parts
        for bits in self._parts:
            check_multiple("Array", "weight set", lanes * bits, "port_bits", port_bits)
        self._row_bits = port_bits // lanes
        self.set_words = lanes * sum(self._parts) // port_bits
        self.first_words = lanes * self._parts[0] // port_bits  # of a set that is not whole
        # A copy of the operand, another beside the active weights, and the output RAM.
        self.step_latency = self._dots[0].latency + 3
        super().__init__(
            {
                "load_valid": In(1),
                "load": In(port_bits),
                "whole": In(1, init=1),
                "step": In(step_layout(self._dots[0].operand.shape())),
                "written": Out(1),
                "written_pixel": Out(PIXEL_BITS),
                "read_pixel": In(PIXEL_BITS),
                "read_group": In(range(lanes // post_lanes)),
                "data": Out(data.ArrayLayout(signed(ACC_BITS), post_lanes)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        step, lanes = self.step, self._lanes
        dot_latency = self._dots[0].latency
        for lane, dot in enumerate(self._dots):
            m.submodules[f"dot_{lane}"] = dot

        # --- shadow weights ----------------------------------------------------------------------
        # One shift register for each part of a set: a word goes in at the end, for all lanes.
        words = [lanes * bits // self._port_bits for bits in self._parts if bits]
        assert len(words) <= 2
        word = Signal(range(self.set_words))
        last_word = Mux(self.whole, self.set_words - 1, words[0] - 1)
        with m.If(self.load_valid):
            m.d.sync += word.eq(Mux(word == last_word, 0, word + 1))
        of_first = word < words[0]
        shifts = [self.load_valid & of_first, self.load_valid & ~of_first]

        def shadow_weights(share):
            """Those of the lanes of a share; a list of each one's."""
            rows = [[] for _ in share]
            width = len(share) * self._row_bits
            load = self.load[share.start * self._row_bits :][:width]
            for part, (length, shift) in enumerate(zip(words, shifts, strict=False)):
                name = f"{share.start}_{part}"
                shift = copy(m, shift, f"shift_{name}")
                shadow = Signal(length * width, name=f"shadow_{name}", reset_less=True)
                with m.If(shift):
                    m.d.sync += shadow.eq(Cat(shadow, load)[width:])
                for number in range(length):
                    word = shadow.word_select(number, width)
                    for lane, row in enumerate(rows):
                        row.append(word.word_select(lane, self._row_bits))
            return [Cat(row) for row in rows]

        # --- control that travels beside the operand ---------------------------------------------
        # after[n] is what the step was n cycles ago.
        control = data.StructLayout(
            {"valid": 1, "again": 1, "ends": 1, "masked": 1, "pixel": PIXEL_BITS}
        )
        now = Signal(control)
        m.d.comb += [now.again.eq(~step.first), now.ends.eq(step.valid & step.last)]
        for name in ("valid", "masked", "pixel"):
            m.d.comb += now[name].eq(step[name])
        counted = Signal(COUNT_BITS)
        with m.If(~step.masked):
            m.d.comb += counted.eq(step.count)
        after, counts = [now], [counted]
        for n in range(1, dot_latency + 2):
            after.append(Signal(control, name=f"control_{n}"))
            m.d.sync += after[n].eq(after[n - 1])
            if self._bipolar:
                counts.append(Signal(COUNT_BITS, name=f"count_{n}", reset_less=True))
                m.d.sync += counts[n].eq(counts[n - 1])
        operand = Signal(step.operand.shape(), reset_less=True)
        m.d.sync += operand.eq(step.operand)

        def accumulator(name, index, partials, shape):
            """Adds the partial sums and keeps them; returns the sums that are asked for."""
            old_at, new_at = (
                copy(m, after[dot_latency + 1], f"{use}_{name}_{index}") for use in ("add", "store")
            )
            read_at = copy(m, read_pixel, f"read_{name}_{index}")
            layout = data.ArrayLayout(shape, len(partials))
            depth = Geometry.BLOCK_PIXELS
            running = Memory(shape=layout, depth=depth, init=[])
            output = Memory(shape=layout, depth=depth, init=[])
            m.submodules[f"running_{name}_{index}"] = running
            m.submodules[f"output_{name}_{index}"] = output
            # Read, add and write in one cycle: so there is no hazard between steps.
            old, store = running.read_port(domain="comb"), running.write_port()
            result, read = output.write_port(), output.read_port(domain="comb")
            sums = Signal(layout, name=f"sums_{name}_{index}")
            for lane, value in enumerate(partials):
                total = add(
                    m, platform, f"sum_{name}_{index}_{lane}", old.data[lane], value,
                    bits=self._acc_bits, a_on=old_at.again,
                )  # fmt: skip
                m.d.comb += sums[lane].eq(total)
            m.d.comb += [
                old.addr.eq(old_at.pixel),
                store.addr.eq(new_at.pixel),
                store.data.eq(sums),
                store.en.eq(new_at.valid),
                result.addr.eq(new_at.pixel),
                result.data.eq(sums),
                result.en.eq(new_at.ends),
                read.addr.eq(read_at),
            ]
            return [read.data[lane] for lane in range(len(partials))]

        # What asks for results may stand far away; the copies are in between.
        read_pixel = Signal.like(self.read_pixel, reset_less=True)
        read_group = Signal.like(self.read_group, reset_less=True)
        m.d.sync += [read_pixel.eq(self.read_pixel), read_group.eq(self.read_group)]

        # --- lanes -------------------------------------------------------------------------------
        for share in self._shares(WEIGHT_BITS_PER_COPY // sum(self._parts)):
            swap = copy(m, step.valid & step.swap, f"swap_{share.start}")
            for lane, loaded in zip(share, shadow_weights(share), strict=True):
                active = Signal(len(loaded), name=f"active_{lane}", reset_less=True)
                with m.If(swap):
                    m.d.sync += active.eq(loaded)
                m.d.comb += self._dots[lane].weights.eq(active)
        for share in self._shares(LANES_PER_COPY):
            operand_copy = copy(m, operand, f"operand_{share.start}")
            clear = copy(m, after[dot_latency].masked, f"clear_{share.start}")
            for lane in share:
                dot = self._dots[lane]
                m.d.comb += [dot.operand.eq(operand_copy), dot.clear.eq(clear)]
        read_lanes = []
        shape = self._acc_bits if self._bipolar else signed(self._acc_bits)
        for share in self._shares(SUM_BITS_PER_COPY // self._acc_bits):
            sums = [self._dots[lane].sum for lane in share]
            read_lanes += accumulator("lanes", share.start, sums, shape)
        written = after[dot_latency + 1]
        accumulated = Signal()
        pixel = Signal(PIXEL_BITS)
        m.d.sync += [
            accumulated.eq(written.ends),
            self.written.eq(accumulated),
            pixel.eq(written.pixel),
            self.written_pixel.eq(pixel),
        ]

        # --- read side ---------------------------------------------------------------------------
        layout = data.ArrayLayout(read_lanes[0].shape(), self._post_lanes)
        chosen = Signal(layout, reset_less=True)
        result = Signal(self.data.shape(), reset_less=True)
        m.d.comb += self.data.eq(result)
        for lane in range(self._post_lanes):
            group_copy = copy(m, read_group, f"read_group_{lane}")
            with m.Switch(group_copy):
                for group in range(lanes // self._post_lanes):
                    with m.Case(group):
                        m.d.sync += chosen[lane].eq(read_lanes[group * self._post_lanes + lane])
        if self._bipolar:
            count = Signal(COUNT_BITS, reset_less=True)
            m.d.sync += count.eq(counts[-1])
            (read_count,) = accumulator("count", 0, [count], self._acc_bits)
            valid_bits = Signal(self._acc_bits, reset_less=True)
            m.d.sync += valid_bits.eq(read_count)
            for lane in range(self._post_lanes):
                m.d.sync += result[lane].eq((chosen[lane] << 1) - valid_bits)
        else:
            for lane in range(self._post_lanes):
                m.d.sync += result[lane].eq(chosen[lane])
        return m

    def _shares(self, size):
        """The lanes in ranges of that size: at least one, and no more than share an operand."""
        return shares(self._lanes, min(max(size, 1), LANES_PER_COPY))

    def model(self, operands, weights, masked, counts):
        """Results of one pixel.

        ``operands``: (steps, 1, bits or taps); ``weights``: (steps, M, bits or taps); ``masked``
        and ``counts``: (steps,). Returns (M,).
        """
        used = ~np.asarray(masked, bool)
        sums = (self._dots[0].model(operands, weights) * used[:, None]).sum(axis=0)
        return 2 * sums - (np.asarray(counts) * used).sum() if self._bipolar else sums


def xnor_array(*, word_bits, lanes, port_bits, post_lanes, acc_bits=POPCOUNT_BITS):
    """The binary array: lanes of ``word_bits`` XNORs; operand and weights are words of bits."""
    check_positive("Array", word_bits=word_bits)
    return Array(
        dot=partial(XnorDot, word_bits=word_bits), bipolar=True, lanes=lanes,
        port_bits=port_bits, post_lanes=post_lanes, acc_bits=acc_bits,
    )  # fmt: skip


def mac_array(*, taps, stem_taps, lanes, port_bits, post_lanes, acc_bits=ACC_BITS):
    """The int8 array: lanes of ``taps`` products with 16-bit operands, and as many with bytes that
    there are ``stem_taps``."""
    check_positive("Array", taps=taps, stem_taps=stem_taps)
    return Array(
        dot=partial(MacDot, taps=taps, stem_taps=stem_taps), bipolar=False, lanes=lanes,
        port_bits=port_bits, post_lanes=post_lanes, acc_bits=acc_bits,
    )  # fmt: skip
