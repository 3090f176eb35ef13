"""The logits of a frame, and the classes of the largest ones."""

import numpy as np
from amaranth.hdl import Const, Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from hw.arguments import check_positive
from hw.maps import UNCHECKED
from isa.fixed import LOGIT_BITS, limits
from isa.registers import CLASS_BITS, NO_CLASS


class Result(wiring.Component):
    """Stores logits as the classifier makes them, and looks for the ``top_k`` largest.

    Members
    -------
    clear : In(1)
        Pulse: the next word holds the logits of classes 0..L-1. Not together with a word.
    input : In(valid, logits: L x signed(24))
        Consecutive words are classes 0..L-1, L..2L-1 and so on; words beyond ``classes`` are
        dropped. No flow control.
    count : In
        Classes of the network; lanes beyond them are padding. Constant during a scan.
    scan : In(1)
        Pulse: look for the largest logits; not before the cycle after the last word.
    done : Out(1)
        Pulse, ``count + scan_latency`` cycles after ``scan``: top_class and top_logit are valid,
        largest first, the lower class first where logits are equal.
    read_class : In, read_logit : Out(signed(24))
        A logit, READ_LATENCY cycles later; undefined during a scan.
    top_class, top_logit : Out(arrays of top_k)
        NO_CLASS and the smallest logit for entries beyond ``count``.
    """

    READ_LATENCY = 3
    PLACE_LATENCY = 2  # of a place in the list: comparison, and exchange

    def __init__(self, *, post_lanes, classes, top_k):
        check_positive("Result", post_lanes=post_lanes, classes=classes, top_k=top_k)
        if classes > NO_CLASS:
            raise ValueError(f"Result classes must be at most {NO_CLASS}, not {classes!r}")
        self._post_lanes, self._classes, self._top_k = post_lanes, classes, top_k
        self.scan_latency = self.READ_LATENCY + 1 + self.PLACE_LATENCY * top_k
        super().__init__(
            {
                "clear": In(1),
                "input": In(
                    data.StructLayout(
                        {
                            "valid": 1,
                            "logits": data.ArrayLayout(signed(LOGIT_BITS), post_lanes),
                        }
                    )
                ),
                "count": In(range(classes + 1)),
                "scan": In(1),
                "done": Out(1),
                "read_class": In(range(classes)),
                "read_logit": Out(signed(LOGIT_BITS)),
                "top_class": Out(data.ArrayLayout(CLASS_BITS, top_k)),
                "top_logit": Out(data.ArrayLayout(signed(LOGIT_BITS), top_k)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        words = -(-self._classes // self._post_lanes)
        layout = self.input.logits.shape()
        m.submodules.store = store = Memory(shape=layout, depth=words, init=[], attrs=UNCHECKED)

        # Words come from far away, so they are registered first.
        write, position = store.write_port(), Signal(range(words + 1))
        valid, clear = Signal(), Signal()
        arrived = Signal(layout, reset_less=True)
        m.d.sync += [
            valid.eq(self.input.valid),
            clear.eq(self.clear),
            arrived.eq(self.input.logits),
        ]
        m.d.comb += [
            write.addr.eq(position),
            write.data.eq(arrived),
            write.en.eq(valid & (position != words)),
        ]
        with m.If(write.en):
            m.d.sync += position.eq(position + 1)
        with m.If(clear):
            m.d.sync += position.eq(0)

        # --- reading, for the scan or the host --------------------------------------------------
        scanning, scanned = Signal(), Signal(range(self._classes + 1))
        at = data.StructLayout({"word": range(words), "lane": range(self._post_lanes)})
        wanted, lanes = Signal(at), [Signal(range(self._post_lanes)) for _ in range(2)]
        scan_at = Signal(at)
        m.d.comb += wanted.eq(Mux(scanning, scan_at, 0))
        with m.If(~scanning):
            m.d.comb += [
                wanted.word.eq(self.read_class // self._post_lanes),
                wanted.lane.eq(self.read_class % self._post_lanes),
            ]
        read = store.read_port()
        logits = Signal(layout, reset_less=True)
        m.d.comb += [read.addr.eq(wanted.word), read.en.eq(1)]
        m.d.sync += [
            lanes[0].eq(wanted.lane),
            lanes[1].eq(lanes[0]),
            logits.eq(read.data),
            self.read_logit.eq(logits[lanes[1]]),
        ]

        # --- one class a cycle into a sorted list, each of whose places works a while later ------
        with m.If(scanning):
            m.d.sync += [scanned.eq(scanned + 1), scan_at.lane.eq(scan_at.lane + 1)]
            with m.If(scan_at.lane == self._post_lanes - 1):
                m.d.sync += [scan_at.lane.eq(0), scan_at.word.eq(scan_at.word + 1)]
            with m.If(scanned == self.count):
                m.d.sync += scanning.eq(0)
        with m.If(self.scan):
            m.d.sync += [scanning.eq(1), scanned.eq(0), scan_at.eq(0)]
        pipeline = data.StructLayout({"valid": 1, "end": 1, "index": CLASS_BITS})
        entry = Signal(pipeline)
        m.d.comb += [
            entry.valid.eq(scanning & (scanned != self.count)),
            entry.end.eq(scanning & (scanned == self.count)),
            entry.index.eq(scanned),
        ]
        for n in range(self.READ_LATENCY):
            later = Signal(pipeline, name=f"entry_{n}")
            m.d.sync += later.eq(entry)
            entry = later
        end, valid = entry.end, entry.valid
        index, logit = entry.index, self.read_logit
        sure = Const(0)  # comes from the place before: belongs ahead, even if the logits are equal
        used = Signal(self._top_k)
        for i in range(self._top_k):
            held_index, held_logit = self.top_class[i], self.top_logit[i]
            # First it is seen whether it enters; what does so in this cycle will be held by then.
            # Strictly larger, so that of equal logits the lower class, which came first, stays.
            enters = Signal(name=f"enters_{i}")
            at_end, at_valid = Signal(name=f"at_end_{i}"), Signal(name=f"at_valid_{i}")
            at_index = Signal.like(index, name=f"at_index_{i}", reset_less=True)
            at_logit = Signal.like(logit, name=f"at_logit_{i}", reset_less=True)
            larger = Mux(enters, logit > at_logit, ~used[i] | (logit > held_logit))
            m.d.sync += [
                at_end.eq(end),
                at_valid.eq(valid),
                at_index.eq(index),
                at_logit.eq(logit),
                enters.eq(valid & (sure | larger)),
            ]
            with m.If(enters):
                m.d.sync += [used[i].eq(1), held_index.eq(at_index), held_logit.eq(at_logit)]
            if i == self._top_k - 1:
                m.d.sync += self.done.eq(at_end)
                break
            # What it displaces, or itself, goes on to the next place.
            end, valid, sure = (Signal(name=f"{name}_{i}") for name in ("end", "valid", "sure"))
            index = Signal.like(index, name=f"index_{i}", reset_less=True)
            logit = Signal.like(logit, name=f"logit_{i}", reset_less=True)
            m.d.sync += [
                end.eq(at_end),
                valid.eq(at_valid & (~enters | used[i])),
                sure.eq(enters),
                index.eq(Mux(enters, held_index, at_index)),
                logit.eq(Mux(enters, held_logit, at_logit)),
            ]
        with m.If(self.scan):
            m.d.sync += used.eq(0)
            for i in range(self._top_k):
                m.d.sync += [
                    self.top_class[i].eq(NO_CLASS),
                    self.top_logit[i].eq(limits(LOGIT_BITS)[0]),
                ]
        return m

    @staticmethod
    def model(logits, top_k):
        """(classes,) -> classes and logits of the largest, filled up as described above."""
        logits = np.asarray(logits, np.int64)
        order = np.argsort(-logits, kind="stable")[:top_k]
        missing = (0, top_k - len(order))
        return (
            np.pad(order, missing, constant_values=NO_CLASS),
            np.pad(logits[order], missing, constant_values=limits(LOGIT_BITS)[0]),
        )
