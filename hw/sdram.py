"""A controller for single-data-rate SDRAM, made for long sequential streams.

The address of a burst of eight 16-bit beats runs through a row, then to the same row of the next
bank, then to the next row. So a sequential stream changes the bank at the end of each row, and the
next row is opened while the last burst of the old one is on the bus: bursts follow each other
without a gap, but for one cycle at the end of a row, and for refreshes.
"""

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from hw.sdram_chip import (
    ALL_BANKS,
    BANKS,
    BURST_ADDRESS_BITS,
    BURST_BEATS,
    CAS_LATENCY,
    COLUMN_BITS,
    DATA_BITS,
    MODE_REGISTER,
    ROW_BITS,
    ROW_BURST_BITS,
    Command,
    PinsSignature,
    SdramTiming,
)

MAX_BURSTS = 64
"""The most bursts of one request."""

REQUEST = data.StructLayout(
    {"write": 1, "address": BURST_ADDRESS_BITS, "length": (MAX_BURSTS - 1).bit_length()}
)
"""`length` + 1 bursts one after the other; the address counts bursts of 16 bytes."""

BEAT = data.StructLayout({"data": DATA_BITS, "enable": DATA_BITS // 8})
"""What a write puts on the bus; bytes that are not enabled stay as they are in the chip."""

#: Clocks that the read capture and the refresh interval have been thought through for.
CLOCK_MHZ = (50.0, 143.0)


class _Timer:
    """Counts in the domain `memory`. `over` is a flip-flop, its sign: no comparison is needed.

    A statement `load(n)`, executed in one cycle, makes `over` low, and high from the n-th after it.
    """

    def __init__(self, m, longest, name, *, start=1):
        count = Signal(signed(1 + longest.bit_length()), init=start - 2, name=name)
        self._count, self.over = count, count[-1]
        with m.If(~self.over):
            m.d.memory += count.eq(count - 1)

    def load(self, cycles):
        return self._count.eq(cycles - 2)


class SdramController(wiring.Component):
    """Initialises and refreshes the chip, and moves bursts, all of it in the domain `memory`.

    Members
    -------
    requests : In(stream of REQUEST)
        Served in order. A write is taken only when all its beats are here, so the bus never waits
        for data: at most ``write_bursts`` bursts, or it is never taken. Other requests wait behind.
    write_data : In(stream of BEAT)
        What is written, in the order of the requests, eight beats for each burst. A queue holds
        those of ``write_bursts`` bursts and more; they may come before their request.
    read_data, read_valid : Out
        Beats that were read, in order, eight in a row for each burst; they cannot wait. The first
        beat comes 13 cycles after its request was taken, if its row is open and nothing else waits.
    ready : Out(1)
        The chip has been initialised.
    pins : Out(PinsSignature)

    Between ``pins`` and the chip there is one more register each way, in the pads. The chip's clock
    is the inverted one: a command reaches it half a cycle before its edge. A beat is in
    ``pins.dq_in`` for the edge ``READ_CYCLES`` after the one that put the READ on ``pins``; see
    `hw.sdram_pins` for why.
    """

    PAD_REGISTERS = 2
    READ_CYCLES = CAS_LATENCY + 1 + PAD_REGISTERS

    def __init__(self, *, clock_mhz, timing=None, write_bursts=2):
        if not CLOCK_MHZ[0] <= clock_mhz <= CLOCK_MHZ[1]:
            raise ValueError(
                f"SDRAM clock must be between {CLOCK_MHZ[0]:g} and {CLOCK_MHZ[1]:g} MHz, "
                f"not {clock_mhz!r}"
            )
        if not isinstance(write_bursts, int) or not 1 <= write_bursts <= MAX_BURSTS:
            raise ValueError(f"SDRAM write_bursts must be in 1..{MAX_BURSTS}, not {write_bursts!r}")
        self._timing = SdramTiming() if timing is None else timing
        self._clock_mhz = clock_mhz
        self._write_bursts = write_bursts
        super().__init__(
            {
                "requests": In(stream.Signature(REQUEST)),
                "write_data": In(stream.Signature(BEAT)),
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
        m.d.memory += [pins.command.eq(Command.NOP), pins.dqm.eq(0)]

        def command(kind, bank=0, address=0):
            m.d.memory += [pins.command.eq(kind), pins.bank.eq(bank), pins.address.eq(address)]

        # --- waiting -----------------------------------------------------------------------------
        # `wait` runs from a command to the next of the same bank, or of all; `slot` from a READ or
        # WRITE to the next; `turn` from a READ to a WRITE, which must not meet its beats on the
        # bus; `busy` to the bank's PRECHARGE.
        powered = _Timer(m, cycles("power_up"), "power_up", start=cycles("power_up"))
        wait = _Timer(m, cycles("rfc"), "wait")
        slot = _Timer(m, BURST_BEATS, "slot")
        turn_cycles = CAS_LATENCY + BURST_BEATS + 1
        turn = _Timer(m, turn_cycles, "turn")
        write_cycles = BURST_BEATS - 1 + cycles("wr")
        busy = [_Timer(m, max(write_cycles, cycles("ras")), f"busy{i}") for i in range(BANKS)]

        # --- refresh -----------------------------------------------------------------------------
        period = self._timing.refresh_cycles(self._clock_mhz)
        interval = _Timer(m, period, "interval", start=period)
        due, refreshed = Signal(), Signal()
        with m.If(interval.over):
            m.d.memory += [interval.load(period), due.eq(1)]
        with m.Elif(refreshed):
            m.d.memory += due.eq(0)

        # --- beats to be written -----------------------------------------------------------------
        # Twice as long as need be: `ready` is a register, and may notice late.
        depth = 2 << (self._write_bursts * BURST_BEATS - 1).bit_length()
        m.submodules.queue = queue = Memory(
            shape=BEAT, depth=depth, init=[], attrs={"no_rw_check": 1}
        )
        store, load = queue.write_port(domain="memory"), queue.read_port(domain="memory")
        stored, loaded = Signal(range(2 * depth)), Signal(range(2 * depth))
        level = Signal.like(stored)
        # The memory's slow output goes into a register, without a reset in between.
        beat = Signal(BEAT, reset_less=True)
        at_port, here, move, used = Signal(), Signal(), Signal(), Signal()
        m.d.comb += [
            level.eq(stored - loaded),
            store.en.eq(self.write_data.valid & self.write_data.ready),
            store.addr.eq(stored),
            store.data.eq(self.write_data.payload),
            move.eq(at_port & (~here | used)),
            load.en.eq((stored != loaded) & (~at_port | move)),
            load.addr.eq(loaded),
        ]
        m.d.memory += [
            self.write_data.ready.eq(level[-3:] < 3),
            stored.eq(stored + store.en),
            loaded.eq(loaded + load.en),
            at_port.eq(load.en | (at_port & ~move)),
            here.eq(move | (here & ~used)),
        ]
        with m.If(move):
            m.d.memory += beat.eq(load.data)
        arrived = Signal(range(BURST_BEATS))
        whole = Signal()  # the last beat of a burst has come
        m.d.memory += whole.eq(0)
        with m.If(store.en):
            m.d.memory += [arrived.eq(arrived + 1), whole.eq(arrived == BURST_BEATS - 1)]

        # --- the request at hand -----------------------------------------------------------------
        request = self.requests.payload
        take, admitted = Signal(), Signal()
        # Bursts in the queue that nobody has claimed
        held = Signal(range(depth // BURST_BEATS + 1))
        claimed = Mux(take & request.write, request.length + 1, 0)
        m.d.comb += self.requests.ready.eq(take)
        m.d.memory += [
            held.eq(held + whole - claimed),
            # Of the request that is offered: it stays the same until it is taken.
            admitted.eq(self.requests.valid & ~take & (~request.write | (held > request.length))),
        ]

        pending = Signal()  # there is a burst at hand
        last = Signal()  # and it is the request's last one
        write = Signal()
        left = Signal.like(request.length)  # bursts behind it
        place = Signal(BURST_ADDRESS_BITS)
        column, bank, row = (
            place[:ROW_BURST_BITS],
            place[ROW_BURST_BITS:-ROW_BITS],
            place[-ROW_BITS:],
        )
        with m.If(take):
            m.d.memory += [
                pending.eq(1),
                write.eq(request.write),
                place.eq(request.address),
                left.eq(request.length),
                last.eq(request.length == 0),
            ]

        open_rows = Array(Signal(ROW_BITS, name=f"row{i}") for i in range(BANKS))
        opened = Signal(BANKS)
        bank_row, bank_opened = Signal(ROW_BITS), Signal()
        bank_free = Array(timer.over for timer in busy)[bank]
        m.d.memory += [bank_row.eq(open_rows[bank]), bank_opened.eq(opened.bit_select(bank, 1))]

        # --- data --------------------------------------------------------------------------------
        start = Signal()  # a READ or WRITE goes out
        writing = Signal(BURST_BEATS - 1)  # bit n: a beat goes out in n + 1 cycles
        reading = Signal(self.READ_CYCLES - 1 + BURST_BEATS)  # bit n: one comes in n + 1 cycles
        expected = Cat(Const(0, self.READ_CYCLES - 1), Const((1 << BURST_BEATS) - 1, BURST_BEATS))
        m.d.comb += used.eq((start & write) | writing[0])
        m.d.memory += [
            writing.eq((writing >> 1) | (start & write).replicate(BURST_BEATS - 1)),
            pins.dq_drive.eq(used),
            pins.dq_out.eq(beat.data),
            reading.eq((reading >> 1) | Mux(start & ~write, expected, 0)),
            self.read_valid.eq(reading[0]),
            self.read_data.eq(pins.dq_in),
        ]
        with m.If(used):
            m.d.memory += pins.dqm.eq(~beat.enable)

        with m.FSM(domain="memory"):
            with m.State("POWER_UP"):
                with m.If(powered.over):
                    m.d.memory += [pins.cke.eq(1), wait.load(cycles("rp"))]
                    m.next = "CLOSE"
            with m.State("CLOSE"):
                with m.If(wait.over):
                    command(Command.PRECHARGE, address=ALL_BANKS)
                    m.d.memory += wait.load(cycles("rp"))
                    m.next = "FIRST_REFRESHES"
            with m.State("FIRST_REFRESHES"):
                refreshes = Signal(range(9), init=8)
                with m.If(wait.over):
                    with m.If(refreshes == 0):
                        command(Command.MODE, address=MODE_REGISTER)
                        m.d.memory += wait.load(cycles("mrd"))
                        m.next = "START"
                    with m.Else():
                        command(Command.REFRESH)
                        m.d.memory += [wait.load(cycles("rfc")), refreshes.eq(refreshes - 1)]
            with m.State("START"):
                with m.If(wait.over):
                    m.d.memory += self.ready.eq(1)
                    m.next = "IDLE"

            with m.State("IDLE"):
                with m.If(due):
                    m.next = "CLOSE_ALL"
                with m.Elif(pending | admitted):
                    m.d.comb += take.eq(~pending)
                    m.next = "LOOK_UP"
            with m.State("LOOK_UP"):
                m.next = "DECIDE"
            with m.State("DECIDE"):
                with m.If(~bank_opened):
                    m.next = "ACTIVATE"
                with m.Elif(bank_row == row):
                    m.next = "COLUMN"
                with m.Else():
                    m.next = "PRECHARGE"
            with m.State("PRECHARGE"):
                with m.If(bank_free):
                    command(Command.PRECHARGE, bank)
                    m.d.memory += wait.load(cycles("rp"))
                    m.next = "ACTIVATE"
            with m.State("ACTIVATE"):
                with m.If(wait.over):
                    command(Command.ACTIVE, bank, row)
                    m.d.memory += [
                        wait.load(cycles("rcd")),
                        open_rows[bank].eq(row),
                        opened.eq(opened | (1 << bank)),
                    ]
                    for number, timer in enumerate(busy):
                        with m.If(bank == number):
                            m.d.memory += timer.load(cycles("ras"))
                    m.next = "COLUMN"
            with m.State("COLUMN"):
                with m.If(wait.over & slot.over & (~write | turn.over)):
                    command(
                        Mux(write, Command.WRITE, Command.READ),
                        bank,
                        column << COLUMN_BITS - ROW_BURST_BITS,
                    )
                    m.d.comb += [start.eq(1), take.eq(last & admitted & ~due)]
                    m.d.memory += slot.load(BURST_BEATS)
                    with m.If(~write):
                        m.d.memory += turn.load(turn_cycles)
                    for number, timer in enumerate(busy):
                        with m.If(bank == number):
                            # After a READ, a PRECHARGE may cut off what follows the last beat.
                            m.d.memory += timer.load(Mux(write, write_cycles, BURST_BEATS))
                    with m.If(~take):
                        m.d.memory += [
                            pending.eq(~last),
                            place.eq(place + 1),
                            left.eq(left - 1),
                            last.eq(left == 1),
                        ]
                    with m.If(due):
                        m.next = "CLOSE_ALL"
                    with m.Elif(~last | admitted):
                        m.next = "LOOK_UP"
                    with m.Else():
                        m.next = "IDLE"

            with m.State("CLOSE_ALL"):
                with m.If(Cat(timer.over for timer in busy).all()):
                    command(Command.PRECHARGE, address=ALL_BANKS)
                    m.d.memory += [wait.load(cycles("rp")), opened.eq(0)]
                    m.next = "REFRESH"
            with m.State("REFRESH"):
                with m.If(wait.over):
                    command(Command.REFRESH)
                    m.d.comb += refreshed.eq(1)
                    m.d.memory += wait.load(cycles("rfc"))
                    m.next = "REFRESHING"
            with m.State("REFRESHING"):
                with m.If(wait.over):
                    m.next = "IDLE"
        return m
