"""The exclusive levels: one for whatever the core's units are at, none between frames."""

from hw.perf import LATENCY, PERF, PERF_REGISTERS, Perf
from isa.registers import COUNTERS, EXCLUSIVE
from sim.bench import simulate

STEPS = {  # levels of a step walker at work, with what a step of each array counts as
    ("working", "binary"): "array_busy",
    ("working",): "mac_busy",
    ("working", "wait_weights"): "wait_weights",
    ("working", "binary", "wait_weights"): "wait_weights",
    ("working", "wait_input"): "wait_input",
    ("working", "wait_output"): "wait_post",
    ("working", "binary", "wait_output"): "wait_post",
}
CASES = {
    (): None,
    ("found",): None,  # the loader may be ahead of the sequencer
    ("fetching",): "wait_load",
    ("fetching", "found"): "begin_layer",
    ("beginning",): "begin_layer",
    ("beginning", "binary"): "begin_layer",
    ("running", "preparing"): "begin_layer",
    **{("running", *levels): name for levels, name in STEPS.items()},
    ("running", "reducing"): "reduce_busy",
    ("running",): "drain_layer",
    ("running", "binary", "found"): "drain_layer",
    ("scanning",): "scan_logits",
    ("finishing",): "wait_crc",
}


def test_one_level_tells_what_the_core_does():
    dut = Perf()
    names = {number: name for name, number in PERF_REGISTERS.items()}
    exclusive = [names[number] for number in EXCLUSIVE]
    assert set(exclusive) == set(CASES.values()) - {None}
    inputs = {level for levels in CASES for level in levels}
    expected = list(CASES.items())

    async def bench(ctx):
        for cycle in range(len(expected) + LATENCY):
            if cycle >= LATENCY:
                levels, name = expected[cycle - LATENCY]
                up = [level for level in exclusive if ctx.get(dut.perf[level])]
                assert up == ([] if name is None else [name]), levels
                binary = "binary" in levels and {"beginning", "running"} & set(levels)
                assert ctx.get(dut.perf.binary_layer) == bool(binary), levels
            levels = expected[cycle][0] if cycle < len(expected) else ()
            for name in inputs:
                ctx.set(getattr(dut, name), name in levels)
            await ctx.tick()

    simulate(dut, bench)


def test_the_loaders_levels_are_as_late_as_the_others():
    """They come a cycle late."""
    dut = Perf()

    async def bench(ctx):
        for name in ("stream_busy", "wait_stream"):
            for level in (1, 0):
                ctx.set(getattr(dut, name), level)
                await ctx.tick().repeat(LATENCY - 1)
                assert ctx.get(dut.perf.as_value()) == level << PERF[name].offset

    simulate(dut, bench)


def test_every_counter_but_that_of_all_cycles_has_a_level():
    assert tuple(PERF_REGISTERS.values()) == COUNTERS[1:]
    assert tuple(PERF_REGISTERS) == tuple(PERF.members)
