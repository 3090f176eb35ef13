"""What the data sheet of an SDR SDRAM says: sizes, commands, times, pins.

Parts of 16 bits, four banks, 8192 rows and 512 columns: IS42S16160, W9825G6 and their like.
"""

from dataclasses import dataclass
from math import ceil, floor

from amaranth.lib import enum, wiring
from amaranth.lib.wiring import In, Out

DATA_BITS = 16
BURST_BEATS = 8
BURST_BITS = BURST_BEATS * DATA_BITS
COLUMN_BITS = 9
BANK_BITS = 2
ROW_BITS = 13
BANKS = 1 << BANK_BITS
#: Bursts in a row, as bits of their address.
ROW_BURST_BITS = COLUMN_BITS - (BURST_BEATS - 1).bit_length()
BURST_ADDRESS_BITS = ROW_BURST_BITS + BANK_BITS + ROW_BITS


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
