"""Evaluation of descriptors and tiles alone: the last two levels of verification.

Follows the loops that ``isa.layer`` defines, all pixels of a layer at once. Everything is read from
descriptors; a memory word that was never written spoils whatever it gets into.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from compiler.evaluate import NEVER_WRITTEN, Frame, Outcome, join, max_pool, numbered
from compiler.ir import Region, Tiles
from isa import fixed
from isa.fixed import ChannelParameters, IntArray, Shifts
from isa.geometry import Geometry
from isa.image import PacketType
from isa.layer import LayerKind

Fields = Mapping[str, int]


@dataclass(frozen=True)
class Described:
    """A layer as the image has it, its name and its real output channels."""

    name: str
    channels: int
    packet: PacketType
    fields: Fields
    tiles: Tiles | None


class Machine:
    """The memories of one accelerator, and what each kind of layer does to them."""

    def __init__(self, geometry: Geometry) -> None:
        self._geometry = geometry
        lanes = geometry.post_lanes
        self._input = np.zeros(0, np.int64)
        self._above: list[IntArray | None] = [None, None]  # what the max-pool keeps of a stem
        self._residuals = np.full((geometry.residual_words, lanes), NEVER_WRITTEN)
        self._bits = np.full((geometry.bit_words, geometry.word_bits), NEVER_WRITTEN)
        self._features = np.full(geometry.channels + lanes, NEVER_WRITTEN)

    def run(self, fields: Fields, tiles: Tiles | None, frame: Frame) -> Outcome:
        """Executes a layer; what it wrote, with channels up to whole words: ``residuals``, ``bits``
        (H, W, channels), ``features`` or ``logits``."""
        kind = LayerKind(fields["kind"])
        if kind is LayerKind.POOL:
            return self._pool(fields)
        if kind is LayerKind.MEAN:
            return self._mean(fields)
        if kind is LayerKind.STEM:
            self._input = frame.ravel().astype(np.int64)
        assert tiles is not None
        acc = self._accumulate(kind, fields, tiles.weights)
        params = ChannelParameters(
            *(getattr(tiles.params, n).ravel() for n in ("m", "n", "slope", "bias2", "threshold"))
        )
        shifts = Shifts(fields["a"], fields["s"], fields["k"])
        if kind is LayerKind.CLASSIFIER:
            return {"logits": fixed.logits(acc[0], params, shifts)[: fields["classes"]]}
        return self._write(fields, acc, params, shifts)

    def _accumulate(self, kind: LayerKind, fields: Fields, weights: IntArray) -> IntArray:
        """(pixels, tiles * M) from weights (tiles, kernel_rows, inner, M, K, S or T)."""
        width, stride = fields["out_width"], 1 + fields["stride2"]
        pixel = np.arange(width * fields["out_height"])[:, None]
        row_length, taps = fields["row_length"], weights.shape[4]
        channels = weights.shape[0] * weights.shape[3]
        acc = np.zeros((len(pixel), channels))
        if kind is LayerKind.STEM:  # positions along a kernel row in bytes
            along = np.arange(fields["inner"] * taps)
        else:
            along = np.arange(fields["inner"])
        column = (pixel % width * stride) * fields["src_pixel"] - fields["pad_x"] + along
        for ky in range(fields["kernel_rows"]):
            row = pixel // width * stride - fields["pad"] + ky
            in_frame = row + fields["first_row"]
            inside = (in_frame >= 0) & (in_frame < fields["in_height"])
            inside = inside & (column >= 0) & (column < row_length)
            address = np.where(inside, fields["src_base"] + row * fields["src_row"] + column, 0)
            rows = weights[:, ky].transpose(1, 3, 0, 2).reshape(-1, channels)
            if kind is LayerKind.BINARY:
                operand = self._bits[address]  # (pixels, inner, K)
                agree = (2 * operand - 1) * inside[:, :, None]
                pairs = agree.reshape(len(pixel), -1) @ (2 * rows - 1.0)
                words = inside.sum(axis=1, keepdims=True) * operand.shape[2]
                counted = along % fields["channel_words"] == 0
                valid = inside[:, counted].sum(axis=1, keepdims=True) * fields["channels"]
                acc += (pairs + words) - valid  # 2 * popcount - valid_bits
            else:
                acc += self._integers(kind, fields, address, inside, along) @ rows.astype(float)
        return acc.astype(np.int64)

    def _integers(
        self,
        kind: LayerKind,
        fields: Fields,
        address: IntArray,
        inside: npt.NDArray[np.bool_],
        along: IntArray,
    ) -> IntArray:
        """(pixels, steps * T): the MAC array's operands along one kernel row."""
        taps = self._geometry.taps
        if kind is LayerKind.STEM:
            channels = along % fields["in_channels"]
            border = (fields["border"] >> (8 * channels)) & 0xFF
            return np.where(inside, self._input[address], border)
        assert inside.all(), "pointwise layer and classifier have no border"
        if kind is LayerKind.CLASSIFIER:
            count = fields["inner"] * taps
            return self._features[None, :count]
        first = address - along  # words: n counts groups of T channels instead
        lanes = self._geometry.post_lanes
        channel = np.arange(fields["inner"] * taps)
        return self._residuals[first[:, :1] + channel // lanes, channel % lanes]

    def _write(
        self, fields: Fields, acc: IntArray, params: ChannelParameters, shifts: Shifts
    ) -> Outcome:
        geometry, lanes = self._geometry, self._geometry.post_lanes
        size = fields["out_height"], fields["out_width"]
        region = Region(fields["dst_base"], fields["dst_row"], fields["dst_pixel"])
        words = (fields["tiles"] - 1) * geometry.groups + fields["last_groups"]
        channels = fields["tiles"] * geometry.lanes
        residual = None
        if fields["shortcut"]:
            # Lanes beyond the last group are never read, nor written.
            found = self._residuals[region.addresses(size, words)].reshape(len(acc), -1)
            residual = np.pad(found, ((0, 0), (0, channels - words * lanes)))
        x, signs = fixed.post_process(acc, residual, params, shifts)
        x, signs = x.reshape(*size, channels), signs.reshape(*size, channels)
        if fields["pooled"]:
            above = [None, None] if fields["begins"] else self._above
            self._above = [x[-1], signs[-1]]
            x, signs = max_pool(x, above[0]), max_pool(signs, above[1])
        size = x.shape[0], x.shape[1]
        x = x[:, :, : words * lanes]
        self._residuals[region.addresses(size, words)] = x.reshape(*size, words, lanes)
        if not fields["write_bits"]:
            return {"residuals": x}
        # Sub-words that no tile writes are cleared with the first of their word.
        width = geometry.word_bits
        signs = np.pad(signs, ((0, 0), (0, 0), (0, -channels % width)))
        region = Region(fields["bit_base"], size[1] * fields["bit_pixel"], fields["bit_pixel"])
        self._bits[region.addresses(size, signs.shape[2] // width)] = signs.reshape(
            *size, -1, width
        )
        return {"residuals": x, "bits": signs}

    def _source(self, fields: Fields, height: int, width: int) -> IntArray:
        region = Region(fields["src_base"], fields["src_row"], fields["src_pixel"])
        return self._residuals[region.addresses((height, width), fields["inner"])].reshape(
            height, width, -1
        )

    def _pool(self, fields: Fields) -> Outcome:
        height, width = fields["out_height"], fields["out_width"]
        x = fixed.average_2x2(self._source(fields, 2 * height, 2 * width))
        region = Region(fields["dst_base"], fields["dst_row"], fields["dst_pixel"])
        addresses = region.addresses((height, width), fields["inner"])
        self._residuals[addresses] = x.reshape(*addresses.shape, -1)
        return {"residuals": x}

    def _mean(self, fields: Fields) -> Outcome:
        x = self._source(fields, fields["out_height"], fields["out_width"])
        features = fixed.global_sum(x, fields["a"])
        self._features[: len(features)] = features
        return {"features": features}


def evaluate_layers(
    layers: Sequence[Described], geometry: Geometry, frames: Sequence[Frame]
) -> list[Outcome]:
    """The outcomes are those of :mod:`compiler.evaluate`; raises AssertionError where a lane beyond
    the real ones is not 0."""
    machine = Machine(geometry)
    order = numbered(layer.packet for layer in layers)
    outcomes: list[Outcome] = [{} for _ in range(1 + order[-1][1])]
    for index, frame in order:
        layer, values = layers[index], {}
        for what, value in machine.run(layer.fields, layer.tiles, frames[frame]).items():
            if what != "logits":
                padding = value[..., layer.channels :]
                assert not padding.any(), f"{layer.name}: padding of {what} must be 0"
            name = f"{layer.name}.bits" if what == "bits" else layer.name
            values[name] = value[..., : layer.channels]
        join(outcomes[frame], layer.packet, values)
    return outcomes
