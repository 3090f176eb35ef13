"""Which memory words a layer reads and writes, and the proof that it may.

Addresses do not depend on the data, so a whole schedule is checked once, before any frame: nothing
is read that was not written in this frame, nothing is written twice by one layer, and no layer
overwrites what it has yet to read.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from isa.fixed import IntArray
from isa.geometry import Geometry
from isa.layer import LayerKind
from sim.golden_program import GoldenError, Layer

BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Operands:
    """What the steps of a convolution read.

    ``addresses`` and ``inside``: (pixels, reads), the reads of a pixel in order of the steps. An
    address counts K-bit words (binary), bytes (stem) or single channels (pointwise, classifier);
    where ``inside`` is False the operand is masked, or the border value.
    """

    addresses: IntArray
    inside: BoolArray


@dataclass(frozen=True)
class Places:
    """Where a layer writes, one entry a word: address, pixel, and the word's first channel."""

    addresses: IntArray
    rows: IntArray
    columns: IntArray
    channels: IntArray

    def __len__(self) -> int:
        return len(self.addresses)


def _pixels(width: int, height: int) -> tuple[IntArray, IntArray]:
    rows, columns = np.divmod(np.arange(width * height), width)
    return rows, columns


def result_size(layer: Layer) -> tuple[int, int]:
    """Height and width of the map that a layer writes, after any max-pool."""
    height, width = layer.fields["out_height"], layer.fields["out_width"]
    if layer.kind is LayerKind.STEM and layer.fields["pooled"]:
        layer.require(
            height % 2 == 0 and width % 2 == 0,
            "have an even size before the max-pool",
            f"{height}x{width}",
        )
        return height // 2, width // 2
    return height, width


def operands(geometry: Geometry, layer: Layer) -> Operands:
    """The reads of a convolution, by the loops of `isa.layer`."""
    f, taps, post_lanes = layer.fields, geometry.taps, geometry.post_lanes
    i, j = _pixels(f["out_width"], f["out_height"])
    ky, n = np.divmod(np.arange(layer.steps), f["inner"])
    stride = 2 if f["stride2"] else 1
    row = (i * stride - f["pad"])[:, None] + ky
    column = (j * stride * f["src_pixel"] - f["pad_x"])[:, None]
    start = f["src_base"] + row * f["src_row"] + column
    in_rows = (row >= 0) & (row < f["in_height"])
    if layer.kind is LayerKind.BINARY:
        position = column + n
        return Operands(start + n, in_rows & (position >= 0) & (position < f["row_length"]))
    lanes = np.arange(taps)
    if layer.kind is LayerKind.STEM:
        offset = (n[:, None] * taps + lanes).ravel()
        position = column + offset
        inside = (position >= 0) & (position < f["row_length"])
        return Operands(
            np.repeat(start, taps, axis=1) + offset, np.repeat(in_rows, taps, axis=1) & inside
        )
    word, lane = np.divmod(n * taps, post_lanes)
    position = column + word
    inside = in_rows & (position >= 0) & (position < f["row_length"])
    layer.require(bool(inside.all()), "read inside its map only", "beyond its border")
    channel = (start + word) * post_lanes + lane
    return Operands(
        (channel[:, :, None] + lanes).reshape(len(i), -1), np.repeat(inside, taps, axis=1)
    )


def average_reads(layer: Layer) -> IntArray:
    """Residual words that a pool or mean reads, (sums, outputs): each output sums a column."""
    f = layer.fields
    words = np.arange(f["inner"])
    i, j = _pixels(f["out_width"], f["out_height"])
    if layer.kind is LayerKind.POOL:
        corners = [
            (2 * i + di) * f["src_row"] + (2 * j + dj) * f["src_pixel"]
            for di in (0, 1)
            for dj in (0, 1)
        ]
        reads = np.stack(corners)[:, :, None] + words
        return f["src_base"] + reads.reshape(4, -1)
    pixels = i * f["src_row"] + j * f["src_pixel"]
    return f["src_base"] + pixels[:, None] + words


def residual_places(geometry: Geometry, layer: Layer) -> Places:
    """Words of the residual map that a layer writes, pixel by pixel."""
    f, words = layer.fields, np.arange(layer.words(geometry))
    height, width = result_size(layer)
    i, j = _pixels(width, height)
    addresses = (f["dst_base"] + i * f["dst_row"] + j * f["dst_pixel"])[:, None] + words
    return _places(addresses, i, j, words * geometry.post_lanes)


def bit_places(geometry: Geometry, layer: Layer) -> Places:
    """Sub-words of the bit map that a layer writes, in units of M bits: the address of the K-bit
    word is ``addresses // geometry.sub_words``."""
    f, tiles = layer.fields, np.arange(layer.fields["tiles"])
    height, width = result_size(layer)
    i, j = _pixels(width, height)
    pixel = f["bit_base"] + np.arange(height * width) * f["bit_pixel"]
    addresses = pixel[:, None] * geometry.sub_words + tiles
    return _places(addresses, i, j, tiles * geometry.lanes)


def vector_places(geometry: Geometry, layer: Layer) -> Places:
    """Words of features (mean) or logits (classifier), from address 0."""
    words = np.arange(layer.words(geometry))
    zero = np.zeros(1, np.int64)
    return _places(words[None], zero, zero, words * geometry.post_lanes)


def _places(addresses: IntArray, i: IntArray, j: IntArray, channels: IntArray) -> Places:
    count = len(channels)
    return Places(
        addresses.ravel(), np.repeat(i, count), np.repeat(j, count), np.tile(channels, len(i))
    )


class Written:
    """Which words of a memory have been written in this frame."""

    def __init__(self, memory: str, depth: int) -> None:
        self._memory, self._depth = memory, depth
        self._written = np.zeros(depth, np.bool_)

    def _check(self, layer: Layer, act: str, addresses: IntArray) -> None:
        wrong = (addresses < 0) | (addresses >= self._depth)
        if wrong.any():
            raise GoldenError(
                f"{layer.name} must {act} the {self._memory} at 0..{self._depth - 1}, not at "
                f"{addresses[wrong][0]}"
            )

    def read(self, layer: Layer, addresses: IntArray) -> None:
        self._check(layer, "read", addresses)
        missing = addresses[~self._written[addresses]]
        if missing.size:
            raise GoldenError(
                f"{layer.name} must read what was written in this frame, not address "
                f"{missing[0]} of the {self._memory}"
            )

    def write(self, layer: Layer, addresses: IntArray) -> None:
        self._check(layer, "write", addresses)
        unique, counts = np.unique(addresses, return_counts=True)
        if (counts > 1).any():
            raise GoldenError(
                f"{layer.name} must write each word of the {self._memory} once, not address "
                f"{unique[counts > 1][0]} {counts.max()} times"
            )
        self._written[addresses] = True


def check_schedule(geometry: Geometry, layers: tuple[Layer, ...], input_bytes: int) -> None:
    """Raises GoldenError, naming layer and address, where the schedule reads or writes wrongly."""
    residual = Written("residual map", geometry.residual_words)
    bits = Written("bit map", geometry.bit_words)
    features = Written("features", -(-geometry.channels // geometry.post_lanes))
    data = Written("input", input_bytes)
    data.write(layers[0], np.arange(input_bytes))
    sources = {
        LayerKind.STEM: (data, 1),
        LayerKind.BINARY: (bits, 1),
        LayerKind.POINTWISE: (residual, geometry.post_lanes),
        LayerKind.CLASSIFIER: (features, geometry.post_lanes),
    }
    for layer in layers:
        if layer.kind is LayerKind.STEM:
            _check_input(geometry, layer, input_bytes)
        if layer.is_convolution:
            reads = operands(geometry, layer)
            memory, unit = sources[layer.kind]
            read = np.unique(reads.addresses[reads.inside] // unit)
            memory.read(layer, read)
        else:
            read = average_reads(layer)
            residual.read(layer, read.ravel())
        if layer.kind is LayerKind.MEAN:
            features.write(layer, vector_places(geometry, layer).addresses)
        elif layer.kind is LayerKind.CLASSIFIER:
            words = layer.words(geometry)
            room = words * geometry.post_lanes
            layer.require(room >= layer.fields["classes"], "compute all classes", room)
            layer.require(layer.pixels == 1, "have one pixel", layer.pixels)
        else:
            _check_maps(geometry, layer, read, residual, bits)


def _check_input(geometry: Geometry, layer: Layer, input_bytes: int) -> None:
    """Whether the stem finds all that it reads in the input ring."""
    f, room = layer.fields, geometry.input_bytes
    layer.require(
        f["frame_bytes"] == input_bytes, f"take frames of {input_bytes} bytes", f["frame_bytes"]
    )
    ahead = f["rows_ahead"]
    if not ahead:
        layer.require(
            input_bytes <= room, f"have its frame in {room} bytes of input memory", input_bytes
        )
        return
    layer.require(f["tiles"] == 1, "have one tile, as it frees the rows it has read", f["tiles"])
    first = np.arange(0, layer.pixels, f["block"])
    last = np.minimum(first + f["block"], layer.pixels) - 1
    stride = 2 if f["stride2"] else 1
    further = int((last // f["out_width"] - first // f["out_width"]).max())
    rows = stride * further + f["kernel_rows"]
    layer.require(ahead >= rows, f"want the {rows} input rows of a block", ahead)
    # Rows need not begin or end with a word of four bytes.
    needed = ahead * f["row_length"] + 7 & ~3
    layer.require(needed <= room, f"have its rows in {room} bytes of input memory", needed)


def _check_maps(
    geometry: Geometry, layer: Layer, read: IntArray, residual: Written, bits: Written
) -> None:
    """The writes of a layer that has maps for a result, after its ``read``."""
    places = residual_places(geometry, layer).addresses
    if layer.kind is LayerKind.BINARY and layer.fields["shortcut"]:
        residual.read(layer, places)
    residual.write(layer, places)
    if layer.kind is LayerKind.POINTWISE:
        _check_disjoint(layer, "residual map", read, places)
    if layer.kind is LayerKind.POOL:
        _check_order(layer, read, places)
    if layer.is_convolution and layer.fields["write_bits"]:
        sub_words = bit_places(geometry, layer).addresses
        used = -(-layer.fields["tiles"] // geometry.sub_words)
        found = layer.fields["bit_pixel"]
        layer.require(found >= used, f"have {used} bit words a pixel or more", found)
        words = np.unique(sub_words // geometry.sub_words)
        bits.write(layer, words)
        if layer.kind is LayerKind.BINARY:
            _check_disjoint(layer, "bit map", read, words)


def _check_disjoint(layer: Layer, memory: str, read: IntArray, written: IntArray) -> None:
    """Every tile reads the whole source, so that none of it may be overwritten."""
    both = np.intersect1d(read, written)
    layer.require(
        not both.size,
        f"not overwrite its own source in the {memory}",
        f"address {both[0] if both.size else None}",
    )


def _check_order(layer: Layer, read: IntArray, written: IntArray) -> None:
    """Outputs are computed one by one: none may be written over what a later one reads."""
    order = np.arange(len(written))
    last_read = np.full(max(read.max(), written.max()) + 1, -1)
    np.maximum.at(last_read, read.ravel(), np.tile(order, len(read)))
    wrong = written[last_read[written] > order]
    layer.require(
        not wrong.size,
        "read a word before it writes there",
        f"after it, at address {wrong[0] if wrong.size else None}",
    )
