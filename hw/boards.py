"""The boards that bitstreams are built for: pins, clock target and a seed known to route.

Pins come from amaranth-boards. A board's name is also the name of the geometry that fits it.
"""

from collections.abc import Callable
from dataclasses import dataclass

from amaranth_boards.ulx3s import ULX3S_25F_Platform, ULX3S_85F_Platform

from hw.clocking import pll_settings
from hw.floorplan import sites
from isa.geometry import Geometry


@dataclass(frozen=True)
class Board:
    """One board.

    `clock_mhz` is what the core is constrained to and runs at, at most; `memory_mhz` the same for
    the SDRAM, None where the accelerator has none. `seed` is the placement seed that
    met it last time, and is tried first. `uart_baud` is the rate of the link to the host.
    `algorithms` are nextpnr's options that choose them, and `floorplan` gives the sites of some
    cells for a geometry.
    `idcode` is what the FPGA wants to find in a bitstream; `loader` is openFPGALoader's name of the
    board.
    """

    name: str
    platform_type: type
    oscillator: str
    oscillator_mhz: float
    clock_mhz: float
    seed: int
    uart_baud: int
    idcode: int
    loader: str
    memory_mhz: float | None = None
    algorithms: tuple[str, ...] = ("--placer", "heap", "--router", "router1")
    floorplan: Callable[[Geometry], dict[str, str]] | None = None

    def platform(self):
        """A fresh Amaranth platform; each elaboration needs one of its own."""
        return self.platform_type()

    @property
    def clocks(self):
        """The PLL's settings: `output_mhz` and `memory_mhz` are what the clocks really are."""
        return pll_settings(self.oscillator_mhz, self.clock_mhz, self.memory_mhz)

    @property
    def nextpnr_options(self):
        """Device, package, speed grade and algorithms as nextpnr-ecp5 wants them."""
        platform = self.platform_type
        return (
            platform._nextpnr_device_options[platform.device],
            "--package",
            platform._nextpnr_package_options[platform.package].upper(),
            "--speed",
            platform.speed,
            *self.algorithms,
        )


_ULX3S = {"oscillator": "clk25", "oscillator_mhz": 25.0, "uart_baud": 3_000_000, "loader": "ulx3s"}

BOARDS = {
    board.name: board
    for board in (
        Board(
            "ulx3s-25f",
            ULX3S_25F_Platform,
            clock_mhz=80.0,
            idcode=0x41111043,
            seed=1,
            **_ULX3S,
        ),
        Board(
            "ulx3s-85f",
            ULX3S_85F_Platform,
            clock_mhz=80.0,
            memory_mhz=400 / 3,
            # Nine tenths of the wires that the default placer needs; a quarter of router1's time,
            # if it reroutes what is late: it joins a net where that is nearest, however slow.
            algorithms=("--placer", "static", "--router", "router2", "--tmg-ripup"),
            floorplan=sites,
            idcode=0x41113043,
            seed=4,
            **_ULX3S,
        ),
    )
}


def get_board(name):
    """The board of that name; ValueError names those that exist."""
    if name not in BOARDS:
        known = " or ".join(repr(known) for known in BOARDS)
        raise ValueError(f"Board must be {known}, not {name!r}")
    return BOARDS[name]
