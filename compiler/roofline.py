"""How fast a schedule could be at best: what each resource has to do for each layer."""

from compiler.estimate import (
    block_sizes,
    groups_of_tile,
    packet_words,
    reduction_cycles,
    skipped,
)
from compiler.ir import BINARY_KERNEL, Layer, Program
from isa.geometry import Geometry
from isa.layer import LayerKind

RESOURCES = ("xnor", "mac", "post", "residual", "stream")


def phases(layer: Layer, geometry: Geometry, stream_rate: float = 1.0) -> dict[str, int]:
    """Cycles for which the layer occupies each of RESOURCES, if nothing ever waits."""
    used = dict.fromkeys(RESOURCES, 0)
    used["stream"] = round(packet_words(layer, geometry) / stream_rate)
    if layer.tiles is None:  # one read a cycle
        used["residual"] = reduction_cycles(layer, geometry)
        return used
    tiles = layer.tiles
    array = tiles.count * tiles.steps * sum(block_sizes(layer))
    used["xnor" if layer.kind is LayerKind.BINARY else "mac"] = array
    words = sum(groups_of_tile(layer, geometry, tile) for tile in range(tiles.count))
    used["post"] = layer.pixels * words
    written = layer.map_size[0] * layer.map_size[1] * words
    if layer.kind is LayerKind.POINTWISE:  # reads operands; reads and writes have a port each
        used["residual"] = max(array, written)
    elif layer.kind is not LayerKind.CLASSIFIER:
        used["residual"] = written
    return used


def phases_of_frame(program: Program) -> list[tuple[Layer, dict[str, int]]]:
    """The phases of all layers of a frame between two others: of one that is not computed, as its
    stem was ahead of it, there is but the stream."""
    found = []
    for layer in program.layers:
        used = phases(layer, program.geometry, program.stream_rate)
        if layer.packet is skipped(alone=False):
            used = dict.fromkeys(RESOURCES, 0) | {"stream": used["stream"]}
        found.append((layer, used))
    return found


def binary_macs(layer: Layer) -> int:
    """Multiplications of a binary layer by real channels inside the map; 0 for other kinds."""
    if layer.kind is not LayerKind.BINARY:
        return 0
    taps = 1
    for size, out in zip(layer.in_size, layer.out_size, strict=True):
        taps *= sum(
            0 <= i * layer.stride - layer.pad + k < size
            for i in range(out)
            for k in range(BINARY_KERNEL)
        )
    return taps * layer.in_channels * layer.out_channels


def roofline(program: Program) -> list[dict[str, object]]:
    """Per layer: the phases of all its parts, the one that binds, its cycles and the useful binary
    MACs."""
    rows: dict[str, dict[str, int]] = {}
    kinds: dict[str, str] = {}
    macs: dict[str, int] = {}
    for layer, used in phases_of_frame(program):
        row = rows.setdefault(layer.name, dict.fromkeys(RESOURCES, 0))
        for name in RESOURCES:
            row[name] += used[name]
        kinds[layer.name] = layer.kind.name
        macs[layer.name] = macs.get(layer.name, 0) + binary_macs(layer)
    found: list[dict[str, object]] = []
    for name, row in rows.items():
        bound = max(RESOURCES, key=row.__getitem__)
        found.append(
            {
                "name": name,
                "kind": kinds[name],
                "phases": row,
                "bound": bound,
                "cycles": row[bound],
                "binary_macs": macs[name],
            }
        )
    return found


def critical_path(program: Program) -> int:
    """The least number of cycles that this schedule, one part after the other, could take.

    Each part takes its longest phase after the one before it. The stream runs ahead of them all,
    but no part ends before the last of its own words has come.
    """
    end = streamed = 0
    for _, used in phases_of_frame(program):
        streamed += used.pop("stream")
        end = max(end + max(used.values()), streamed)
    return end
