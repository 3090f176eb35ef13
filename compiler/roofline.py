"""How fast a schedule could be at best: what each resource has to do for each layer."""

from compiler.estimate import block_sizes, groups_of_tile, reduction_cycles
from compiler.ir import BINARY_KERNEL, Layer, Program
from isa.bits import WORD_BITS
from isa.geometry import Geometry
from isa.image import CHANNEL_WORDS, LAYER_WORDS
from isa.layer import LayerKind

RESOURCES = ("xnor", "mac", "post", "residual", "stream")


def phases(layer: Layer, geometry: Geometry) -> dict[str, int]:
    """Cycles for which the layer occupies each of RESOURCES, if nothing ever waits."""
    used = dict.fromkeys(RESOURCES, 0)
    used["stream"] = 1 + LAYER_WORDS
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
    set_words = tiles.weights.shape[3] * tiles.weights.shape[4]
    set_words *= 1 if layer.kind is LayerKind.BINARY else 8
    tile_words = 2 + geometry.lanes * CHANNEL_WORDS + tiles.steps * set_words // WORD_BITS
    used["stream"] += tiles.count * tile_words
    return used


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
    """Per layer: the phases, the one that binds, its cycles and the useful binary MACs."""
    rows: list[dict[str, object]] = []
    for layer in program.layers:
        used = phases(layer, program.geometry)
        bound = max(RESOURCES, key=lambda name: used[name])
        rows.append(
            {
                "name": layer.name,
                "kind": layer.kind.name,
                "phases": used,
                "bound": bound,
                "cycles": used[bound],
                "binary_macs": binary_macs(layer),
            }
        )
    return rows


def critical_path(program: Program) -> int:
    """The least number of cycles that this schedule, layer after layer, could take.

    Each layer takes its longest phase after the one before it. The stream runs ahead of them all,
    but no layer ends before the last of its own words has come.
    """
    end = streamed = 0
    for layer in program.layers:
        used = phases(layer, program.geometry)
        streamed += used.pop("stream")
        end = max(end + max(used.values()), streamed)
    return end
