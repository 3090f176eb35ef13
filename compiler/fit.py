"""What a network needs of each memory, and the refusal of what does not fit.

All of it follows from the network's shape and the geometry alone, before any weight is read.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from compiler.errors import CompileError
from compiler.ir import BINARY_KERNEL, ceil_div
from isa.bits import WORD_BITS
from isa.geometry import GEOMETRIES, Geometry
from isa.image import CHANNEL_WORDS, HEADER_WORDS, LAYER_WORDS
from isa.network import Network
from isa.registers import Source

#: The geometry's member and its name, by source; the link has no memory.
IMAGE_MEMORIES = {
    Source.RAM: ("image_words", "Image RAM"),
    Source.SDRAM: ("sdram_image_words", "Image half of the SDRAM"),
}

END_WORDS = 2  # the END packet: header and CRC-32


@dataclass(frozen=True)
class Need:
    """``memory`` is a member of the geometry; ``where`` says which layer needs most, if any."""

    memory: str
    subject: str
    unit: str
    needed: int
    available: int
    where: str = ""

    @property
    def excess(self) -> int:
        return max(0, self.needed - self.available)


@dataclass(frozen=True)
class Shape:
    """A convolution, as far as its size in the image goes. ``set_bits``: of one weight set."""

    name: str
    out_channels: int
    steps: int
    set_bits: int

    def tiles(self, geometry: Geometry) -> int:
        return ceil_div(self.out_channels, geometry.lanes)


def convolutions(network: Network, geometry: Geometry) -> Iterator[Shape]:
    """Every layer with weights, in order."""
    taps, mac_bits = geometry.taps, geometry.mac_set_bits
    kernel = network.stem.kernel
    stem_steps = kernel * ceil_div(kernel * network.input_channels, geometry.stem_taps)
    yield Shape("stem", network.widths[0], stem_steps, geometry.stem_set_bits)
    for block in network.blocks():
        channels, name = block.in_channels, block.name
        if block.downsamples:
            steps = ceil_div(channels, taps)
            yield Shape(f"{name}.shortcut", block.out_channels, steps, mac_bits)
        steps = BINARY_KERNEL**2 * ceil_div(channels, geometry.word_bits)
        yield Shape(name, block.out_channels, steps, geometry.binary_set_bits)
    yield Shape("fc", network.classes, ceil_div(network.widths[-1], taps), mac_bits)


def input_ring_bytes(rows: int, row_bytes: int) -> int:
    """Bytes of the ring that so many rows take anywhere in a frame. It is written in words of four
    bytes, which need not begin or end with a row."""
    return 4 * ceil_div(rows * row_bytes, 4) + 4


def bit_map_sizes(network: Network, geometry: Geometry) -> list[int]:
    """Words of K bits of each bit map: that of the stem and of every block but the last."""
    return [
        block.in_size[0] * block.in_size[1] * ceil_div(block.in_channels, geometry.word_bits)
        for block in network.blocks()
    ]


def bit_map_words(sizes: list[int]) -> int:
    """Two neighbours live at once: one is read while the other is written."""
    return max([sizes[0], *(a + b for a, b in pairwise(sizes))])


def image_words(network: Network, geometry: Geometry) -> int:
    """Words of the whole image."""
    words = HEADER_WORDS + END_WORDS
    pools = sum(block.downsamples for block in network.blocks())
    words += (1 + LAYER_WORDS) * (pools + 1)  # and the mean
    for shape in convolutions(network, geometry):
        tile = 1 + geometry.lanes * CHANNEL_WORDS + 1 + shape.steps * shape.set_bits // WORD_BITS
        words += 1 + LAYER_WORDS + shape.tiles(geometry) * tile
    return words


def needs(network: Network, geometry: Geometry, source: Source | None = None) -> tuple[Need, ...]:
    """Everything that the network takes of the geometry, memory by memory; the last one is where
    the image is, if ``source`` (by default the geometry's) is a memory."""
    height, width = network.map_size
    shapes = list(convolutions(network, geometry))
    largest = max(shapes, key=lambda shape: shape.steps * shape.set_bits)
    row_bytes = network.input_size[1] * network.input_channels
    inputs = 4 * ceil_div(network.input_size[0] * row_bytes, 4)
    if network.widths[0] <= geometry.lanes:
        # One tile, which goes by rows: those of a block of any size, wherever it begins.
        further = ceil_div(Geometry.BLOCK_PIXELS - 1, network.stem_size[1])
        rows = network.stem.kernel + network.stem.stride * further
        inputs = min(inputs, input_ring_bytes(rows, row_bytes))
    line = 0
    if network.stem.pool:
        groups = min(geometry.groups, ceil_div(network.widths[0], geometry.post_lanes))
        line = network.stem_size[1] // 2 * groups

    def need(memory: str, subject: str, unit: str, needed: int, where: str = "") -> Need:
        return Need(memory, subject, unit, needed, getattr(geometry, memory), where)

    image = []
    if (source := source or geometry.source) in IMAGE_MEMORIES:
        words = image_words(network, geometry)
        image = [need(*IMAGE_MEMORIES[source], "32-bit words", words)]
    residuals, ring = f"words of {geometry.post_lanes} residuals", f"{geometry.port_bits}-bit words"
    return (
        need(
            "residual_words",
            "Residual map",
            residuals,
            height * width * ceil_div(network.widths[0], geometry.post_lanes),
        ),
        need(
            "bit_words",
            "Bit maps",
            f"{geometry.word_bits}-bit words",
            bit_map_words(bit_map_sizes(network, geometry)),
        ),
        need(
            "ring_words",
            "Weight ring",
            ring,
            largest.steps * largest.set_bits // geometry.port_bits,
            f" for a tile of layer {largest.name}",
        ),
        need("input_bytes", "Input ring", "bytes", inputs),
        need("line_words", "Line buffer", f"words of {geometry.post_lanes} channels", line),
        need("channels", "Feature memory", "channels", network.widths[-1]),
        need("classes", "Result memory", "classes", network.classes),
        *image,
    )


def capacity(geometry: Geometry, source: Source) -> int | None:
    """Words that an image in ``source`` may have; None if it is no memory."""
    if source not in IMAGE_MEMORIES:
        return None
    words: int = getattr(geometry, IMAGE_MEMORIES[source][0])
    return words


def check_fit(network: Network, geometry: Geometry, source: Source | None = None) -> None:
    """Raises CompileError for the first memory that is too small, naming the smallest known
    geometry that would do. ``source`` is where the image is: by default the geometry's.
    """
    for need in needs(network, geometry, source):
        if need.excess:
            raise CompileError(
                f"{need.subject} must fit {need.available} {need.unit} of geometry "
                f"{geometry.name}, not {need.needed}{need.where} ({need.excess} too many); "
                f"{_advice(network, source)}"
            )


def _advice(network: Network, source: Source | None) -> str:
    # Other geometries keep the image where they do; over the link it goes everywhere.
    source = source if source is Source.LINK else None
    for known in sorted(GEOMETRIES.values(), key=_memory_bits):
        if not any(need.excess for need in needs(network, known, source)):
            return f"the smallest known geometry that fits is {known.name}"
    return "it fits no known geometry"


def _memory_bits(geometry: Geometry) -> int:
    return (
        geometry.residual_words * geometry.residual_word_bits
        + geometry.bit_words * geometry.word_bits
        + geometry.ring_words * geometry.port_bits
        + geometry.image_words * WORD_BITS
    )
