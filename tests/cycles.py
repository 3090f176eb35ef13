"""Every cycle of a simulated frame is explained once: by the counters, and layer by layer."""

from isa.trace import ACTIVITIES, EXCLUSIVE
from sim.runner import SimResult


def assert_explained(result: SimResult) -> None:
    """The harness ends a simulation in which two exclusive levels are up at once. So where they
    add up, there was one in every cycle."""
    frames = zip(result.counters, result.layer_cycles, result.tails, strict=True)
    for number, (counters, layers, tail) in enumerate(frames):
        where = f"frame {number}"
        assert _explained(counters) == counters["cycles"], where
        assert sum(part.cycles for part in (*layers, tail)) == counters["cycles"], where
        for index, part in enumerate((*layers, tail)):
            assert _explained(part.activity) == part.cycles, f"{where}, part {index}: {part}"
        for name in ACTIVITIES:
            counted = sum(part.activity[name] for part in (*layers, tail))
            assert counted == counters[name], f"{where}, {name}"


def _explained(counts: dict[str, int]) -> int:
    return sum(counts[name] for name in EXCLUSIVE)
