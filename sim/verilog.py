"""Amaranth components as Verilog with flat port names.

A port of a nested interface is joined with two underscores: the stream `frames` has the ports
`frames__payload`, `frames__valid` and `frames__ready`. A payload is one vector, whatever its
structure.
"""

import re
from dataclasses import dataclass
from itertools import count

from amaranth.back import verilog
from amaranth.hdl import Const, Fragment, Value, ValueCastable
from amaranth.hdl._ir import PortDirection  # `verilog.convert` wants it; it has no public name
from amaranth.lib import wiring


@dataclass(frozen=True)
class Port:
    """A flat port: `direction` is `"input"` or `"output"`, `width` in bits (0 makes no wire)."""

    direction: str
    width: int


def _values(component: wiring.Component) -> dict[str, tuple[Value, bool]]:
    values = {}
    for path, member, value in component.signature.flatten(component):
        if isinstance(value, ValueCastable):
            value = value.as_value()
        # Streams that are always valid or always ready have a constant there, which is no port.
        if not isinstance(value, Const):
            values["__".join(map(str, path))] = (value, member.flow == wiring.In)
    return values


def ports_of(component: wiring.Component, *, clock: bool = True) -> dict[str, Port]:
    """The ports of the Verilog module, by name; with `clk` and `rst` first where `clock` is set."""
    ports = {"clk": Port("input", 1), "rst": Port("input", 1)} if clock else {}
    for name, (value, is_input) in _values(component).items():
        if len(value):
            ports[name] = Port("input" if is_input else "output", len(value))
    return ports


def to_verilog(component: wiring.Component, name: str) -> str:
    """Verilog of `component` as a module called `name`, self-contained, without source locations.

    Without source locations the text depends on the gateware alone, so builds can be cached by it.
    """
    ports = {
        port: (value, PortDirection.Input if is_input else PortDirection.Output)
        for port, (value, is_input) in _values(component).items()
    }
    fragment = Fragment.get(component, platform=None)
    text: str = verilog.convert(
        fragment, name=name, ports=ports, emit_src=False, strip_internal_attrs=True
    )
    return _loop_initial_values(_wake(_wake_constants(text)))


def _wake(text: str) -> str:
    """Makes combinational blocks run at time 0.

    Yosys has them read a register that is declared with an initial value, for the change of it to
    wake them. Icarus makes that value before any block waits for it; a non-blocking assignment
    comes after that.
    """
    return _WAKING_REGISTER.sub(r"  reg \g<name> ;\n  initial \g<name> <= 0;", text)


_WAKING_REGISTER = re.compile(
    r"^  reg (?P<name>\\(\$auto\$verilog_backend|constant\$wake)\S+) += 0;$", re.MULTILINE
)


def _wake_constants(text: str) -> str:
    """Makes blocks that assign a constant run at all.

    Yosys writes the constant part of a partly constant vector as ``always @* x[3:0] = 4'h2;``.
    With nothing in its sensitivity list such a block never runs, and the part stays undefined. A
    register that gets its value at time 0 wakes it, as Yosys itself does for other blocks.
    """
    numbers = count()

    def replace(match: re.Match[str]) -> str:
        name = f"\\constant$wake${next(numbers)} "
        return (
            f"  reg {name} = 0;\n"
            f"  always @* begin\n    if ({name}) begin end\n    {match['assignment']}\n  end\n"
        )

    return _CONSTANT_BLOCK.sub(replace, text)


_CONSTANT_BLOCK = re.compile(
    r"^  always @\*\n    (?P<assignment>[^=\n]+ = \d+'[bdh][0-9a-fA-F]+;)\n", re.MULTILINE
)


def _loop_initial_values(text: str) -> str:
    """Sets words of a memory that are all equal in a loop: compilers take long for a line each."""
    numbers = count()

    def replace(match: re.Match[str]) -> str:
        lines = match["lines"].splitlines()
        words = [_INITIAL_WORD.fullmatch(line) for line in lines]
        names = {(word["name"], word["value"]) for word in words if word}
        if len(names) != 1 or [int(word["index"]) for word in words if word] != [
            *range(len(lines))
        ]:
            return match[0]
        ((name, value),) = names
        index = f"\\initial$index${next(numbers)} "
        return (
            f"  integer {index};\n  initial begin\n"
            f"    for ({index}= 0; {index}< {len(lines)}; {index}= {index}+ 1)\n"
            f"      {name}[{index}] = {value};\n  end\n"
        )

    return _INITIAL_WORDS.sub(replace, text)


_INITIAL_WORD = re.compile(
    r"    (?P<name>\\?\S+ ?)\[(?P<index>\d+)\] = (?P<value>\d+'[bdh][0-9a-fA-F]+);"
)
_INITIAL_WORDS = re.compile(
    r"^  initial begin\n(?P<lines>(?:    \S.*\[\d+\] = .*;\n)+)  end\n", re.MULTILINE
)
