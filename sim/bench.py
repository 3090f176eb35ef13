"""Unit tests in Amaranth's own simulator: no compile, a deadline, stalls on both ends of streams.

Test benches are `async def bench(ctx)` functions. `send` and `receive` are the two ends of a
`stream.Signature` port in the `sync` domain; each returns right after the clock edge of its last
transfer.
"""

from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import Any

from amaranth.hdl import Value
from amaranth.lib import stream, wiring
from amaranth.sim import Simulator

from sim.handshake import WithdrawChecker
from sim.handshake import stalls as stall_pattern

Bench = Callable[[Any], Awaitable[None]]

#: Seconds of a clock cycle of `simulate`, arbitrary: nothing in the gateware knows a second.
CYCLE = 1e-6


class DeadlineError(AssertionError):
    """A test bench was still waiting when its cycles were used up."""


def simulate(
    component: wiring.Component, *testbenches: Bench, deadline_cycles: int = 10_000
) -> None:
    """Run `component` until every test bench has returned.

    Raises `DeadlineError`, naming the benches that still wait, after `deadline_cycles` cycles.
    Components without a clock are welcome; their benches use `ctx.delay`.
    """
    if deadline_cycles < 1:
        raise ValueError(f"Deadline must be at least one cycle, not {deadline_cycles!r}")
    if not testbenches:
        raise ValueError("Simulation must be given at least one test bench, not none")
    waiting = {index: _name(bench) for index, bench in enumerate(testbenches)}
    simulator = Simulator(component)
    # `if_exists`: a purely combinational component has no domain to clock.
    simulator.add_clock(CYCLE, if_exists=True)

    def tracked(index: int, bench: Bench) -> Bench:
        async def run(ctx: Any) -> None:
            await bench(ctx)
            del waiting[index]

        return run

    async def deadline(ctx: Any) -> None:
        await ctx.delay(CYCLE * deadline_cycles)
        raise DeadlineError(
            f"Simulation did not finish within {deadline_cycles} cycles; "
            f"still waiting: {', '.join(waiting.values())}"
        )

    for index, bench in enumerate(testbenches):
        simulator.add_testbench(tracked(index, bench))
    simulator.add_testbench(deadline, background=True)
    simulator.run()


async def send(
    ctx: Any,
    port: stream.Interface,
    items: Iterable[Any],
    stalls: str | Iterator[bool] = "none",
    *,
    seed: int = 1,
) -> None:
    """Drive every item (anything that `ctx.set` takes for the payload) into `port`, in order.

    `stalls` is a key of `STALLS`, seeded by `seed`, or a pattern of one's own. While it stalls,
    valid is low and the payload is scrambled, so that a consumer that ignores valid is caught.
    """
    pattern = stall_pattern(stalls, seed) if isinstance(stalls, str) else stalls
    raw = Value.cast(port.payload)
    for item in items:
        while next(pattern):
            ctx.set(raw, ~ctx.get(raw) & ((1 << len(raw)) - 1))
            await ctx.tick()
        ctx.set(port.payload, item)
        ctx.set(port.valid, 1)
        await ctx.tick().until(port.ready)
        ctx.set(port.valid, 0)


async def receive(
    ctx: Any,
    port: stream.Interface,
    count: int,
    stalls: str | Iterator[bool] = "none",
    *,
    seed: int = 2,
    name: str | None = None,
) -> list[Any]:
    """Take `count` items from `port` and return them as `ctx.get` gives them for the payload.

    Raises `StreamError` where an offered payload changes or goes before it is taken.
    """
    pattern = stall_pattern(stalls, seed) if isinstance(stalls, str) else stalls
    checker = WithdrawChecker(name or _port_name(port))
    items: list[Any] = []
    while len(items) < count:
        ready = not next(pattern)
        ctx.set(port.ready, ready)
        _, _, valid, raw, payload = await ctx.tick().sample(
            port.valid, Value.cast(port.payload), port.payload
        )
        checker.observe(valid=valid, ready=ready, payload=raw)
        if valid and ready:
            items.append(payload)
    ctx.set(port.ready, 0)
    return items


def _name(bench: Bench) -> str:
    return getattr(bench, "__name__", None) or type(bench).__name__


def _port_name(port: stream.Interface) -> str:
    name: str = getattr(Value.cast(port.payload), "name", "stream")
    return name.removesuffix("__payload")
