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
from isa.image import PacketType
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
    f, taps, post_lanes = layer.fields, geometry.taps_of(layer.kind), geometry.post_lanes
    i, j = _pixels(f["out_width"], f["out_height"])
    ky, n = np.divmod(np.arange(layer.steps), f["inner"])
    stride = 2 if f["stride2"] else 1
    row = (i * stride - f["pad"])[:, None] + ky
    column = (j * stride * f["src_pixel"] - f["pad_x"])[:, None]
    start = f["src_base"] + row * f["src_row"] + column
    in_rows = (row >= -f["first_row"]) & (row < f["in_height"] - f["first_row"])
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
    """Words of features (mean) or logits (classifier)."""
    words = layer.fields["dst_base"] + np.arange(layer.words(geometry))
    zero = np.zeros(1, np.int64)
    return _places(words[None], zero, zero, words * geometry.post_lanes)


def _places(addresses: IntArray, i: IntArray, j: IntArray, channels: IntArray) -> Places:
    count = len(channels)
    return Places(
        addresses.ravel(), np.repeat(i, count), np.repeat(j, count), np.tile(channels, len(i))
    )


@dataclass(frozen=True)
class Accesses:
    """Which words of which memory a layer reads and writes, by the memory's name."""

    reads: dict[str, IntArray]
    writes: dict[str, IntArray]


def accesses(geometry: Geometry, layer: Layer) -> Accesses:
    """What the layer does to all memories."""
    reads: dict[str, IntArray] = {}
    writes: dict[str, IntArray] = {}
    if layer.is_convolution:
        found = operands(geometry, layer)
        memory, unit = {
            LayerKind.STEM: (INPUT, 1),
            LayerKind.BINARY: (BITS, 1),
            LayerKind.POINTWISE: (RESIDUAL, geometry.post_lanes),
            LayerKind.CLASSIFIER: (FEATURES, geometry.post_lanes),
        }[layer.kind]
        reads[memory] = np.unique(found.addresses[found.inside] // unit)
    else:
        reads[RESIDUAL] = average_reads(layer)
    if layer.kind in (LayerKind.MEAN, LayerKind.CLASSIFIER):
        memory = FEATURES if layer.kind is LayerKind.MEAN else LOGITS
        writes[memory] = vector_places(geometry, layer).addresses
        return Accesses(reads, writes)
    places = writes[RESIDUAL] = residual_places(geometry, layer).addresses
    if layer.kind is LayerKind.BINARY and layer.fields["shortcut"]:
        reads[RESIDUAL] = places
    if layer.is_convolution and layer.fields["write_bits"]:
        sub_words = bit_places(geometry, layer).addresses
        used = -(-layer.fields["tiles"] // geometry.sub_words)
        pixel = layer.fields["bit_pixel"]
        layer.require(pixel >= used, f"have {used} bit words a pixel or more", pixel)
        writes[BITS] = np.unique(sub_words // geometry.sub_words)
    return Accesses(reads, writes)


INPUT, RESIDUAL, BITS = "input", "residual map", "bit map"
FEATURES, LOGITS = "features", "logits"


class Written:
    """Which frame has written each word of a memory last."""

    def __init__(self, memory: str, depth: int) -> None:
        self._memory, self._depth = memory, depth
        self._frame = np.full(depth, -1)

    def check_bounds(self, layer: Layer, act: str, addresses: IntArray) -> None:
        wrong = (addresses < 0) | (addresses >= self._depth)
        if wrong.any():
            raise GoldenError(
                f"{layer.name} must {act} the {self._memory} at 0..{self._depth - 1}, not at "
                f"{addresses[wrong][0]}"
            )

    def read(self, layer: Layer, addresses: IntArray, frame: int) -> None:
        self.check_bounds(layer, "read", addresses)
        missing = addresses[self._frame[addresses] != frame]
        if missing.size:
            raise GoldenError(
                f"{layer.name} must read what was written in this frame, not address "
                f"{missing[0]} of the {self._memory}"
            )

    def write(self, layer: Layer, addresses: IntArray, frame: int) -> None:
        self.check_bounds(layer, "write", addresses)
        unique, counts = np.unique(addresses, return_counts=True)
        if (counts > 1).any():
            raise GoldenError(
                f"{layer.name} must write each word of the {self._memory} once, not address "
                f"{unique[counts > 1][0]} {counts.max()} times"
            )
        ahead = addresses[self._frame[addresses] > frame]
        if ahead.size:
            raise GoldenError(
                f"{layer.name} must not overwrite what belongs to the next frame, address "
                f"{ahead[0]} of the {self._memory}"
            )
        self._frame[addresses] = frame

    def of_frame(self, frame: int) -> int:
        """How many words it has written and nobody else since."""
        return int((self._frame == frame).sum())


def executed(layers: tuple[Layer, ...], *, stem_done: bool, more: bool) -> list[Layer]:
    """The layers that are computed while a frame is."""
    skipped = {PacketType.STEM: stem_done, PacketType.AHEAD: not more}
    return [layer for layer in layers if not skipped.get(layer.packet, False)]


def check_schedule(geometry: Geometry, layers: tuple[Layer, ...], input_bytes: int) -> None:
    """Raises GoldenError, naming layer and address, where the schedule reads or writes wrongly:
    for a frame alone, and for the first, a middle and the last one of frames that follow each
    other."""
    for chosen in (PacketType.AHEAD, PacketType.STEM):
        stems = [
            layer
            for layer in layers
            if layer.kind is LayerKind.STEM and layer.packet in (PacketType.LAYER, chosen)
        ]
        if stems:
            _check_input(geometry, stems, input_bytes)
    found = [accesses(geometry, layer) for layer in layers]
    classes = layers[-1].fields["classes"]
    sequences = [[(False, False)]]
    if any(layer.packet is PacketType.AHEAD for layer in layers):
        sequences.append([(False, True), (True, True), (True, False)])
    for sequence in sequences:
        memories = {
            INPUT: Written(INPUT, input_bytes),
            RESIDUAL: Written(RESIDUAL, geometry.residual_words),
            BITS: Written(BITS, geometry.bit_words),
            FEATURES: Written(FEATURES, -(-geometry.channels // geometry.post_lanes)),
            LOGITS: Written(LOGITS, -(-classes // geometry.post_lanes)),
        }
        for frame, (stem_done, more) in enumerate(sequence):
            for layer in executed(layers, stem_done=stem_done, more=more):
                _check_layer(memories, layer, found[layer.index], frame)
            written = memories[LOGITS].of_frame(frame) * geometry.post_lanes
            layers[-1].require(written >= classes, "complete all classes", written)


def _check_layer(memories: dict[str, Written], layer: Layer, use: Accesses, frame: int) -> None:
    if layer.packet is PacketType.AHEAD:
        frame += 1
    for memory, addresses in use.reads.items():
        if memory == INPUT:  # `_check_input` has seen to it that it is there
            memories[memory].check_bounds(layer, "read", addresses)
        else:
            memories[memory].read(layer, addresses.ravel(), frame)
    if layer.kind is LayerKind.POOL:
        _check_order(layer, use.reads[RESIDUAL], use.writes[RESIDUAL])
    if layer.kind is LayerKind.POINTWISE:
        _check_disjoint(layer, RESIDUAL, use)
    if layer.kind is LayerKind.BINARY and BITS in use.writes:
        _check_disjoint(layer, BITS, use)
    for memory, addresses in use.writes.items():
        memories[memory].write(layer, addresses, frame)
    if layer.kind is LayerKind.CLASSIFIER:
        layer.require(layer.pixels == 1, "have one pixel", layer.pixels)


def _check_input(geometry: Geometry, parts: list[Layer], input_bytes: int) -> None:
    """Whether the stem, in its parts, finds all that it reads in the input ring."""
    row = 0
    for number, layer in enumerate(parts):
        f = layer.fields
        layer.require(f["begins"] == (number == 0), "begin if it is first", f["begins"])
        layer.require(f["ends"] == (number == len(parts) - 1), "end if it is last", f["ends"])
        layer.require(f["first_row"] == row, f"go on at row {row} of its input", f["first_row"])
        layer.require(f["src_base"] == row * f["src_row"], f"read from row {row} on", f["src_base"])
        row += f["out_height"] * (2 if f["stride2"] else 1)
        layer.require(
            len(parts) == 1 or f["rows_ahead"] > 0, "go by rows to be in parts", f["rows_ahead"]
        )
        _check_rows(geometry, layer, input_bytes)


def _check_rows(geometry: Geometry, layer: Layer, input_bytes: int) -> None:
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


def _check_disjoint(layer: Layer, memory: str, use: Accesses) -> None:
    """Every tile reads the whole source, so that none of it may be overwritten."""
    both = np.intersect1d(use.reads[memory], use.writes[memory])
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
