"""The sequencer: takes layer descriptors and starts the units that each layer needs."""

from amaranth import Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from hw.copies import kept
from isa.layer import LAYER, LayerKind


class Sequencer(wiring.Component):
    """One layer after the other: fetch the descriptor, start the units, wait for the last write.

    A frame begins with ``start_frame``. Three strobes start the units in the next cycle, from a
    register of each one's own: ``starts`` those that take part in every layer, the other two those
    of one kind. ``layer`` is stable from two cycles before the units start to the layer's end, so
    that they may register what they derive from it. When the classifier ends, the logits are
    scanned (``scan``, ``scanned``), and ``frame_done`` pulses once the loader has found the frame's
    CRC-32 right (``frame_ok``). What it is at, in each cycle from ``start_frame`` to
    ``frame_done``, one of the last five outputs tells.
    """

    start_frame: In(1)
    descriptor: In(stream.Signature(LAYER))
    layer: Out(LAYER)
    index: Out(8)
    starts: Out(1)
    starts_convolution: Out(1)
    starts_reduction: Out(1)
    layer_done: In(1)
    release_input: Out(1)
    clear_result: Out(1)
    scan: Out(1)
    scanned: In(1)
    frame_ok: In(1)
    frame_done: Out(1)
    fetching: Out(1)  # wants a descriptor
    beginning: Out(1)  # has one, and is about to start the units
    running: Out(1)  # has started them, and waits for the layer's last write
    scanning: Out(1)
    finishing: Out(1)  # waits for the CRC

    def elaborate(self, platform):
        m = Module()
        layer = Signal(LAYER, reset_less=True)
        m.d.comb += self.layer.eq(layer)
        reduction = Signal()
        m.d.sync += reduction.eq((layer.kind == LayerKind.POOL) | (layer.kind == LayerKind.MEAN))
        # Registers: hundreds of clock enables hang on each.
        take = kept(1, "take")
        is_stem, is_classifier, layer_done = Signal(), Signal(), Signal()
        m.d.comb += self.descriptor.ready.eq(take)
        m.d.sync += [
            take.eq(0),
            is_stem.eq(layer.kind == LayerKind.STEM),
            is_classifier.eq(layer.kind == LayerKind.CLASSIFIER),
            layer_done.eq(self.layer_done),
        ]
        with m.If(take):
            m.d.sync += layer.eq(self.descriptor.payload)
        with m.FSM() as fsm:
            with m.State("IDLE"):
                with m.If(self.start_frame):
                    m.d.comb += self.fetching.eq(1)
                    m.next = "FETCH"
            with m.State("FETCH"):
                m.d.comb += self.fetching.eq(1)
                with m.If(self.descriptor.valid):
                    m.d.sync += take.eq(1)
                    m.next = "TAKE"
            with m.State("TAKE"):
                m.d.comb += self.fetching.eq(1)
                m.next = "SETTLE"
            with m.State("SETTLE"):
                m.d.comb += self.clear_result.eq(self.index == 0)
                m.next = "SETTLE2"
            with m.State("SETTLE2"):
                m.d.comb += [
                    self.starts.eq(1),
                    self.starts_reduction.eq(reduction),
                    self.starts_convolution.eq(~reduction),
                ]
                m.next = "START"
            with m.State("START"):
                m.next = "RUN"
            with m.State("RUN"):
                with m.If(layer_done):
                    m.d.comb += self.release_input.eq(is_stem & layer.ends)
                    with m.If(is_classifier & layer.ends):
                        m.next = "SCAN"
                    with m.Else():
                        m.d.sync += self.index.eq(self.index + 1)
                        m.next = "FETCH"
            with m.State("SCAN"):
                m.d.comb += self.scan.eq(1)
                m.next = "SCANNING"
            with m.State("SCANNING"):
                with m.If(self.scanned):
                    m.next = "FINISH"
            with m.State("FINISH"):
                with m.If(self.frame_ok):
                    m.d.comb += self.frame_done.eq(1)
                    m.d.sync += self.index.eq(0)
                    m.next = "IDLE"
        m.d.comb += [
            self.beginning.eq(
                fsm.ongoing("SETTLE") | fsm.ongoing("SETTLE2") | fsm.ongoing("START")
            ),
            self.running.eq(fsm.ongoing("RUN")),
            self.scanning.eq(fsm.ongoing("SCAN") | fsm.ongoing("SCANNING")),
            self.finishing.eq(fsm.ongoing("FINISH")),
        ]
        return m
