"""The register file, the state machine of a frame, the perf counters and the watchdog.

`Control` is the bus's only slave: it decodes the map of `isa.registers`. All reads take as long as
that of a logit, READ_CYCLES or more. A write takes two cycles, and acts in the one after it; a word
for a port waits until the port's queue has room, so that a master that gives up has not pushed it.
"""

from functools import reduce
from operator import or_

from amaranth.hdl import Module, Mux, Signal, Value, signed
from amaranth.lib import data, enum, stream, wiring
from amaranth.lib.wiring import In, Out

from hw.bus import BusSignature, MemoryWriteSignature, PortBuffer
from hw.copies import copy
from hw.perf import LATENCY, PERF, PERF_REGISTERS
from isa import image
from isa.bits import WORD_BITS
from isa.fixed import LOGIT_BITS
from isa.registers import CONTROL, IMAGE_ADDRESS_BITS, MEMORY, ErrorCode, Register, Source, State

CLASS_BITS = 16
GROUP = 8  # registers that are read through one multiplexer


class Window(enum.Enum, shape=3):
    """Parts of the address space, by what answers there."""

    NONE = 0  # reads 0, ignores writes
    REGISTERS = 1
    INPUT = 2
    STREAM = 3
    LOGITS = 4
    IMAGE = 5


class Control(wiring.Component):
    """What the host sees.

    Members
    -------
    bus : In(BusSignature)
    image_write : Out(MemoryWriteSignature)
        To the memory that `source` names. Nothing else is written while a word waits there.
    stream, input : Out(stream of 32-bit words)
        To `LinkSource.stream`; to the input map. Emptied by `abort`; dropped in state ERROR.
    source : Out(Source)
        Changes only while nothing streams.
    check, start : Out(1)
        Strobes to the loader; `start` to the core as well.
    stem_done, more : Out(1)
        Of the frame that was started last: its stem had been computed ahead; another frame was
        announced, whose stem it computes.
    abort : Out(1)
        High for ABORT_CYCLES after an error or the host's ABORT: resets core, loader and sources,
        and lasts until what has no reset there has passed on what it held. The resets may be
        RESET_CYCLES late: bus requests wait meanwhile, and for as long after it.
    checked, frame_ok, error, error_valid, classes, image_crc : In
        From the loader.
    memory : In(MEMORY)
        What became of the external memory. Without a good one, Source.SDRAM is refused; so is
        Source.RAM where the geometry has none.
    copied : In(1)
        Strobe: an image has come from the flash. It becomes the source, and is checked.
    claim : Out(1)
        Strobe: the host has written the image, SOURCE or CONTROL; `copied` comes too late then.
    frame_done : In(1)
        Pulse: the core has finished the frame. It is DONE once `frame_ok` is up as well.
    progress : In(1)
        Anything moved in core or loader: restarts the watchdog. A pushed word does so too.
    perf : In(PERF)
        Levels, `hw.perf.LATENCY` cycles late; counted from the cycle of `start` to that of
        `frame_done`.
    logit_address, logit_data
        Read port of the logits: data follows the address by `logit_latency` cycles.
    top_class, top_logit : In
        The largest logits, largest first.
    interrupt : Out(1)
        Level: the state is READY, DONE or ERROR.
    state : Out(State)

    Logits and top-k read 0 in any state but DONE. Writing the image, or changing the source, makes
    a checked image an unchecked one: the state is IDLE again.
    """

    ABORT_CYCLES = 64
    RESET_CYCLES = 4
    READ_CYCLES = 4  # address register, group of registers, register, read register
    WATCHDOG_CYCLES = 1 << 24

    def __init__(self, *, geometry, logit_latency=2, watchdog_cycles=WATCHDOG_CYCLES):
        if not isinstance(logit_latency, int) or logit_latency < 1:
            raise ValueError(
                f"Control logit_latency must be a positive integer, not {logit_latency!r}"
            )
        if not isinstance(watchdog_cycles, int) or not 0 < watchdog_cycles < 1 << WORD_BITS:
            raise ValueError(
                f"Control watchdog_cycles must be in 1..{(1 << WORD_BITS) - 1}, "
                f"not {watchdog_cycles!r}"
            )
        self._geometry = geometry
        self._watchdog_cycles = watchdog_cycles
        # Address register, logits, read register
        self._read_cycles = max(logit_latency + 2, self.READ_CYCLES)
        super().__init__(
            {
                "bus": In(BusSignature()),
                "image_write": Out(MemoryWriteSignature(address_bits=IMAGE_ADDRESS_BITS)),
                "stream": Out(stream.Signature(WORD_BITS)),
                "input": Out(stream.Signature(WORD_BITS)),
                "source": Out(Source),
                "check": Out(1),
                "start": Out(1),
                "stem_done": Out(1),
                "more": Out(1),
                "abort": Out(1),
                "checked": In(1),
                "frame_ok": In(1),
                "error": In(ErrorCode),
                "error_valid": In(1),
                "memory": In(MEMORY),
                "copied": In(1),
                "claim": Out(1),
                "classes": In(CLASS_BITS),
                "image_crc": In(WORD_BITS),
                "frame_done": In(1),
                "progress": In(1),
                "perf": In(PERF),
                "logit_address": Out(range(geometry.classes)),
                "logit_data": In(signed(LOGIT_BITS)),
                "top_class": In(data.ArrayLayout(CLASS_BITS, geometry.top_k)),
                "top_logit": In(data.ArrayLayout(signed(LOGIT_BITS), geometry.top_k)),
                "interrupt": Out(1),
                "state": Out(State),
            }
        )

    def elaborate(self, platform):
        m = Module()
        bus = self.bus
        state = self.state

        # The request, one cycle old: `age` counts the cycles it has been held.
        age = Signal(range(self._read_cycles + 1))
        window = Signal(Window)
        address = Signal.like(bus.address)
        # The one cycle in which a write takes effect, the one after it was acknowledged: then the
        # request stands in registers.
        commit = Signal()
        write_data = Signal(WORD_BITS, reset_less=True)
        aborting = Signal(range(self.ABORT_CYCLES + self.RESET_CYCLES + 1))
        m.submodules.input_port = input_port = PortBuffer()
        m.submodules.stream_port = stream_port = PortBuffer()
        room = Signal()
        m.d.comb += [
            room.eq(
                ~self.image_write.valid
                & ((window != Window.INPUT) | input_port.room)
                & ((window != Window.STREAM) | stream_port.room)
            ),
        ]
        m.d.sync += [
            address.eq(bus.address),
            window.eq(self._window(m)),
            write_data.eq(bus.write_data),
            commit.eq(bus.valid & bus.write & bus.ack),
            bus.ack.eq(0),
            age.eq(0),
        ]
        with m.If(bus.valid & ~bus.ack & (aborting == 0)):
            with m.If(age != self._read_cycles):
                m.d.sync += age.eq(age + 1)
            with m.Else():
                m.d.sync += age.eq(age)
            with m.If((age != 0) & bus.write & room):
                m.d.sync += bus.ack.eq(1)
            with m.If((age == self._read_cycles) & ~bus.write):
                m.d.sync += bus.ack.eq(1)

        # Ports and windows
        m.d.comb += [
            input_port.word.eq(write_data),
            stream_port.word.eq(write_data),
            # What is left of a frame that has failed must not reach the next one.
            input_port.push.eq(commit & (window == Window.INPUT) & (state != State.ERROR)),
            stream_port.push.eq(commit & (window == Window.STREAM) & (state != State.ERROR)),
            self.logit_address.eq(address),
        ]
        for port, out in ((input_port.stream, self.input), (stream_port.stream, self.stream)):
            m.d.comb += [
                out.payload.eq(port.payload),
                out.valid.eq(port.valid & ~self.abort),
                port.ready.eq(out.ready | self.abort),
            ]

        # A word of the image waits until its memory takes it
        with m.If(self.image_write.ready):
            m.d.sync += self.image_write.valid.eq(0)
        with m.If(commit & (window == Window.IMAGE)):
            m.d.sync += [
                self.image_write.valid.eq(1),
                self.image_write.address.eq(address),
                self.image_write.data.eq(write_data),
            ]

        # The state of the frame
        error = Signal(ErrorCode)
        frames = Signal(WORD_BITS)
        finished = Signal()  # frame_done has come, frame_ok perhaps not yet
        ahead = Signal()  # the stem of the next frame has been computed
        running = state == State.RUNNING
        busy = Signal()
        watchdog = Signal(WORD_BITS, init=self._watchdog_cycles)
        patience = Signal(WORD_BITS)
        starved = Signal()
        command = data.View(CONTROL, write_data[: CONTROL.size])
        m.d.comb += [
            busy.eq((state == State.CHECKING) | running),
            self.interrupt.eq(
                (state == State.READY) | (state == State.DONE) | (state == State.ERROR)
            ),
        ]
        m.d.sync += [self.check.eq(0), self.start.eq(0)]
        m.d.sync += self.abort.eq(aborting > self.RESET_CYCLES)
        with m.If(aborting != 0):
            m.d.sync += aborting.eq(aborting - 1)

        def fail(code):
            return [
                state.eq(State.ERROR),
                error.eq(code),
                aborting.eq(self.ABORT_CYCLES + self.RESET_CYCLES),
                ahead.eq(0),
            ]

        begin_check = [
            state.eq(State.CHECKING),
            error.eq(ErrorCode.NONE),
            self.check.eq(1),
            ahead.eq(0),
        ]
        with m.If((state == State.CHECKING) & self.checked):
            m.d.sync += state.eq(State.READY)
        with m.If(running):
            with m.If(self.frame_done):
                m.d.sync += finished.eq(1)
            with m.If(finished & self.frame_ok):
                m.d.sync += [state.eq(State.DONE), frames.eq(frames + 1)]
                m.d.sync += ahead.eq(self.more)
        with m.If(busy & self.error_valid):
            m.d.sync += fail(self.error)
        with m.Elif(busy & starved):
            m.d.sync += fail(ErrorCode.WATCHDOG)

        # The host's commands come last: they win over what happens in the same cycle.
        def register(number):
            return commit & (window == Window.REGISTERS) & (address[:8] == number)

        m.d.comb += self.claim.eq(
            register(Register.SOURCE)
            | register(Register.CONTROL)
            | (commit & (window == Window.IMAGE))
        )
        with m.If(self.copied & ~self.claim):
            m.d.sync += [self.source.eq(Source.SDRAM), begin_check]
        memory_good = self.memory.present & self.memory.ready & ~self.memory.fault
        no_memory = (self.source == Source.SDRAM) & ~memory_good
        if not self._geometry.image_words:
            no_memory |= self.source == Source.RAM
        idle_image = (state == State.READY) | (state == State.DONE)
        with m.If(commit & (window == Window.IMAGE) & idle_image):
            m.d.sync += state.eq(State.IDLE)  # what was checked is no longer what is there
        with m.If(register(Register.SOURCE) & ~busy):
            m.d.sync += self.source.eq(write_data)
            with m.If(idle_image):
                m.d.sync += state.eq(State.IDLE)
        with m.If(register(Register.WATCHDOG)):
            m.d.sync += watchdog.eq(write_data)
        with m.If(register(Register.CONTROL)):
            with m.If(command.abort):
                m.d.sync += fail(ErrorCode.NONE)
                m.d.sync += state.eq(State.IDLE)
            with m.Elif(command.check & ~busy & no_memory):
                m.d.sync += fail(ErrorCode.NO_MEMORY)
            with m.Elif(command.check & ~busy):
                m.d.sync += begin_check
            with m.Elif(command.start & idle_image):
                m.d.sync += [
                    state.eq(State.RUNNING),
                    error.eq(ErrorCode.NONE),
                    finished.eq(0),
                    self.start.eq(1),
                    self.stem_done.eq(ahead),
                    self.more.eq(command.more),
                ]
            with m.Elif(command.check | command.start):
                m.d.sync += fail(ErrorCode.NOT_READY)

        # Watchdog: counts down from the last sign of life
        alive = ~busy | self.progress | input_port.push | stream_port.push
        with m.If(alive):
            m.d.sync += patience.eq(watchdog)
        with m.Elif(patience != 0):
            m.d.sync += patience.eq(patience - 1)
        m.d.sync += starved.eq(~alive & (patience == 0))

        # Perf counters stop with the core, so that they stay until the next start
        counting = running & ~finished
        for n in range(LATENCY):
            later = Signal(name=f"counting_{n}")
            m.d.sync += later.eq(counting)
            counting = later
        counters = {Register.CYCLES: Signal(WORD_BITS, name="cycles")}
        levels = {Register.CYCLES: Value.cast(1)}
        for name, number in PERF_REGISTERS.items():
            counters[number] = Signal(WORD_BITS, name=name)
            levels[number] = self.perf[name]
        for number, counter in counters.items():
            level = Signal(name=f"{counter.name}_level")  # registered: it comes from far
            m.d.sync += level.eq(levels[number] & counting)
            with m.If(level):
                m.d.sync += counter.eq(counter + 1)
            with m.If(copy(m, self.start, f"{counter.name}_clear")):
                m.d.sync += counter.eq(0)

        # Reading
        done = Signal()
        m.d.sync += done.eq(state == State.DONE)
        values = {
            Register.ID: image.MAGIC,
            Register.VERSION: image.VERSION,
            Register.GEOMETRY: self._geometry.digest,
            Register.STATUS: state,
            Register.ERROR: error,
            Register.FRAMES: frames,
            Register.WATCHDOG: watchdog,
            Register.CLASSES: self.classes,
            Register.SOURCE: self.source,
            Register.IMAGE_CRC: self.image_crc,
            Register.MEMORY: self.memory,
            **counters,
        }
        for i in range(self._geometry.top_k):
            values[Register.TOP_CLASS + i] = Mux(done, self.top_class[i], 0)
            values[Register.TOP_LOGIT + i] = Mux(done, self.top_logit[i], 0)
        # In steps, as the logits take as long anyway: groups of registers, all but one of them 0
        groups = []
        for group in sorted({int(number) // GROUP for number in values}):
            groups.append(Signal(WORD_BITS, name=f"group_{group}"))
            m.d.sync += groups[-1].eq(0)
            with m.Switch(address[:8]):
                for number, value in values.items():
                    if number // GROUP == group:
                        with m.Case(number):
                            m.d.sync += groups[-1].eq(Value.cast(value))
        register_data = Signal(WORD_BITS)
        m.d.sync += register_data.eq(reduce(or_, groups))
        m.d.sync += bus.read_data.eq(0)
        with m.Switch(window):
            with m.Case(Window.REGISTERS):
                m.d.sync += bus.read_data.eq(register_data)
            with m.Case(Window.LOGITS):
                m.d.sync += bus.read_data.eq(Mux(done, self.logit_data, 0))
        return m

    def _window(self, m):
        """The window that the bus address lies in."""
        address = self.bus.address
        window = Signal(Window, name="window_here")
        with m.If(address >= Register.IMAGE):
            m.d.comb += window.eq(Window.IMAGE)
        with m.Elif(address >= Register.LOGITS):
            with m.If(address < Register.LOGITS + self._geometry.classes):
                m.d.comb += window.eq(Window.LOGITS)
        with m.Elif(address < 1 << 8):
            m.d.comb += window.eq(Window.REGISTERS)
        with m.Elif(address == Register.INPUT):
            m.d.comb += window.eq(Window.INPUT)
        with m.Elif(address == Register.STREAM):
            m.d.comb += window.eq(Window.STREAM)
        return window
