"""Evaluation of descriptors and tiles alone: the last two levels of verification.

Follows the loops that ``isa.layer`` defines, all pixels of a layer at once. Everything is read from
descriptors; a memory word that was never written spoils whatever it gets into.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from compiler.evaluate import NEVER_WRITTEN, Outcome, max_pool
from compiler.ir import Region, Tiles
from isa import fixed
from isa.fixed import ChannelParameters, IntArray, Shifts
from isa.geometry import Geometry
from isa.layer import LayerKind

Fields = Mapping[str, int]


class Machine:
    """The memories of one accelerator, and what each kind of layer does to them."""

    def __init__(self, geometry: Geometry, frame: npt.NDArray[np.uint8]) -> None:
        self._geometry = geometry
        lanes = geometry.post_lanes
        self._input = frame.ravel().astype(np.int64)
        self._residuals = np.full((geometry.residual_words, lanes), NEVER_WRITTEN)
        self._bits = np.full((geometry.bit_words, geometry.word_bits), NEVER_WRITTEN)
        self._features = np.full(geometry.channels + lanes, NEVER_WRITTEN)

    def run(self, fields: Fields, tiles: Tiles | None) -> Outcome:
        """Executes a layer; what it wrote, with channels up to whole words: ``residuals``, ``bits``
        (H, W, channels), ``features`` or ``logits``."""
        kind = LayerKind(fields["kind"])
        if kind is LayerKind.POOL:
            return self._pool(fields)
        if kind is LayerKind.MEAN:
            return self._mean(fields)
        assert tiles is not None
        acc = np.concatenate(
            [self._accumulate(kind, fields, weights) for weights in tiles.weights], axis=1
        )
        params = ChannelParameters(
            *(getattr(tiles.params, n).ravel() for n in ("m", "n", "slope", "bias2", "threshold"))
        )
        shifts = Shifts(fields["a"], fields["s"], fields["k"])
        if kind is LayerKind.CLASSIFIER:
            return {"logits": fixed.logits(acc[0], params, shifts)[: fields["classes"]]}
        return self._write(fields, acc, params, shifts)

    def _accumulate(self, kind: LayerKind, fields: Fields, weights: IntArray) -> IntArray:
        """(pixels, M) from one tile's weights (kernel_rows, inner, M, K or T)."""
        width, stride = fields["out_width"], 1 + fields["stride2"]
        pixel = np.arange(width * fields["out_height"])[:, None]
        row_length, taps = fields["row_length"], weights.shape[3]
        acc = np.zeros((len(pixel), weights.shape[2]))
        if kind is LayerKind.STEM:  # positions along a kernel row in bytes
            along = np.arange(fields["inner"] * taps)
        else:
            along = np.arange(fields["inner"])
        column = (pixel % width * stride) * fields["src_pixel"] - fields["pad_x"] + along
        for ky in range(fields["kernel_rows"]):
            row = pixel // width * stride - fields["pad"] + ky
            inside = (row >= 0) & (row < fields["in_height"])
            inside = inside & (column >= 0) & (column < row_length)
            address = np.where(inside, fields["src_base"] + row * fields["src_row"] + column, 0)
            rows = weights[ky].transpose(0, 2, 1).reshape(-1, weights.shape[2])
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
            x, signs = max_pool(x), max_pool(signs)
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
    layers: Sequence[tuple[str, Fields, Tiles | None, int]],
    geometry: Geometry,
    frame: npt.NDArray[np.uint8],
) -> Outcome:
    """``layers``: name, descriptor, tiles and real output channels of each. The outcome is that of
    :mod:`compiler.evaluate`; raises AssertionError where a lane beyond the real ones is not 0."""
    machine, outcome = Machine(geometry, frame), Outcome()
    for name, fields, tiles, channels in layers:
        for what, value in machine.run(fields, tiles).items():
            if what != "logits":
                assert not value[..., channels:].any(), f"{name}: padding of {what} must be 0"
            key = f"{name}.bits" if what == "bits" else name
            outcome[key] = value[..., :channels]
    return outcome
