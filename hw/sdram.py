"""A controller for single-data-rate SDRAM, made for long sequential streams.

The address of a burst of eight 16-bit beats runs through a row, then to the same row of the next
bank, then to the next row. So a sequential stream changes the bank at the end of each row, and the
next row is opened while the last burst of the old one is on the bus: bursts follow each other
without a gap, but for refreshes.
"""

from dataclasses import dataclass
from math import ceil, floor

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal
from amaranth.lib import data, enum, stream, wiring
from amaranth.lib.wiring import In, Out

DATA_BITS = 16
BURST_BEATS = 8
BURST_BITS = BURST_BEATS * DATA_BITS
COLUMN_BITS = 9
BANK_BITS = 2
ROW_BITS = 13
BANKS = 1 << BANK_BITS
#: Bursts in a row, as bits of their address.
_ROW_BURST_BITS = COLUMN_BITS - (BURST_BEATS - 1).bit_length()
BURST_ADDRESS_BITS = _ROW_BURST_BITS + BANK_BITS + ROW_BITS

REQUEST = data.StructLayout({"write": 1, "address": BURST_ADDRESS_BITS})
"""One burst; the address counts bursts of 16 bytes."""

BEAT = data.StructLayout({"data": DATA_BITS, "enable": DATA_BITS // 8})
"""What a write puts on the bus; bytes that are not enabled stay as they are in the chip."""


class Command(enum.Enum, shape=3):
    """RAS#, CAS#, WE#, from bit 2 down."""

    NOP = 0b111
    ACTIVE = 0b011
    READ = 0b101
    WRITE = 0b100
    PRECHARGE = 0b010
    REFRESH = 0b001
    MODE = 0b000


CAS_LATENCY = 3
#: Burst length 8, sequential, the CAS latency, writes as long as reads.
MODE_REGISTER = CAS_LATENCY << 4 | 0b011
ALL_BANKS = 1 << 10  # address bit 10 of PRECHARGE


@dataclass(frozen=True)
class SdramTiming:
    """What the data sheet of a 143 MHz part (IS42S16160, W9825G6 and their like) asks for, in ns.

    ``rcd``: ACTIVE to READ or WRITE. ``rp``: PRECHARGE to ACTIVE. ``ras``: ACTIVE to PRECHARGE.
    ``rfc``: REFRESH to the next command. ``wr``: last written beat to PRECHARGE. ``mrd``: mode
    register to the next command. ``refresh``: between two refreshes, on average. ``power_up``:
    clock to the first command.
    """

    rcd: float = 20.0
    rp: float = 20.0
    ras: float = 45.0
    rfc: float = 67.5
    wr: float = 15.0
    mrd: float = 15.0
    refresh: float = 64e6 / 8192
    power_up: float = 200e3

    def cycles(self, name, clock_mhz):
        """The least number of clock cycles that lasts as long."""
        return max(1, ceil(getattr(self, name) * clock_mhz / 1000 - 1e-9))

    def refresh_cycles(self, clock_mhz):
        """Cycles from one refresh to the next, less what a stream may hold one up."""
        return floor(self.refresh * clock_mhz / 1000) - 8 * BURST_BEATS


class PinsSignature(wiring.Signature):
    """The chip's pins, as the controller drives and reads them; all of them are registers."""

    def __init__(self):
        super().__init__(
            {
                "cke": Out(1),
                "command": Out(Command, init=Command.NOP),
                "bank": Out(BANK_BITS),
                "address": Out(ROW_BITS),
                "dqm": Out(DATA_BITS // 8),
                "dq_out": Out(DATA_BITS),
                "dq_drive": Out(1),
                "dq_in": In(DATA_BITS),
            }
        )

    def __eq__(self, other):
        return type(other) is type(self)

    def __repr__(self):
        return "PinsSignature()"


class SdramController(wiring.Component):
    """Initialises and refreshes the chip, and moves bursts. All of it in one clock domain, `sync`.

    Members
    -------
    requests : In(stream of REQUEST)
        Bursts, in order. Eight beats of a write must be offered from when it is taken.
    beats : In(stream of BEAT)
        What is written; one beat a cycle while a write is on the bus.
    read_data, read_valid : Out
        Beats that were read, in order, eight in a row for each burst; they cannot wait.
    ready : Out(1)
        The chip has been initialised.
    pins : Out(PinsSignature)

    The chip's clock is the inverted one: commands change half a cycle before its edge. A beat is
    taken from ``pins.dq_in`` at the edge ``READ_CYCLES`` after the one that put the READ on the
    pins: three cycles of CAS latency, and one for the way to the chip and back. At 133 MHz: half a
    cycle to the chip's edge, 3.3 ns for the clock to leave the FPGA, two cycles, 5.4 ns access time
    and 1.3 ns to come back are 1.2 ns less than four cycles; the beat stays 4.8 ns or longer.
    """

    READ_CYCLES = CAS_LATENCY + 1

    def __init__(self, *, clock_mhz, timing=None):
        self._timing = SdramTiming() if timing is None else timing
        self._clock_mhz = clock_mhz
        super().__init__(
            {
                "requests": In(stream.Signature(REQUEST)),
                "beats": In(stream.Signature(BEAT)),
                "read_data": Out(DATA_BITS),
                "read_valid": Out(1),
                "ready": Out(1),
                "pins": Out(PinsSignature()),
            }
        )

    def elaborate(self, platform):
        m = Module()
        pins = self.pins

        def cycles(name):
            return self._timing.cycles(name, self._clock_mhz)

        # --- commands ----------------------------------------------------------------------------
        m.d.sync += [pins.command.eq(Command.NOP), pins.dqm.eq(0)]

        def command(kind, bank=0, address=0):
            m.d.sync += [pins.command.eq(kind), pins.bank.eq(bank), pins.address.eq(address)]

        # --- waiting -----------------------------------------------------------------------------
        # `timer` runs from a command to the next of the same bank, or of all; `slot` from a READ or
        # WRITE to the next; `busy` to the bank's PRECHARGE. Each is zero when the wait is over.
        longest = max(cycles("power_up"), cycles("rfc"))
        timer = Signal(range(longest + 1), init=cycles("power_up"))
        timed = Signal()
        slot = Signal(range(2 * BURST_BEATS))
        busy = Array(Signal(range(BURST_BEATS + cycles("wr") + cycles("ras")), name=f"busy{i}")
                     for i in range(BANKS))  # fmt: skip
        m.d.comb += timed.eq(timer == 0)
        with m.If(~timed):
            m.d.sync += timer.eq(timer - 1)
        with m.If(slot != 0):
            m.d.sync += slot.eq(slot - 1)
        for count in busy:
            with m.If(count != 0):
                m.d.sync += count.eq(count - 1)

        # --- refresh -----------------------------------------------------------------------------
        period = self._timing.refresh_cycles(self._clock_mhz)
        since = Signal(range(period))
        due, refreshed = Signal(), Signal()
        m.d.sync += since.eq(Mux(since == period - 1, 0, since + 1))
        with m.If(since == period - 1):
            m.d.sync += due.eq(1)
        with m.Elif(refreshed):
            m.d.sync += due.eq(0)

        # --- the request at hand -----------------------------------------------------------------
        head = Signal(REQUEST)
        column, bank, row = (
            head.address[:_ROW_BURST_BITS],
            head.address[_ROW_BURST_BITS : _ROW_BURST_BITS + BANK_BITS],
            head.address[-ROW_BITS:],
        )
        open_rows = Array(Signal(ROW_BITS, name=f"row{i}") for i in range(BANKS))
        opened = Signal(BANKS)
        take = Signal()
        m.d.comb += self.requests.ready.eq(take)
        with m.If(take):
            m.d.sync += head.eq(self.requests.payload)

        # --- data --------------------------------------------------------------------------------
        writing = Signal(range(BURST_BEATS + 1))  # beats still to come
        reading = Signal(self.READ_CYCLES - 1 + BURST_BEATS)  # bit n: a beat comes in n cycles
        start_read, start_write = Signal(), Signal()
        m.d.comb += self.beats.ready.eq(start_write | (writing != 0))
        m.d.sync += pins.dq_drive.eq(self.beats.ready)
        with m.If(self.beats.ready):
            m.d.sync += [
                pins.dq_out.eq(self.beats.payload.data),
                pins.dqm.eq(~self.beats.payload.enable),
            ]
        with m.If(start_write):
            m.d.sync += writing.eq(BURST_BEATS - 1)
        with m.Elif(writing != 0):
            m.d.sync += writing.eq(writing - 1)
        burst = Cat(Const(0, self.READ_CYCLES - 1), Const((1 << BURST_BEATS) - 1, BURST_BEATS))
        m.d.sync += [
            reading.eq((reading >> 1) | Mux(start_read, burst, 0)),
            self.read_valid.eq(reading[0]),
            self.read_data.eq(pins.dq_in),
        ]

        with m.FSM():
            with m.State("POWER_UP"):
                with m.If(timed):
                    m.d.sync += [pins.cke.eq(1), timer.eq(cycles("rp"))]
                    m.next = "CLOSE"
            with m.State("CLOSE"):
                with m.If(timed):
                    command(Command.PRECHARGE, address=ALL_BANKS)
                    m.d.sync += timer.eq(cycles("rp") - 1)
                    m.next = "FIRST_REFRESHES"
            with m.State("FIRST_REFRESHES"):
                refreshes = Signal(range(9), init=8)
                with m.If(timed):
                    with m.If(refreshes == 0):
                        command(Command.MODE, address=MODE_REGISTER)
                        m.d.sync += timer.eq(cycles("mrd") - 1)
                        m.next = "START"
                    with m.Else():
                        command(Command.REFRESH)
                        m.d.sync += [timer.eq(cycles("rfc") - 1), refreshes.eq(refreshes - 1)]
            with m.State("START"):
                with m.If(timed):
                    m.d.sync += self.ready.eq(1)
                    m.next = "IDLE"

            with m.State("IDLE"):
                with m.If(due):
                    m.next = "CLOSE_ALL"
                with m.Elif(self.requests.valid):
                    m.d.comb += take.eq(1)
                    m.next = "DECODE"
            with m.State("DECODE"):
                with m.If(~opened.bit_select(bank, 1)):
                    m.next = "ACTIVATE"
                with m.Elif(open_rows[bank] == row):
                    m.next = "COLUMN"
                with m.Else():
                    m.next = "PRECHARGE"
            with m.State("PRECHARGE"):
                with m.If(busy[bank] == 0):
                    command(Command.PRECHARGE, bank)
                    m.d.sync += timer.eq(cycles("rp") - 1)
                    m.next = "ACTIVATE"
            with m.State("ACTIVATE"):
                with m.If(timed):
                    command(Command.ACTIVE, bank, row)
                    m.d.sync += [
                        timer.eq(cycles("rcd") - 1),
                        busy[bank].eq(cycles("ras") - 1),
                        open_rows[bank].eq(row),
                        opened.eq(opened | (1 << bank)),
                    ]
                    m.next = "COLUMN"
            with m.State("COLUMN"):
                # A write waits until the beats of a read before it have left the bus.
                with m.If(timed & (slot == 0) & (~head.write | ~reading.any())):
                    address = Cat(Const(0, COLUMN_BITS - _ROW_BURST_BITS), column)
                    command(Mux(head.write, Command.WRITE, Command.READ), bank, address)
                    m.d.comb += [start_write.eq(head.write), start_read.eq(~head.write)]
                    m.d.sync += [
                        slot.eq(BURST_BEATS - 1),
                        # A precharge may cut off what comes after the last beat.
                        busy[bank].eq(BURST_BEATS - 1 + Mux(head.write, cycles("wr") - 1, 0)),
                    ]
                    with m.If(due):
                        m.next = "CLOSE_ALL"
                    with m.Elif(self.requests.valid):
                        m.d.comb += take.eq(1)
                        m.next = "DECODE"
                    with m.Else():
                        m.next = "IDLE"

            with m.State("CLOSE_ALL"):
                with m.If(~Cat(busy).any()):
                    command(Command.PRECHARGE, address=ALL_BANKS)
                    m.d.sync += [timer.eq(cycles("rp") - 1), opened.eq(0)]
                    m.next = "REFRESH"
            with m.State("REFRESH"):
                with m.If(timed):
                    command(Command.REFRESH)
                    m.d.comb += refreshed.eq(1)
                    m.d.sync += timer.eq(cycles("rfc") - 1)
                    m.next = "REFRESHING"
            with m.State("REFRESHING"):
                with m.If(timed):
                    m.next = "IDLE"
        return m
