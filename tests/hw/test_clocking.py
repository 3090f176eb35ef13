"""PLL settings are legal, exact where they can be, and refused where they cannot."""

import pytest
from amaranth.back import rtlil
from amaranth.hdl import ClockDomain, Module
from hypothesis import given
from hypothesis import strategies as st

from hw.clocking import ClockGenerator, pll_settings


def assert_legal(settings):
    assert 10 <= settings.phase_detector_mhz <= 400
    assert 400 <= settings.vco_mhz <= 800
    assert 1 <= settings.input_divider <= 128
    assert 1 <= settings.feedback_divider <= 80
    assert 1 <= settings.loop_divider <= 128
    assert 1 <= settings.output_divider <= 128
    # CLKOP closes the loop, so it must be a legal output too.
    assert 3.125 <= settings.vco_mhz / settings.loop_divider <= 400
    assert settings.vco_mhz / settings.loop_divider / settings.feedback_divider == pytest.approx(
        settings.phase_detector_mhz
    )


@pytest.mark.parametrize(
    "target", [20, 25, 40, 48, 50, 60, 62.5, 64, 66, 70, 75, 80, 89, 90, 100, 125]
)
def test_every_clock_of_interest_is_within_one_percent_from_25_mhz(target):
    settings = pll_settings(25.0, target)
    assert_legal(settings)
    assert 0.99 * target <= settings.output_mhz <= target + 1e-6


@pytest.mark.parametrize("target", [25, 50, 60, 62.5, 75, 80, 100])
def test_round_clocks_are_exact(target):
    assert pll_settings(25.0, target).output_mhz == pytest.approx(target, abs=1e-9)


def test_sixty_megahertz_runs_the_phase_detector_at_the_oscillator():
    settings = pll_settings(25.0, 60.0)
    assert settings.phase_detector_mhz == 25.0
    assert settings.vco_mhz == 600.0
    assert settings.output_divider == 10


@given(
    input_mhz=st.floats(10, 400, allow_nan=False),
    target=st.floats(10, 390, allow_nan=False),
)
def test_any_answer_is_legal_and_not_above_the_target(input_mhz, target):
    try:
        settings = pll_settings(input_mhz, target)
    except ValueError:
        return
    assert_legal(settings)
    assert settings.output_mhz <= target + 1e-6


@pytest.mark.parametrize("bad", [7.9, 401.0, float("nan")])
def test_input_out_of_range_is_refused(bad):
    with pytest.raises(ValueError) as error:
        pll_settings(bad, 60.0)
    assert str(error.value) == f"PLL input must be between 8 and 400 MHz, not {bad!r}"


@pytest.mark.parametrize("bad", [3.0, 401.0, -1.0])
def test_output_out_of_range_is_refused(bad):
    with pytest.raises(ValueError) as error:
        ClockGenerator(input_mhz=25.0, target_mhz=bad)
    assert str(error.value) == f"PLL output must be between 3.125 and 400 MHz, not {bad!r}"


def test_an_input_too_slow_for_the_phase_detector_is_refused():
    with pytest.raises(ValueError) as error:
        pll_settings(9.0, 60.0)
    assert str(error.value) == "PLL output must be reachable from 9 MHz, not 60.0 MHz"


def test_the_generator_instantiates_the_pll_with_its_settings():
    clocks = ClockGenerator(input_mhz=25.0, target_mhz=60.0)
    m = Module()
    m.domains.sync = ClockDomain(reset_less=True)
    m.submodules.clocks = clocks
    text = rtlil.convert(m, ports=[clocks.clk_in, clocks.locked], emit_src=False)
    assert "cell \\EHXPLLL" in text
    for line in (
        'parameter \\FEEDBK_PATH "CLKOP"',
        "parameter \\CLKI_DIV 1",
        "parameter \\CLKFB_DIV 1",
        "parameter \\CLKOP_DIV 24",
        "parameter \\CLKOS_DIV 10",
        "parameter \\CLKOS_CPHASE 9",
    ):
        assert line in text


def test_a_memory_clock_never_changes_the_design_s():
    for target in (20, 48, 60, 64, 66, 200 / 3, 70, 75, 80, 89, 100):
        alone, both = pll_settings(25.0, target), pll_settings(25.0, target, 400 / 3)
        assert_legal(both)
        assert both.output_mhz == pytest.approx(alone.output_mhz, abs=1e-6)
        assert 0.85 * 400 / 3 <= both.memory_mhz <= 400 / 3 + 1e-6
        assert both.vco_mhz / both.memory_divider == both.memory_mhz
        assert (alone.memory_divider, alone.memory_mhz) == (None, None)


@pytest.mark.parametrize(
    ("target", "memory"), [(60, 120.0), (200 / 3, 400 / 3), (75, 131.25), (80, 400 / 3)]
)
def test_memory_clocks_of_interest(target, memory):
    assert pll_settings(25.0, target, 400 / 3).memory_mhz == pytest.approx(memory, abs=1e-6)


def test_a_memory_clock_out_of_range_is_refused():
    with pytest.raises(ValueError) as error:
        ClockGenerator(input_mhz=25.0, target_mhz=60.0, memory_mhz=401.0)
    assert str(error.value) == "PLL memory clock must be between 3.125 and 400 MHz, not 401.0"


def test_the_generator_drives_a_second_domain_only_where_it_is_wanted():
    texts = []
    for memory_mhz in (None, 400 / 3):
        clocks = ClockGenerator(input_mhz=25.0, target_mhz=80.0, memory_mhz=memory_mhz)
        m = Module()
        m.domains.sync = ClockDomain(reset_less=True)
        m.domains.memory = ClockDomain(reset_less=True)
        m.submodules.clocks = clocks
        texts.append(rtlil.convert(m, ports=[clocks.clk_in, clocks.locked], emit_src=False))
    assert "CLKOS2" not in texts[0]
    for line in (
        "parameter \\CLKOS_DIV 5",
        'parameter \\CLKOS2_ENABLE "ENABLED"',
        "parameter \\CLKOS2_DIV 3",
        "parameter \\CLKOS2_CPHASE 2",
    ):
        assert line in texts[1]
