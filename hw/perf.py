"""What the perf counters count: one level for each, derived from what the core's units are at."""

from amaranth.hdl import Module, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from isa.registers import COUNTERS
from isa.trace import ACTIVITIES

#: Levels, in the registers' order.
PERF = data.StructLayout(dict.fromkeys(ACTIVITIES, 1))
PERF_REGISTERS = dict(zip(ACTIVITIES, COUNTERS[1:], strict=True))

#: Cycles by which the levels are late.
LATENCY = 2


#: What is registered as it comes.
_LEVELS = (
    "beginning", "running", "scanning", "finishing", "binary",
    "preparing", "working", "wait_input", "wait_output", "wait_weights", "reducing",
)  # fmt: skip


class Perf(wiring.Component):
    """Tells by one of `isa.registers.EXCLUSIVE` what the core does in each cycle of a frame.

    Members
    -------
    fetching, found : In(1)
        The sequencer wants a descriptor, which is there. From a frame's first cycle on it is in one
        of ``fetching``, ``beginning``, ``running``, ``scanning`` and ``finishing``, and in none
        between frames.
    beginning, running : In(1)
        A layer's units are about to be started; they have been.
    scanning, finishing : In(1)
        The logits are scanned; the frame's CRC is waited for.
    binary : In(1)
        The layer is one for the XNOR array; constant while the step walker works.
    preparing, working, wait_input, wait_output, wait_weights : In(1)
        Of the step walker: never two of the first two, nor of the waits, which are while working.
        Only while ``running``.
    reducing : In(1)
        The reducer reads. Only while ``running``, and not together with those of the step walker.
    stream_busy, wait_stream : In(1)
        The loader's, a cycle late.
    perf : Out(PERF)
        LATENCY cycles late. At most one of the exclusive levels is up; none is between frames.

    All levels pass two registers, with a few gates between them: they come from the decisions of
    the sequencer and the walker, and go to counters.
    """

    fetching: In(1)
    found: In(1)
    beginning: In(1)
    running: In(1)
    scanning: In(1)
    finishing: In(1)
    binary: In(1)
    preparing: In(1)
    working: In(1)
    wait_input: In(1)
    wait_output: In(1)
    wait_weights: In(1)
    reducing: In(1)
    stream_busy: In(1)
    wait_stream: In(1)
    perf: Out(PERF)

    def elaborate(self, platform):
        m = Module()
        was = {name: Signal(name=f"was_{name}") for name in _LEVELS}
        m.d.sync += [signal.eq(getattr(self, name)) for name, signal in was.items()]
        lacks, has = Signal(), Signal()  # the descriptor
        m.d.sync += [lacks.eq(self.fetching & ~self.found), has.eq(self.fetching & self.found)]
        step = was["working"] & ~(was["wait_input"] | was["wait_output"] | was["wait_weights"])
        at_work = was["preparing"] | was["working"] | was["reducing"]
        m.d.sync += [
            self.perf.binary_layer.eq(was["binary"] & (was["beginning"] | was["running"])),
            self.perf.array_busy.eq(step & was["binary"]),
            self.perf.mac_busy.eq(step & ~was["binary"]),
            self.perf.reduce_busy.eq(was["reducing"]),
            self.perf.wait_weights.eq(was["wait_weights"]),
            self.perf.wait_input.eq(was["wait_input"]),
            self.perf.wait_post.eq(was["wait_output"]),
            self.perf.wait_load.eq(lacks),
            self.perf.begin_layer.eq(has | was["beginning"] | was["preparing"]),
            self.perf.drain_layer.eq(was["running"] & ~at_work),
            self.perf.scan_logits.eq(was["scanning"]),
            self.perf.wait_crc.eq(was["finishing"]),
            self.perf.stream_busy.eq(self.stream_busy),
            self.perf.wait_stream.eq(self.wait_stream),
        ]
        return m
