"""The clocks of the design: one ECP5 PLL from the board's oscillator to `sync`, and to `memory`.

Limits are those of the ECP5 data sheet (FPGA-DS-02012, sysCLOCK PLL timing). The loop is closed
over CLKOP, and CLKOS carries the clock of the design with a divider of its own: so the phase
detector can run at 10 MHz and more, where the data sheet wants it, for output frequencies that a
single output would reach only with a slower one (60 MHz from 25 MHz would need 5 MHz). Where it is
asked for, CLKOS2 carries the clock of an external memory, another whole fraction of the VCO's.
"""

from dataclasses import dataclass
from math import ceil

from amaranth.hdl import ClockSignal, Const, Instance, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.cdc import AsyncFFSynchronizer
from amaranth.lib.wiring import In, Out

INPUT_MHZ = (8.0, 400.0)
OUTPUT_MHZ = (3.125, 400.0)
PHASE_DETECTOR_MHZ = (10.0, 400.0)
VCO_MHZ = (400.0, 800.0)
INPUT_DIVIDERS = range(1, 129)
FEEDBACK_DIVIDERS = range(1, 81)
OUTPUT_DIVIDERS = range(1, 129)
# The middle of the VCO's range, where it locks with the most margin to either side.
VCO_CENTRE_MHZ = 600.0


@dataclass(frozen=True)
class PLLSettings:
    """Dividers of an EHXPLLL whose loop is closed over CLKOP and whose output is CLKOS.

    phase detector = input / input_divider
    VCO            = phase detector * feedback_divider * loop_divider
    output         = VCO / output_divider
    memory         = VCO / memory_divider, on CLKOS2, if there is one
    """

    input_mhz: float
    input_divider: int
    feedback_divider: int
    loop_divider: int
    output_divider: int
    memory_divider: int | None = None

    @property
    def phase_detector_mhz(self):
        return self.input_mhz / self.input_divider

    @property
    def vco_mhz(self):
        return self.phase_detector_mhz * self.feedback_divider * self.loop_divider

    @property
    def output_mhz(self):
        """The frequency that results; never above the one asked for."""
        return self.vco_mhz / self.output_divider

    @property
    def memory_mhz(self):
        """The frequency of the memory's clock, never above the one asked for; or None."""
        return None if self.memory_divider is None else self.vco_mhz / self.memory_divider


def _within(value, limits):
    return limits[0] <= value <= limits[1]


def pll_settings(input_mhz, target_mhz, memory_mhz=None):
    """The legal settings whose output is nearest to `target_mhz` without exceeding it.

    Among equals: the nearest to `memory_mhz`, if a clock of the memory is wanted, which never
    changes the output; then the fastest phase detector (least jitter), then the VCO nearest to its
    centre. All frequencies are in MHz. ValueError if one is out of the PLL's range.
    """
    if not _within(input_mhz, INPUT_MHZ):
        raise ValueError(
            f"PLL input must be between {INPUT_MHZ[0]:g} and {INPUT_MHZ[1]:g} MHz, "
            f"not {input_mhz!r}"
        )
    if not _within(target_mhz, OUTPUT_MHZ):
        raise ValueError(
            f"PLL output must be between {OUTPUT_MHZ[0]:g} and {OUTPUT_MHZ[1]:g} MHz, "
            f"not {target_mhz!r}"
        )
    if memory_mhz is not None and not _within(memory_mhz, OUTPUT_MHZ):
        raise ValueError(
            f"PLL memory clock must be between {OUTPUT_MHZ[0]:g} and {OUTPUT_MHZ[1]:g} MHz, "
            f"not {memory_mhz!r}"
        )
    best = best_cost = None
    for input_divider in INPUT_DIVIDERS:
        detector = input_mhz / input_divider
        if not _within(detector, PHASE_DETECTOR_MHZ):
            continue
        for total in range(1, int(VCO_MHZ[1] // detector) + 1):
            vco = detector * total
            output_divider = _divider(vco, target_mhz)
            loop = _split_feedback(detector, total)
            if not _within(vco, VCO_MHZ) or output_divider not in OUTPUT_DIVIDERS or loop is None:
                continue
            # A millionth of a MHz is rounding, not a better frequency.
            error = round(target_mhz - vco / output_divider, 6)
            memory_divider, memory_error = None, 0.0
            if memory_mhz is not None:
                memory_divider = _divider(vco, memory_mhz)
                if memory_divider not in OUTPUT_DIVIDERS:
                    continue
                memory_error = round(memory_mhz - vco / memory_divider, 6)
            cost = (error, memory_error, input_divider, abs(vco - VCO_CENTRE_MHZ))
            if best_cost is None or cost < best_cost:
                best_cost = cost
                best = PLLSettings(input_mhz, input_divider, *loop, output_divider, memory_divider)
    if best is None:
        raise ValueError(
            f"PLL output must be reachable from {input_mhz:g} MHz, not {target_mhz!r} MHz"
        )
    return best


def _divider(vco, target_mhz):
    """The least divider whose output does not exceed the target."""
    # Less what the division of two floats may add to a whole number.
    return ceil(vco / target_mhz - 1e-9)


def _split_feedback(detector, total):
    """(feedback_divider, loop_divider) with this product and a legal CLKOP, or None."""
    for feedback in FEEDBACK_DIVIDERS:
        if total % feedback == 0 and total // feedback in OUTPUT_DIVIDERS:
            # CLKOP is what the loop compares, hence detector * feedback.
            if _within(detector * feedback, OUTPUT_MHZ):
                return feedback, total // feedback
    return None


class ClockGenerator(wiring.Component):
    """Drives the clock of the domain `sync` from the board's oscillator.

    `clk_in` is the pin's clock at `input_mhz`; `locked` is the PLL's lock, asynchronous to every
    domain. `settings.output_mhz` is the frequency of `sync`, constrained on the platform. With
    `memory_mhz`, the domain `memory` is driven as well, at `settings.memory_mhz`; though both come
    from one VCO, they are to be treated as asynchronous.

    The module that instantiates this one defines the domains, and as ones without a reset:
    `m.domains.sync = ClockDomain(reset_less=True)`. `reset`, in `sync`, and `memory_reset`, in
    `memory`, are set until the PLL has locked; `hw.resets` takes them to the parts.
    """

    clk_in: In(1)
    locked: Out(1)
    reset: Out(1)
    memory_reset: Out(1)

    def __init__(self, *, input_mhz, target_mhz, memory_mhz=None):
        self.settings = pll_settings(input_mhz, target_mhz, memory_mhz)
        super().__init__()

    def elaborate(self, platform):
        m = Module()
        settings = self.settings
        clk_loop = Signal()
        # Kept, or synthesis would leave the net another of its names, and the constraint none.
        clk_sync = Signal(attrs={"keep": "true"})
        m.d.comb += ClockSignal("sync").eq(clk_sync)
        m.submodules.synchronizer = AsyncFFSynchronizer(~self.locked, self.reset)
        if platform is not None:
            platform.add_clock_constraint(clk_sync, settings.output_mhz * 1e6)

        second_output = {}
        if settings.memory_divider is not None:
            clk_memory = Signal(attrs={"keep": "true"})
            m.d.comb += ClockSignal("memory").eq(clk_memory)
            m.submodules.memory_synchronizer = AsyncFFSynchronizer(
                ~self.locked, self.memory_reset, o_domain="memory"
            )
            if platform is not None:
                platform.add_clock_constraint(clk_memory, settings.memory_mhz * 1e6)
            second_output = {
                "a_FREQUENCY_PIN_CLKOS2": f"{settings.memory_mhz:g}",
                "p_CLKOS2_ENABLE": "ENABLED",
                "p_CLKOS2_DIV": settings.memory_divider,
                "p_CLKOS2_CPHASE": settings.memory_divider - 1,
                "p_CLKOS2_FPHASE": 0,
                "o_CLKOS2": clk_memory,
            }

        m.submodules.pll = Instance(
            "EHXPLLL",
            # Loop filter and charge pump as Lattice's wizard sets them for this range.
            a_ICP_CURRENT="12",
            a_LPF_RESISTOR="8",
            a_MFG_ENABLE_FILTEROPAMP="1",
            a_MFG_GMCREF_SEL="2",
            a_FREQUENCY_PIN_CLKI=f"{settings.input_mhz:g}",
            a_FREQUENCY_PIN_CLKOS=f"{settings.output_mhz:g}",
            p_PLLRST_ENA="DISABLED",
            p_INTFB_WAKE="DISABLED",
            p_STDBY_ENABLE="DISABLED",
            p_DPHASE_SOURCE="DISABLED",
            p_OUTDIVIDER_MUXA="DIVA",
            p_OUTDIVIDER_MUXB="DIVB",
            p_OUTDIVIDER_MUXC="DIVC",
            p_OUTDIVIDER_MUXD="DIVD",
            p_CLKI_DIV=settings.input_divider,
            p_CLKFB_DIV=settings.feedback_divider,
            p_FEEDBK_PATH="CLKOP",
            p_CLKOP_ENABLE="ENABLED",
            p_CLKOP_DIV=settings.loop_divider,
            # A coarse phase of divider - 1 is what Lattice's wizard writes for none.
            p_CLKOP_CPHASE=settings.loop_divider - 1,
            p_CLKOP_FPHASE=0,
            p_CLKOS_ENABLE="ENABLED",
            p_CLKOS_DIV=settings.output_divider,
            p_CLKOS_CPHASE=settings.output_divider - 1,
            p_CLKOS_FPHASE=0,
            i_CLKI=self.clk_in,
            i_CLKFB=clk_loop,
            i_RST=Const(0),
            i_STDBY=Const(0),
            i_PHASESEL0=Const(0),
            i_PHASESEL1=Const(0),
            i_PHASEDIR=Const(1),
            i_PHASESTEP=Const(1),
            i_PHASELOADREG=Const(1),
            i_PLLWAKESYNC=Const(0),
            i_ENCLKOP=Const(0),
            o_CLKOP=clk_loop,
            o_CLKOS=clk_sync,
            o_LOCK=self.locked,
            **second_output,
        )
        return m
