"""What the compiler knows about an image, as plain JSON data.

========================  =========================================================================
network, geometry         names
image                     bytes, words, header_words, frame_words and, per kind of packet, its words
memory                    per memory: subject, unit, used, available
source                    where the image is: ram, link or sdram
logit_lsb                 real value of one LSB of the logits
estimate                  cycles (whole frame), binary_cycles (layers on the XNOR array), array_busy
                          (share of those in which it works), layers: name, kind, cycles, waits
roofline                  critical_path (cycles), layers: phases, bound, cycles, binary_macs
binary_macs               useful multiplications of the binary layers
peak_binary_macs          what the XNOR array does in a cycle
layers                    name, kind, tiles, steps, blocks, block of every layer
========================  =========================================================================
"""

import dataclasses
from typing import Any

from compiler.estimate import estimate
from compiler.fit import needs
from compiler.ir import Layer, Program
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
        "estimate": _estimate(program),
        "roofline": {"critical_path": critical_path(program), "layers": rows},
        "binary_macs": sum(int(str(value)) for value in macs.values()),
        "peak_binary_macs": geometry.binary_set_bits,
        "layers": [_layer(layer) for layer in program.layers],
    }


def _packet_words(image: Image) -> dict[str, dict[str, int]]:
    words = {kind.name: {"count": 0, "words": 0} for kind in PacketType}
    for packet in image.packets:
        words[packet.type.name]["count"] += 1
        words[packet.type.name]["words"] += 1 + len(packet.payload)
    words[PacketType.END.name] = {"count": 1, "words": 2}
    return words


def _estimate(program: Program) -> dict[str, Any]:
    layers = estimate(program)
    binary = sum(layer.cycles for layer in layers if layer.kind == LayerKind.BINARY.name)
    busy = sum(phases(layer, program.geometry)["xnor"] for layer in program.layers)
    return {
        "cycles": sum(layer.cycles for layer in layers),
        "binary_cycles": binary,
        "array_busy": busy / binary,
        "layers": [dataclasses.asdict(layer) for layer in layers],
    }


def _layer(layer: Layer) -> dict[str, Any]:
    fields = layer.descriptor or {}
    return {
        "name": layer.name,
        "kind": layer.kind.name,
        "tiles": fields["tiles"],
        "steps": fields["kernel_rows"] * fields["inner"],
        "blocks": fields["blocks"],
        "block": fields["block"],
    }
