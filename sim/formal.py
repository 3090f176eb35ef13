"""Proofs about gateware, by the SAT solver in Yosys: what an assertion says holds in every run.

A claim is a design whose statements `Assert` and `Assume` say what is to be shown, and of which
inputs. It is clocked by `sync`, without a reset: it starts with the initial values of its
registers. `python -m sim.formal` is the process in which Yosys works; `prove` starts it.
"""

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from amaranth.back import rtlil
from amaranth.hdl import ClockDomain, Elaboratable, Module, Value

TOP = "claim"
#: The solver's words for a proof that failed; anything else that ends it is a fault of ours.
REFUTED = "Called with -verify and proof did fail"


class ProofError(AssertionError):
    """A claim that does not hold, or could not be shown; the message has the counterexample."""


class _Clocked(Elaboratable):
    """The claim in a clock domain whose clock is an input."""

    def __init__(self, claim: Elaboratable) -> None:
        self._claim = claim
        self.domain = ClockDomain("sync", reset_less=True)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.domains.sync = self.domain
        m.submodules.claim = self._claim
        return m


def prove(
    claim: Elaboratable,
    inputs: Sequence[Value],
    *,
    cycles: int,
    forever: bool,
    timeout_s: float = 600.0,
) -> None:
    """Shows that no assertion of `claim` fails, whatever its `inputs` are in each cycle.

    `forever`: by induction over at most `cycles` cycles, in runs of any length; otherwise in the
    first `cycles` cycles of every run. Raises ProofError if an assertion can fail, if the
    induction does not close, or if there is nothing to show.
    """
    top = _Clocked(claim)
    ports = [*inputs, top.domain.clk]
    text = rtlil.convert(top, name=TOP, ports=ports, emit_src=False)
    if not ("cell $check" in text or "cell $assert" in text):
        raise ProofError("Claim must have an assertion that its inputs can reach, not none")
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "claim.il"
        source.write_text(text)
        command = [sys.executable, "-m", "sim.formal", str(source), str(cycles)]
        result = subprocess.run(
            command + ["--forever"] * forever,
            cwd=Path(__file__).parents[1],
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
    if result.returncode or "SUCCESS" not in result.stdout:
        words = "can fail" if REFUTED in result.stdout + result.stderr else "could not be shown"
        tail = "\n".join((result.stdout + result.stderr).splitlines()[-120:])
        raise ProofError(f"Claim {type(claim).__name__} {words} within {cycles} cycles:\n{tail}")


def main() -> None:
    """The body of the process."""
    parser = argparse.ArgumentParser(prog="python -m sim.formal", description="Prove assertions.")
    parser.add_argument("source", type=Path)
    parser.add_argument("cycles", type=int)
    parser.add_argument("--forever", action="store_true")
    args = parser.parse_args()

    from pyosys import libyosys

    design = libyosys.Design()
    kind = "-tempinduct" if args.forever else "-tempinduct-baseonly"
    solve = f"sat -prove-asserts -set-assumes {kind} -maxsteps {args.cycles} -verify -show-ports"
    for command in (
        f'read_rtlil "{args.source}"',
        f"prep -flatten -top {TOP}",
        "memory_map",
        "chformal -lower",
        "opt -full",
        "techmap",
        "opt -full",
        f"{solve} {TOP}",
    ):
        libyosys.run_pass(command, design)


if __name__ == "__main__":
    main()
