"""Writes docs/contract.md from isa/: `python -m host.contract [--check]`."""

import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from amaranth.hdl import Shape
from amaranth.lib import data

from isa import fixed, image, registers
from isa.bits import WORD_BITS
from isa.checked import word_count
from isa.geometry import GEOMETRIES, Geometry
from isa.image import HEADER, PACKET, PacketType
from isa.layer import CHANNEL, LAYER, LayerKind
from isa.registers import CONTROL, MEMORY, ErrorCode, Register, Source, State

PATH = Path(__file__).parents[1] / "docs" / "contract.md"

FORMATS = {
    "RESIDUAL_BITS": "a residual value",
    "GUARD_BITS": "fraction bits of t and y below one residual LSB",
    "ACC_BITS": "accumulator at the input of the post-process",
    "ACC18_BITS": "accumulator after the shift by a",
    "T_BITS": "t and y",
    "SUM_BITS": "p",
    "M_BITS": "m",
    "N_BITS": "n",
    "SLOPE_BITS": "PReLU slope",
    "SLOPE_FRACTION": "fraction bits of the slope",
    "BIAS2_BITS": "bias2",
    "THRESHOLD_BITS": "threshold of the next sign bit",
    "FEATURE_BITS": "a global sum, the classifier's operand",
    "LOGIT_BITS": "a logit",
    "WEIGHT_BITS": "a weight of stem, 1x1 shortcut and classifier",
    "SHIFT_BITS": "a, s, k (unsigned)",
}

GEOMETRY_FIELDS = (
    "lanes",
    "word_bits",
    "taps",
    "stem_taps",
    "port_bits",
    "post_lanes",
    "ring_words",
    "residual_words",
    "bit_words",
    "input_bytes",
    "line_words",
    "channels",
    "classes",
    "image_words",
    "top_k",
    "sdram_bytes",
)


def _table(head: tuple[str, ...], rows: list[tuple[object, ...]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows]
    return "\n".join(lines)


def _layout(layout: data.StructLayout) -> str:
    rows: list[tuple[object, ...]] = []
    for name, field in layout:
        shape = Shape.cast(field.shape)
        last = field.offset + shape.width - 1
        where = f"{field.offset}" if shape.width == 1 else f"{last}:{field.offset}"
        kind = "signed" if shape.signed else "unsigned"
        rows.append((f"`{name}`", where, shape.width, kind))
    words = word_count(layout)
    note = f"{layout.size} bits, {words} word{'s' * (words > 1)} of {WORD_BITS} bits."
    return f"{note}\n\n" + _table(("field", "bits", "width", "type"), rows)


def _enum(kind: type) -> str:
    rows: list[tuple[object, ...]] = [(m.value, f"`{m.name}`") for m in kind]  # type: ignore[attr-defined]
    return _table(("value", "name"), rows)


def _quote(module: object) -> str:
    """A module's docstring, which is the prose of the contract."""
    text = str(module.__doc__).strip()
    return "```text\n" + text + "\n```"


def _geometries() -> str:
    found: list[Geometry] = list(GEOMETRIES.values())
    rows: list[tuple[object, ...]] = [
        (f"`{name}`", *(f"{getattr(g, name):,}" for g in found)) for name in GEOMETRY_FIELDS
    ]
    rows.append(("digest", *(f"`{g.digest:#010x}`" for g in found)))
    return _table(("field", *(g.name for g in found)), rows)


def generate() -> str:
    """The whole document."""
    import isa.bits
    import isa.flash
    import isa.geometry
    import isa.layer

    formats: list[tuple[object, ...]] = [
        (f"`{name}`", getattr(fixed, name), text) for name, text in FORMATS.items()
    ]
    addresses: list[tuple[object, ...]] = [
        (f"`{register.value:#07x}`", f"`{register.name}`") for register in Register
    ]
    codes: list[tuple[object, ...]] = [(c.value, f"`{c.name}`") for c in ErrorCode]
    parts = [
        "# The contract",
        "*Generated from `isa/` by `python -m host.contract`; a test checks that it is fresh.*",
        "Compiler, gateware, golden model and driver agree on what stands here, and on nothing "
        "else. Structures are packed from the least significant bit; words are little endian.",
        "## Bits",
        _quote(isa.bits),
        "## Fixed-point formats",
        "Signed two's complement unless said; see [arithmetic.md](arithmetic.md).",
        _table(("name", "bits", "what"), formats),
        "## Geometries",
        _quote(isa.geometry.Geometry),
        _geometries(),
        "## Image",
        _quote(image),
        f'Magic word `{image.MAGIC:#010x}` ("RBNN"), version {image.VERSION}.',
        "### Header",
        _layout(HEADER),
        "### Packet header",
        _layout(PACKET),
        _enum(PacketType),
        "### Layer descriptor",
        _quote(isa.layer),
        _layout(LAYER),
        _enum(LayerKind),
        "### Channel parameters",
        _layout(CHANNEL),
        "## Flash",
        _quote(isa.flash),
        f"The image begins at byte `{isa.flash.IMAGE_OFFSET:#x}` of `{isa.flash.FLASH_BYTES:#x}`.",
        "## Registers",
        _quote(registers),
        f"Addresses have {registers.ADDRESS_BITS} bits and count words.",
        _table(("address", "name"), addresses),
        "### CONTROL",
        _layout(CONTROL),
        "### MEMORY",
        _layout(MEMORY),
        "### STATUS",
        _enum(State),
        "### ERROR",
        _table(("value", "name"), codes),
        "### SOURCE",
        _enum(Source),
    ]
    if find_spec("isa.link") is not None:
        parts += ["## Serial frames", _quote(import_module("isa.link"))]
    return "\n\n".join(parts) + "\n"


def main(arguments: list[str]) -> int:
    text = generate()
    if arguments == ["--check"]:
        if PATH.exists() and PATH.read_text() == text:
            return 0
        print(f"{PATH} must be generated again: python -m host.contract", file=sys.stderr)
        return 1
    PATH.parent.mkdir(exist_ok=True)
    PATH.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
