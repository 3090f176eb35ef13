"""A controller for single-data-rate SDRAM, made for long sequential streams.

The address of a burst of eight 16-bit beats runs through a row, then to the same row of the next
bank, then to the next row. So a sequential stream changes the bank at the end of each row, and the
next row is opened while the last burst of the old one is on the bus: bursts follow each other
without a gap, but for one cycle at the end of a row, and for refreshes.

The clock is fast for the FPGA, so hardly anything is decided in the cycle in which it is needed:
while a burst waits for the bus, the place of the next one is computed and its row looked up; a
command is a *strobe*, a register that is set when its time has come; and the strobe's command
reaches the pins DELAY cycles later, as everything that goes with it.
"""

import enum

from amaranth.hdl import Array, Cat, Module, Mux, Signal, signed
from amaranth.lib import data, stream, wiring
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
from hw.sdram_queue import BEAT, BeatQueue
from hw.sdram_time import Countdown, Timer

MAX_BURSTS = 64
"""The most bursts of one request."""

REQUEST = data.StructLayout(
    {"write": 1, "address": BURST_ADDRESS_BITS, "length": (MAX_BURSTS - 1).bit_length()}
)
"""`length` + 1 bursts one after the other; the address counts bursts of 16 bytes."""

#: Clocks that the read capture and the refresh interval have been thought through for.
CLOCK_MHZ = (50.0, 143.0)


class _State(enum.Enum):
    """What the controller is about to do; a flip-flop each."""

    POWER_UP = enum.auto()
    CLOSE = enum.auto()
    REFRESH = enum.auto()
    SET_MODE = enum.auto()
    DECIDE = enum.auto()
    PRECHARGE = enum.auto()
    ACTIVATE = enum.auto()
    MOVE = enum.auto()


class SdramController(wiring.Component):
    """Initialises and refreshes the chip, and moves bursts, all of it in the domain `memory`.

    Members
    -------
    requests : In(stream of REQUEST)
        Served in order. A write is begun only when all its beats are here, so the bus never waits
        for data: at most ``write_bursts`` bursts, or it is never begun. Other requests wait behind.
    write_data : In(stream of BEAT)
        What is written, in the order of the requests, eight beats for each burst. A queue holds
        those of ``write_bursts`` bursts and more; they may come before their request.
    read_data, read_valid : Out
        Beats that were read, in order, eight in a row for each burst; they cannot wait. The first
        beat comes READ_LATENCY cycles after its request was taken, if its row is open and nothing
        else waits.
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
    DELAY = 3
    READ_LATENCY = 16

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

        # --- strobes: a register each, and at most one of them is set -----------------------------
        close, refresh, set_mode = Signal(), Signal(), Signal()
        precharge, activate, move = Signal(), Signal(), Signal()
        move_read, move_write = Signal(), Signal()  # one of them is set with `move`
        accept = Signal()  # not a register: the next burst becomes the one at hand
        # Of the burst at hand
        place, write = Signal(BURST_ADDRESS_BITS, reset_less=True), Signal()
        _, bank, _ = _split(place)

        self._put_on_pins(
            m, close=close, refresh=refresh, set_mode=set_mode, precharge=precharge,
            activate=activate, move_read=move_read, move_write=move_write, place=place,
        )  # fmt: skip
        written = self._move_data(m, move_read, move_write)
        known, hit, closed = self._look_ahead(
            m, accept=accept, activate=activate, close=close, place=place, write=write,
            written=written,
        )  # fmt: skip

        # --- time ---------------------------------------------------------------------------------
        # `wait` runs from a command to the next of the same bank, or of all; `slot` from a READ or
        # WRITE to the next; `turn` from a READ to a WRITE, which must not meet its beats on the
        # bus; `busy` to the bank's PRECHARGE.
        power_up, rfc, rp = (self._cycles(name) for name in ("power_up", "rfc", "rp"))
        powered = Countdown(m, power_up, "power_up")
        wait = Timer(m, rfc, "wait")
        slot = Timer(m, BURST_BEATS, "slot")
        turn_cycles = CAS_LATENCY + BURST_BEATS + 1
        turn = Timer(m, turn_cycles, "turn")
        write_cycles = BURST_BEATS - 1 + self._cycles("wr")
        ras = self._cycles("ras")
        busy = [
            Timer(m, max(write_cycles, ras, BURST_BEATS), f"busy{number}")
            for number in range(BANKS)
        ]
        bank_busy = Array(timer.pending for timer in busy)[bank]

        period = self._timing.refresh_cycles(self._clock_mhz)
        interval = Countdown(m, period, "interval")
        due = Signal()
        with m.If(interval.over):
            m.d.memory += [interval.load(period), due.eq(1)]
        with m.Elif(refresh):
            m.d.memory += due.eq(0)

        chosen = Signal(BANKS)  # a bit for each bank: it is that of the burst at hand
        m.d.memory += chosen.eq(1 << bank)
        with m.If(close | precharge):
            m.d.memory += wait.load(rp)
        with m.If(refresh):
            m.d.memory += wait.load(rfc)
        with m.If(set_mode):
            m.d.memory += wait.load(self._cycles("mrd"))
        with m.If(activate):
            m.d.memory += wait.load(self._cycles("rcd"))
        with m.If(move):
            m.d.memory += slot.load(BURST_BEATS)
        with m.If(move_read):
            m.d.memory += turn.load(turn_cycles)
        for number, timer in enumerate(busy):
            with m.If(chosen[number]):
                with m.If(activate):
                    m.d.memory += timer.load(ras)
                with m.If(move_write):
                    m.d.memory += timer.load(write_cycles)
                with m.If(move_read):
                    # A PRECHARGE may cut off what follows the last beat.
                    m.d.memory += timer.load(BURST_BEATS)

        # --- states -------------------------------------------------------------------------------
        at = {
            state: Signal(name=f"at_{state.name.lower()}", init=state is _State.POWER_UP)
            for state in _State
        }

        def go(old, new):
            m.d.memory += [at[old].eq(0), at[new].eq(1)]

        ok = Signal()  # a burst is there, its row has been looked up, and no refresh is due
        moves = (
            at[_State.MOVE] & ~move & ~wait.pending & ~slot.pending & ~(write & turn.pending)
        )  # fmt: skip
        m.d.comb += accept.eq(at[_State.DECIDE] & ok)
        m.d.memory += [
            ok.eq(known & ~due),
            close.eq(
                at[_State.CLOSE] & ~close & ~wait.pending & ~Cat(t.pending for t in busy).any()
            ),
            refresh.eq(at[_State.REFRESH] & ~refresh & ~wait.pending),
            set_mode.eq(at[_State.SET_MODE] & ~set_mode & ~wait.pending),
            precharge.eq(at[_State.PRECHARGE] & ~precharge & ~bank_busy),
            activate.eq(at[_State.ACTIVATE] & ~activate & ~wait.pending),
            move.eq(moves),
            move_read.eq(moves & ~write),
            move_write.eq(moves & write),
        ]
        refreshes = Signal(range(8), init=7)  # that the chip still wants, but for one, at the start
        with m.If(at[_State.POWER_UP] & powered.over):
            m.d.memory += [self.pins.cke.eq(1), wait.load(rp)]
            go(_State.POWER_UP, _State.CLOSE)
        with m.If(close):
            go(_State.CLOSE, _State.REFRESH)
        with m.If(refresh):
            with m.If(self.ready):
                go(_State.REFRESH, _State.DECIDE)
            with m.Else():
                m.d.memory += refreshes.eq(refreshes - 1)
                with m.If(refreshes == 0):
                    go(_State.REFRESH, _State.SET_MODE)
        with m.If(set_mode):
            m.d.memory += self.ready.eq(1)
            go(_State.SET_MODE, _State.DECIDE)
        with m.If(at[_State.DECIDE]):
            with m.If(ok):
                m.d.memory += [
                    at[_State.DECIDE].eq(0),
                    at[_State.MOVE].eq(hit),
                    at[_State.ACTIVATE].eq(closed),
                    at[_State.PRECHARGE].eq(~hit & ~closed),
                ]
            with m.Elif(due):
                go(_State.DECIDE, _State.CLOSE)
        with m.If(precharge):
            go(_State.PRECHARGE, _State.ACTIVATE)
        with m.If(activate):
            go(_State.ACTIVATE, _State.MOVE)
        with m.If(move):
            go(_State.MOVE, _State.DECIDE)
        return m

    def _cycles(self, name):
        return self._timing.cycles(name, self._clock_mhz)

    def _put_on_pins(
        self, m, *, close, refresh, set_mode, precharge, activate, move_read, move_write, place
    ):  # fmt: skip
        """The command of a strobe, DELAY cycles after it; NOP otherwise."""
        pins = self.pins
        column, bank, row = _split(place)
        kind = data.StructLayout({"command": Command, "bank": len(bank), "address": ROW_BITS})
        first = Signal(kind, init={"command": Command.NOP}, reset_less=True)
        second = Signal.like(first)
        m.d.memory += [
            first.command.eq(Command.NOP),
            first.bank.eq(bank),
            first.address.eq(column << COLUMN_BITS - ROW_BURST_BITS),
            second.eq(first),
            pins.command.eq(second.command),
            pins.bank.eq(second.bank),
            pins.address.eq(second.address),
        ]
        for strobe, command in (
            (close | precharge, Command.PRECHARGE),
            (refresh, Command.REFRESH),
            (set_mode, Command.MODE),
            (activate, Command.ACTIVE),
            (move_write, Command.WRITE),
            (move_read, Command.READ),
        ):
            with m.If(strobe):
                m.d.memory += first.command.eq(command)
        with m.If(close):
            m.d.memory += first.address.eq(ALL_BANKS)
        with m.If(set_mode):
            m.d.memory += [first.bank.eq(0), first.address.eq(MODE_REGISTER)]
        with m.If(activate):
            m.d.memory += first.address.eq(row)

    def _move_data(self, m, move_read, move_write):
        """Beats to and from the pins. Returns a strobe: a burst that is to be written has come."""
        pins = self.pins
        m.submodules.queue = queue = BeatQueue(bursts=self._write_bursts)
        wiring.connect(m, wiring.flipped(self.write_data), queue.input)
        writing = Signal(BURST_BEATS)  # bit n: a beat goes out in DELAY - 1 + n cycles
        drive = Signal()
        beat, read_data = (Signal(DATA_BITS, reset_less=True) for _ in range(2))
        m.d.comb += [pins.dq_out.eq(beat), self.read_data.eq(read_data)]
        # Bit n: a beat comes in in n + 1 cycles
        reading = Signal(self.DELAY - 1 + self.READ_CYCLES - 1 + BURST_BEATS)
        m.d.comb += queue.next.eq(move_write | writing[1])
        m.d.memory += [
            writing.eq(writing >> 1),
            drive.eq(writing[0]),
            pins.dq_drive.eq(drive),
            beat.eq(queue.beat.data),
            pins.dqm.eq(Mux(drive, ~queue.beat.enable, 0)),
            reading.eq(reading >> 1),
            self.read_valid.eq(reading[0]),
            read_data.eq(pins.dq_in),
        ]
        with m.If(move_write):
            m.d.memory += writing.eq(-1)
        with m.If(move_read):
            m.d.memory += reading[-BURST_BEATS:].eq(-1)
        return queue.whole

    def _look_ahead(self, m, *, accept, activate, close, place, write, written):
        """Keeps requests and open rows; `place` and `write` become the next burst's by `accept`.

        Returns (known, hit, closed): `known` says, in the cycle before it may be accepted, that
        there is a next burst; the others tell whether its row is the open one of its bank, and
        whether none is open there.
        """
        # --- the request that is next -------------------------------------------------------------
        request, free = Signal(REQUEST, reset_less=True), Signal(init=1)
        m.d.comb += self.requests.ready.eq(free)
        with m.If(free):
            m.d.memory += [request.eq(self.requests.payload), free.eq(~self.requests.valid)]

        left = Signal.like(request.length)  # bursts of the request at hand behind the one at hand
        more = Signal()
        begin = Signal()  # the next request becomes the one at hand
        m.d.comb += begin.eq(accept & ~more)
        m.d.memory += more.eq(left != 0)
        with m.If(accept):
            m.d.memory += left.eq(left - 1)
        with m.If(begin):
            m.d.memory += [left.eq(request.length), free.eq(1)]

        # Bursts in the queue that nobody has claimed, and by how many they change
        held = Signal(range(4 * self._write_bursts + 1))
        change = Signal(signed(len(request.length) + 2))
        claim = Signal()
        waits, enough, admitted = Signal(), Signal(), Signal()
        m.d.memory += [
            claim.eq(begin & request.write),
            change.eq(Cat(Mux(claim, ~request.length, 0), claim).as_signed() + written),
            held.eq(held + change),
            enough.eq(held > request.length),
            waits.eq(~free),
            admitted.eq(waits & (~request.write | enough)),
        ]

        # --- the burst that is next ---------------------------------------------------------------
        behind = Signal.like(place)  # the burst at hand
        place_next, write_next, there = Signal.like(place), Signal(), Signal()
        _, bank_next, row_next = _split(place_next)
        m.d.memory += [
            behind.eq(place + 1),
            place_next.eq(Mux(more, behind, request.address)),
            write_next.eq(Mux(more, write, request.write)),
            there.eq(more | admitted),
        ]
        with m.If(accept):
            m.d.memory += [place.eq(place_next), write.eq(write_next)]

        # --- its row ------------------------------------------------------------------------------
        _, bank, row = _split(place)
        rows = Array(
            Signal(ROW_BITS, name=f"row{number}", reset_less=True) for number in range(BANKS)
        )
        opened = Signal(BANKS)
        with m.If(close):
            m.d.memory += opened.eq(0)
        for number in range(BANKS):
            with m.If(activate & (bank == number)):
                m.d.memory += [rows[number].eq(row), opened[number].eq(1)]
        row_there = Signal(ROW_BITS, reset_less=True)
        equal = Signal(2)
        hit, closed = Signal(), Signal()
        half = ROW_BITS // 2
        m.d.memory += [
            row_there.eq(rows[bank_next]),
            closed.eq(~opened.bit_select(bank_next, 1)),
            equal.eq(Cat(row_there[:half] == row_next[:half], row_there[half:] == row_next[half:])),
            hit.eq(equal.all() & ~closed),
        ]

        # Five cycles after `accept`, `hit` belongs to the burst after that one, and a request that
        # came into its place is admitted on what is left of the beats. In the first of them, there
        # is nothing to be decided.
        stale, accepted = Signal(4), Signal()
        m.d.memory += [stale.eq(stale >> 1), accepted.eq(accept)]
        with m.If(accepted | activate):
            m.d.memory += stale.eq(-1)
        known = Signal()
        m.d.comb += known.eq(there & ~stale[0])
        return known, hit, closed


def _split(place):
    """A burst's address as (column, bank, row)."""
    return place[:ROW_BURST_BITS], place[ROW_BURST_BITS:-ROW_BITS], place[-ROW_BITS:]
