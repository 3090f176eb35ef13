"""The intermediate representation: a program is a list of layers, in order of execution.

The order is: STEM; for each block [POOL, POINTWISE where it downsamples], BINARY; MEAN, CLASSIFIER.
A layer begins with what it computes. Each pass fills in one more part of how: where its operands
stand, how its weights are cut into tiles, its block of pixels, its descriptor. One pass may put the
stem of the next frame, in parts, between the others, which then may come in parts as well.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from isa.fixed import ChannelParameters, IntArray, Shifts
from isa.geometry import Geometry
from isa.image import PacketType
from isa.layer import LayerKind
from isa.network import Network

BINARY_KERNEL = 3

NO_SHIFTS = Shifts()

Size = tuple[int, int]  # height, width


@dataclass(frozen=True)
class Region:
    """Where a map stands in a memory: pixel (i, j) begins at ``base + i * row + j * pixel``."""

    base: int
    row: int
    pixel: int

    def addresses(self, size: Size, words: int) -> IntArray:
        """(height, width, words): the address of every word of the map."""
        height, width = size
        rows = self.base + self.row * np.arange(height)[:, None, None]
        return rows + self.pixel * np.arange(width)[:, None] + np.arange(words)


@dataclass(frozen=True)
class Tiles:
    """Weights and parameters, cut for the array.

    ``weights``: (tiles, kernel_rows, inner, M, K bits or T int8 values), the last two one weight
    set. ``params``: arrays of shape (tiles, M). ``last_groups``: words of L channels in the last
    tile that hold real channels.
    """

    weights: IntArray
    params: ChannelParameters
    last_groups: int

    @property
    def count(self) -> int:
        return self.weights.shape[0]

    @property
    def steps(self) -> int:
        """Weight sets of a tile."""
        return self.weights.shape[1] * self.weights.shape[2]


@dataclass(frozen=True)
class Layer:
    """One layer, or a part of one. Arrays are as in :mod:`isa.folding`: weights (out, in, kernel,
    kernel).

    ``in_size`` and ``out_size`` are in pixels; ``out_size`` is that of the convolution, before any
    max-pool. A mean reads ``in_size`` and writes one pixel. ``feature_shift`` belongs to the mean,
    ``border`` to the stem.

    ``packet`` tells when the layer is computed, as in :mod:`isa.image`. Parts of a layer have the
    same name. They are some output channels of a convolution, or some rows of a stem: ``out_size``
    and what is written are the part's, ``first_row`` is its first one.
    """

    name: str
    kind: LayerKind
    in_size: Size
    in_channels: int
    out_size: Size
    out_channels: int
    kernel: int = 1
    stride: int = 1
    pooled: bool = False
    shortcut: bool = False
    write_bits: bool = False
    weights: IntArray | None = None
    params: ChannelParameters | None = None
    shifts: Shifts = NO_SHIFTS
    border: IntArray | None = None
    feature_shift: int = 0
    # place
    source: Region | None = None
    destination: Region | None = None  # in the residual map
    bits: Region | None = None  # the bit map that the layer writes
    # tile, choose_blocks, describe
    tiles: Tiles | None = None
    block: int | None = None
    descriptor: Mapping[str, int] | None = None
    # overlap_stem
    packet: PacketType = PacketType.LAYER
    first_row: int = 0
    begins: bool = True  # the first part
    ends: bool = True  # the last one

    @property
    def pad(self) -> int:
        return self.kernel // 2

    @property
    def pixels(self) -> int:
        """Output pixels of the convolution."""
        return self.out_size[0] * self.out_size[1]

    @property
    def map_size(self) -> Size:
        """Size of the map that is written, behind the max-pool."""
        height, width = self.out_size
        return (height // 2, width // 2) if self.pooled else (height, width)


@dataclass(frozen=True)
class Program:
    """A network on one geometry.

    ``logit_lsb``: real value of one LSB of a logit, a power of 2. ``stream_rate``: words of the
    image that come in a cycle, at most 1. ``image_words``: how many of them there may be; None if
    the host sends them, which then cannot announce a frame while another one is computed.
    ``input_shares``: the frames' pixels come out of the same memory as the image.
    ``in_sequence``: estimated cycles of a frame if no other frame's stem is computed in it.
    """

    network: Network
    geometry: Geometry
    layers: tuple[Layer, ...]
    logit_lsb: float
    stream_rate: float = 1.0
    image_words: int | None = None
    input_shares: bool = False
    in_sequence: int | None = None

    def map(self, change: Callable[[Layer], Layer]) -> "Program":
        return replace(self, layers=tuple(change(layer) for layer in self.layers))


def ceil_div(a: int, b: int) -> int:
    return -(-a // b)
