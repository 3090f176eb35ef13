"""What the compiler knows about an image, as plain JSON data.

========================  =========================================================================
network, geometry         names
image                     bytes, words, header_words, frame_words and, per kind of packet, its words
memory                    per memory: subject, unit, used, available
source                    where the image is: ram, link or sdram
logit_lsb                 real value of one LSB of the logits
stream_rate               words of the image that come in a cycle, at most
overlap                   whether the next frame's stem is computed while a frame is; cycles are
                          then those of a frame between two others
estimate                  cycles (whole frame), alone (of a frame that no other follows),
                          in_sequence (had no other frame's stem been put into it),
                          binary_cycles (layers on the XNOR array), array_busy (share of those in
                          which it works), layers: name, kind, cycles, waits
roofline                  critical_path (cycles), layers: phases, bound, cycles, binary_macs
binary_macs               useful multiplications of the binary layers
peak_binary_macs          what the XNOR array does in a cycle
layers                    name, kind, tiles, steps, block of every layer, and in how many parts it
                          is computed; ahead: those are parts of the next frame's stem
order                     what a frame computes, in order: for each part, the number of its layer
========================  =========================================================================

Layers are listed in the network's order; what is said of one is the sum over its parts.
"""

from typing import Any

from compiler.estimate import estimate, skipped
from compiler.fit import needs
from compiler.ir import Program
from compiler.roofline import critical_path, phases, roofline
from isa.image import HEADER_WORDS, Image, PacketType
from isa.layer import LayerKind
from isa.registers import Source


def report(program: Program, image: Image, source: Source) -> dict[str, Any]:
    """The table above."""
    geometry = program.geometry
    memory = {
        need.memory: {
            "subject": need.subject,
            "unit": need.unit,
            "used": need.needed,
            "available": need.available,
        }
        for need in needs(program.network, geometry, source)
    }
    rows = roofline(program)
    macs = {layer["name"]: layer["binary_macs"] for layer in rows}
    return {
        "network": program.network.name,
        "geometry": geometry.name,
        "image": {
            "bytes": 4 * len(image.words),
            "words": len(image.words),
            "header_words": HEADER_WORDS,
            "frame_words": len(image.frame),
            "packets": _packet_words(image),
        },
        "memory": memory,
        "source": source.name.lower(),
        "logit_lsb": program.logit_lsb,
        "stream_rate": program.stream_rate,
        "overlap": any(layer.packet is PacketType.AHEAD for layer in program.layers),
        "estimate": _estimate(program),
        "roofline": {"critical_path": critical_path(program), "layers": rows},
        "binary_macs": sum(int(str(value)) for value in macs.values()),
        "peak_binary_macs": geometry.binary_set_bits,
        "layers": _layers(program),
        "order": _order(program),
    }


def _packet_words(image: Image) -> dict[str, dict[str, int]]:
    words = {kind.name: {"count": 0, "words": 0} for kind in PacketType}
    for packet in image.packets:
        words[packet.type.name]["count"] += 1
        words[packet.type.name]["words"] += 1 + len(packet.payload)
    words[PacketType.END.name] = {"count": 1, "words": 2}
    return words


def _names(program: Program) -> list[str]:
    """The layers, in the network's order."""
    return list(dict.fromkeys(layer.name for layer in program.layers))


def _order(program: Program) -> list[int]:
    names = _names(program)
    return [
        names.index(layer.name)
        for layer in program.layers
        if layer.packet is not skipped(alone=False)
    ]


def _estimate(program: Program) -> dict[str, Any]:
    layers = estimate(program)
    alone = sum(layer.cycles for layer in estimate(program, alone=True))
    rows: list[dict[str, Any]] = []
    for name in _names(program):
        parts = [layer for layer in layers if layer.name == name]
        waits = {
            reason: sum(layer.waits.get(reason, 0) for layer in parts) for reason in parts[0].waits
        }
        cycles = sum(layer.cycles for layer in parts)
        rows.append({"name": name, "kind": parts[0].kind, "cycles": cycles, "waits": waits})
    binary = sum(row["cycles"] for row in rows if row["kind"] == LayerKind.BINARY.name)
    busy = sum(phases(layer, program.geometry)["xnor"] for layer in program.layers)
    return {
        "cycles": sum(layer.cycles for layer in layers),
        "alone": alone,
        "in_sequence": program.in_sequence,
        "binary_cycles": binary,
        "array_busy": busy / binary,
        "layers": rows,
    }


def _layers(program: Program) -> list[dict[str, Any]]:
    rows: dict[str, dict[str, Any]] = {}
    for layer in program.layers:
        fields = layer.descriptor or {}
        if layer.packet is skipped(alone=False):
            rows[layer.name] = {}  # in its place; what is computed comes later
            continue
        row = rows.setdefault(layer.name, {})
        ahead = layer.packet is PacketType.AHEAD
        if row:
            row["tiles"] += 0 if ahead else fields["tiles"]
            row["parts"] += 1
            continue
        row |= {
            "name": layer.name,
            "kind": layer.kind.name,
            "tiles": fields["tiles"],
            "steps": fields["kernel_rows"] * fields["inner"],
            "block": fields["block"],
            "parts": 1,
            "ahead": ahead,
        }
    return list(rows.values())
