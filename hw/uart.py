"""Asynchronous serial port, 8N1: start bit, eight data bits (least significant first), stop bit.

`divisor` is the number of clocks a bit lasts, an int or a `Fraction` (25 MHz at 3 Mbaud is
`Fraction(25, 3)`). It is kept exactly: a counter advances by the denominator and a bit ends when it
passes the numerator: bit edges lie within one clock of where they belong, and no error adds up.
"""

from fractions import Fraction

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import cdc, enum, stream, wiring
from amaranth.lib.wiring import In, Out

#: Fewer clocks than this per bit leave too little room for a far end whose clock is 2 % off.
MIN_DIVISOR = 6
#: Sixteen bits of counter reach 300 baud at 19 MHz, and keep the comparison short.
MAX_NUMERATOR = 0xFFFF

DATA_BITS = 8


def _check_divisor(subject, divisor):
    if isinstance(divisor, bool) or not isinstance(divisor, int | Fraction):
        raise TypeError(f"{subject} divisor must be an int or a Fraction, not {divisor!r}")
    divisor = Fraction(divisor)
    if divisor < MIN_DIVISOR:
        raise ValueError(
            f"{subject} divisor must be at least {MIN_DIVISOR} clocks per bit, not {divisor!r}"
        )
    if divisor.numerator > MAX_NUMERATOR:
        raise ValueError(
            f"{subject} divisor must have a numerator of at most {MAX_NUMERATOR}, not {divisor!r}"
        )
    return divisor


class _BitTimer(wiring.Component):
    """Pulses `tick` at the end of each bit. `half`, in the cycle before a count starts, makes the
    first bit half as long; while `run` is low the count starts over."""

    run: In(1)
    half: In(1)
    tick: Out(1)

    def __init__(self, *, divisor):
        self._numerator, self._step = divisor.numerator, divisor.denominator
        super().__init__()

    def elaborate(self, platform):
        m = Module()
        count = Signal(range(self._numerator + self._step))
        m.d.comb += self.tick.eq(self.run & (count + self._step >= self._numerator))
        with m.If(~self.run):
            m.d.sync += count.eq(Mux(self.half, self._numerator // 2, 0))
        with m.Elif(self.tick):
            m.d.sync += count.eq(count + self._step - self._numerator)
        with m.Else():
            m.d.sync += count.eq(count + self._step)
        return m


class UARTReceiver(wiring.Component):
    """Turns a serial line into bytes.

    Members
    -------
    pin : In(1)
        The line, asynchronous; it passes two flip-flops. Idle is high.
    bytes : Out(stream of 8 bits)
        Received bytes, offered from the middle of the stop bit until they are taken.
    overflow : Out(1)
        One-cycle pulse: a byte came while the last one was still offered. The new byte is dropped.
    framing_error : Out(1)
        One-cycle pulse: no stop bit. The byte is dropped, and nothing is received until the line
        has been high again.

    A low pulse shorter than half a bit is no start bit. A bit is sampled once, in its middle.
    """

    class State(enum.Enum, shape=2):
        IDLE = 0
        START = 1
        DATA = 2
        STOP = 3

    def __init__(self, *, divisor):
        self.divisor = _check_divisor("UART receiver", divisor)
        super().__init__(
            {
                "pin": In(1, init=1),
                "bytes": Out(stream.Signature(8)),
                "overflow": Out(1),
                "framing_error": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        State = self.State
        line = Signal(init=1)
        m.submodules.synchroniser = cdc.FFSynchronizer(self.pin, line, init=1, stages=2)
        m.submodules.timer = timer = _BitTimer(divisor=self.divisor)

        state = Signal(State)
        broken = Signal()  # the last stop bit was missing: the line must be seen high first
        shift = Signal(DATA_BITS)
        index = Signal(range(DATA_BITS))

        m.d.comb += [timer.run.eq(state != State.IDLE), timer.half.eq(1)]
        m.d.sync += [self.overflow.eq(0), self.framing_error.eq(0)]
        with m.If(self.bytes.valid & self.bytes.ready):
            m.d.sync += self.bytes.valid.eq(0)

        with m.Switch(state):
            with m.Case(State.IDLE):
                with m.If(line):
                    m.d.sync += broken.eq(0)
                with m.Elif(~broken):
                    m.d.sync += state.eq(State.START)
            with m.Case(State.START):
                with m.If(timer.tick):
                    m.d.sync += state.eq(Mux(line, State.IDLE, State.DATA))
            with m.Case(State.DATA):
                with m.If(timer.tick):
                    m.d.sync += [shift.eq(Cat(shift[1:], line)), index.eq(index + 1)]
                    with m.If(index == DATA_BITS - 1):
                        m.d.sync += state.eq(State.STOP)
            with m.Case(State.STOP):
                with m.If(timer.tick):
                    m.d.sync += state.eq(State.IDLE)
                    with m.If(~line):
                        m.d.sync += [self.framing_error.eq(1), broken.eq(1)]
                    with m.Elif(self.bytes.valid & ~self.bytes.ready):
                        m.d.sync += self.overflow.eq(1)
                    with m.Else():
                        m.d.sync += [self.bytes.payload.eq(shift), self.bytes.valid.eq(1)]
        return m


class UARTTransmitter(wiring.Component):
    """Sends bytes over a serial line without gaps: a byte takes 10 * divisor clocks.

    Members
    -------
    bytes : In(stream of 8 bits)
        Bytes to send. One is taken while the line is idle, or in the last cycle of a stop bit.
    pin : Out(1)
        The line, registered, so that it has no glitches. Idle is high.
    """

    FRAME_BITS = 1 + DATA_BITS + 1

    def __init__(self, *, divisor):
        self.divisor = _check_divisor("UART transmitter", divisor)
        super().__init__({"bytes": In(stream.Signature(8)), "pin": Out(1, init=1)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.timer = timer = _BitTimer(divisor=self.divisor)
        shift = Signal(self.FRAME_BITS - 1)  # what follows the bit on the line
        left = Signal(range(self.FRAME_BITS + 1))

        m.d.comb += [
            timer.run.eq(left != 0),
            self.bytes.ready.eq((left == 0) | ((left == 1) & timer.tick)),
        ]
        with m.If(self.bytes.valid & self.bytes.ready):
            m.d.sync += [
                self.pin.eq(0),
                shift.eq(Cat(self.bytes.payload, 1)),
                left.eq(self.FRAME_BITS),
            ]
        with m.Elif(timer.tick):
            m.d.sync += [Cat(self.pin, shift).eq(Cat(shift, 1)), left.eq(left - 1)]
        return m
