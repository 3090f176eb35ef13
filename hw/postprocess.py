"""Everything after a convolution: BN, shortcut, PReLU, the next sign bit, and the logits.

The arithmetic is isa.fixed.post_process and isa.fixed.logits, one pipeline per lane.
"""

from amaranth.hdl import Cat, Const, Module, Mux, Shape, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from hw.arguments import check_multiple, check_positive
from hw.arithmetic import judged, rounded, saturated, with_half
from hw.copies import copy
from hw.multiplier import Multiplier
from isa import fixed
from isa.fixed import (
    ACC18_BITS,
    ACC_BITS,
    GUARD_BITS,
    LOGIT_BITS,
    RESIDUAL_BITS,
    SHIFT_BITS,
    SLOPE_FRACTION,
    SUM_BITS,
    T_BITS,
)
from isa.layer import CHANNEL

BANKS = 2
#: A shift by 0..31 is a shift by 0, 8, 16 or 24, and in the next cycle one by 0..7.
FINE_SHIFT_BITS = 3


def input_layout(lanes, post_lanes):
    return data.StructLayout(
        {
            "valid": 1,
            "group": range(lanes // post_lanes),
            "acc": data.ArrayLayout(signed(ACC_BITS), post_lanes),
            "residual": data.ArrayLayout(signed(RESIDUAL_BITS), post_lanes),
        }
    )


def output_layout(post_lanes):
    return data.StructLayout(
        {
            "valid": 1,
            "residual": data.ArrayLayout(signed(RESIDUAL_BITS), post_lanes),
            "bits": post_lanes,
            "logits": data.ArrayLayout(signed(LOGIT_BITS), post_lanes),
        }
    )


class ParameterStore(wiring.Component):
    """Parameters of two tiles of M channels, one to compute with and one to fill.

    Each field has a read port of its own for every post lane, ``LATENCY`` cycles from ``bank`` and
    ``group`` (which may differ between fields) to data.

    Members
    -------
    params : In(stream of CHANNEL)
        M consecutive channels make a tile; channel c belongs to lane c % L of group c // L.
    tile_ready : Out(1)
        The oldest tile is complete: its parameters can be read.
    tile_done : In(1)
        Pulse: no further word will enter for the oldest tile. ``bank`` moves on to the next one.
    tile_free : In(1)
        Pulse, after each ``tile_done``: the tile's parameters have been read for the last time.
    bank : Out
        The oldest tile's place.
    at : In, a place per field
    values : Out, L channels
    """

    LATENCY = 1

    def __init__(self, *, lanes, post_lanes):
        self._lanes, self._post_lanes = lanes, post_lanes
        self._groups = lanes // post_lanes
        self.place = data.StructLayout({"group": range(self._groups), "bank": range(BANKS)})
        super().__init__(
            {
                "params": In(stream.Signature(CHANNEL)),
                "tile_ready": Out(1),
                "tile_done": In(1),
                "tile_free": In(1),
                "bank": Out(range(BANKS)),
                "at": In(data.StructLayout(dict.fromkeys(CHANNEL.members, self.place))),
                "values": Out(data.ArrayLayout(CHANNEL, post_lanes)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        complete, taken = Signal(range(BANKS + 1)), Signal(range(BANKS + 1))
        lane_at, group = Signal(range(self._post_lanes)), Signal(range(self._groups))
        write_bank = Signal(range(BANKS))
        accepted, word_end, filled = Signal(), Signal(), Signal()
        m.d.comb += [
            self.params.ready.eq(taken != BANKS),
            self.tile_ready.eq(complete != 0),
            accepted.eq(self.params.valid & self.params.ready),
            word_end.eq(accepted & (lane_at == self._post_lanes - 1)),
            filled.eq(word_end & (group == self._groups - 1)),
        ]
        with m.If(accepted):
            m.d.sync += lane_at.eq(lane_at + 1)
        with m.If(word_end):
            m.d.sync += [lane_at.eq(0), group.eq(group + 1)]
        with m.If(filled):
            m.d.sync += [group.eq(0), write_bank.eq(~write_bank)]
        with m.If(self.tile_done):
            m.d.sync += self.bank.eq(~self.bank)
        m.d.sync += [
            complete.eq(complete + filled - self.tile_done),
            taken.eq(taken + filled - self.tile_free),
        ]
        values = Signal.like(self.values, reset_less=True)
        m.d.comb += self.values.eq(values)
        for lane in range(self._post_lanes):
            for name, field in CHANNEL:
                memory = Memory(shape=field.shape, depth=BANKS * self._groups, init=[])
                m.submodules[f"{name}_{lane}"] = memory
                write, read = memory.write_port(), memory.read_port(domain="comb")
                m.d.comb += [
                    write.addr.eq(group + write_bank * self._groups),
                    write.data.eq(self.params.payload[name]),
                    write.en.eq(accepted & (lane_at == lane)),
                    read.addr.eq(self.at[name].group + self.at[name].bank * self._groups),
                ]
                m.d.sync += values[lane][name].eq(read.data)
        return m


class PostLane(wiring.Component):
    """The pipeline of one channel. No flow control: a value enters and leaves in every cycle.

    ``m``, ``n``, ``slope``, ``bias2`` and ``threshold`` are taken in the cycles ``USED_AT[name]``
    after ``acc`` and ``residual``. ``a``, ``s``, ``k`` and ``shortcut`` are constant.
    """

    LATENCY = 18
    USED_AT = {"m": 5, "n": 6, "slope": 12, "bias2": 16, "threshold": 17}

    acc: In(signed(ACC_BITS))
    residual: In(signed(RESIDUAL_BITS))
    params: In(CHANNEL)
    a: In(SHIFT_BITS)
    s: In(SHIFT_BITS)
    k: In(SHIFT_BITS)
    shortcut: In(1)
    new_residual: Out(signed(RESIDUAL_BITS))
    bit: Out(1)
    logit: Out(signed(LOGIT_BITS))

    def elaborate(self, platform):
        m = Module()
        params = self.params
        cycles = {}

        def register(name, value, cycle, bits=None):
            """A register that holds its value in so many cycles after the input."""
            shape = Shape.cast(value.shape())
            target = Signal(signed(bits or shape.width), name=name, reset_less=True)
            m.d.sync += target.eq(value)
            cycles[name] = cycle
            return target

        def multiply(name, a, b):
            """Two cycles."""
            m.submodules[f"{name}_multiplier"] = unit = Multiplier(a_bits=len(a), b_bits=len(b))
            m.d.comb += [unit.a.eq(a), unit.b.eq(b)]
            return unit.product

        def coarse(shift):
            return Cat(Const(0, FINE_SHIFT_BITS), shift[FINE_SHIFT_BITS:])

        def fine(shift):
            return shift[:FINE_SHIFT_BITS]

        # acc18 = saturated round(acc >> a); the aligned shortcut beside it
        acc = register("acc_in", self.acc, 1)
        residual = register("residual_in", Mux(self.shortcut, self.residual, 0), 1)
        acc = register("acc_coarse", with_half(acc) >> coarse(self.a), 2)
        residual = register("residual_coarse", residual << coarse(self.k), 2, SUM_BITS)
        acc = register("acc_fine", acc >> fine(self.a), 3)
        residual = register("residual_fine", residual << fine(self.k), 3, SUM_BITS)
        acc = register("acc_judged", judged(acc, ACC18_BITS), 4)
        acc18 = register("acc18", rounded(acc, ACC18_BITS), 5)
        for cycle in (4, 5, 6):
            residual = register(f"residual_{cycle}", residual, cycle)
        # t = saturated round((m * acc18 + n + shortcut) >> s)
        product = multiply("product", params.m, acc18)
        offset = register("offset", params.n + residual, 7, SUM_BITS)
        total = register("total", product + offset, 8, SUM_BITS)
        total = register("total_coarse", with_half(total) >> coarse(self.s), 9)
        total = register("total_fine", total >> fine(self.s), 10)
        t = register("t_judged", judged(total, T_BITS), 11)
        t = register("t", rounded(t, T_BITS), 12)
        logit = register("logit_judged", judged(total, LOGIT_BITS), 11)
        logit = register("logit_12", rounded(logit, LOGIT_BITS), 12)
        # y = PReLU(t) + bias2
        sloped = multiply("sloped", params.slope, t)
        positive = t
        for cycle in (13, 14, 15):
            positive = register(f"t_{cycle}", positive, cycle)
        sloped = sloped[SLOPE_FRACTION - 1 :].as_signed()
        negative = register("negative_judged", judged(sloped, T_BITS), 15)
        active = Mux(positive[-1], rounded(negative, T_BITS), positive)
        active = register("active", active, 16)
        y = register("y", saturated(active + params.bias2, T_BITS), 17)
        for cycle in range(13, self.LATENCY):
            logit = register(f"logit_{cycle}", logit, cycle)
        new_residual, bit, logit_out = (
            Signal.like(port, reset_less=True) for port in (self.new_residual, self.bit, self.logit)
        )
        m.d.sync += [
            new_residual.eq(rounded(y[GUARD_BITS - 1 :].as_signed(), RESIDUAL_BITS)),
            bit.eq(y >= params.threshold),
            logit_out.eq(logit),
        ]
        m.d.comb += [
            self.new_residual.eq(new_residual),
            self.bit.eq(bit),
            self.logit.eq(logit_out),
        ]
        assert max(cycles.values()) == self.LATENCY - 1
        return m


class PostProcess(wiring.Component):
    """L lanes of post-process, and the parameters of two tiles.

    Members
    -------
    params : In(stream of CHANNEL)
        Parameters of M consecutive channels make a tile; taken while a tile is free.
    tile_ready : Out(1)
        The parameters of the oldest tile are complete.
    tile_done : In(1)
        Pulse that frees the oldest tile; may come with its last input. The next input belongs to
        the next tile. Only while ``tile_ready``, which falls in the next cycle unless the next tile
        is complete too.
    a, s, k, shortcut : In
        Shifts of the layer, and whether the residual is added. Constant from the cycle before the
        first word enters the pipeline until the last one has left.
    input : In(input_layout)
        One word of L channels; no flow control.
    output : Out(output_layout)
        What became of it, ``latency`` cycles later: new residuals, sign bits, and logits.
    """

    latency = PostLane.LATENCY

    def __init__(self, *, lanes, post_lanes):
        check_positive("PostProcess", lanes=lanes, post_lanes=post_lanes)
        check_multiple("PostProcess", "lanes", lanes, "post_lanes", post_lanes)
        self._lanes, self._post_lanes = lanes, post_lanes
        super().__init__(
            {
                "params": In(stream.Signature(CHANNEL)),
                "tile_ready": Out(1),
                "tile_done": In(1),
                "a": In(SHIFT_BITS),
                "s": In(SHIFT_BITS),
                "k": In(SHIFT_BITS),
                "shortcut": In(1),
                "input": In(input_layout(lanes, post_lanes)),
                "output": Out(output_layout(post_lanes)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.store = store = ParameterStore(lanes=self._lanes, post_lanes=self._post_lanes)
        wiring.connect(m, wiring.flipped(self.params), store.params)

        # What travels beside the data: after[n] is the value of n cycles ago.
        beside = data.StructLayout({"valid": 1, "done": 1, "place": store.place})
        now = Signal(beside)
        m.d.comb += [
            now.valid.eq(self.input.valid),
            now.done.eq(self.tile_done),
            now.place.group.eq(self.input.group),
            now.place.bank.eq(store.bank),
        ]
        after = [now]
        for n in range(1, self.latency + 1):
            after.append(Signal(beside, name=f"beside_{n}"))
            m.d.sync += after[n].eq(after[n - 1])
        for name, cycle in PostLane.USED_AT.items():
            m.d.comb += store.at[name].eq(after[cycle - store.LATENCY].place)
        m.d.comb += [
            self.tile_ready.eq(store.tile_ready),
            store.tile_done.eq(self.tile_done),
            # Freed when the field that is used last has been read.
            store.tile_free.eq(after[max(PostLane.USED_AT.values()) - store.LATENCY].done),
            self.output.valid.eq(after[self.latency].valid),
        ]
        for index in range(self._post_lanes):
            lane = m.submodules[f"lane_{index}"] = PostLane()
            # What all the shifters hang on.
            for name in ("a", "s", "k", "shortcut"):
                m.d.comb += getattr(lane, name).eq(copy(m, getattr(self, name), f"{name}_{index}"))
            m.d.comb += [
                lane.acc.eq(self.input.acc[index]),
                lane.residual.eq(self.input.residual[index]),
                lane.params.eq(store.values[index]),
                self.output.residual[index].eq(lane.new_residual),
                self.output.bits[index].eq(lane.bit),
                self.output.logits[index].eq(lane.logit),
            ]
        return m

    @staticmethod
    def model(acc, residual, params, shifts):
        """(..., channels) -> residuals, bits and logits. ``residual`` None: no shortcut."""
        return (
            *fixed.post_process(acc, residual, params, shifts),
            fixed.saturate(fixed.post_process_sum(acc, residual, params, shifts), LOGIT_BITS),
        )
