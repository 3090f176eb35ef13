"""The golden model's memories, and the accumulators that convolutions compute from them."""

import math

import numpy as np
import numpy.typing as npt

from isa import fixed
from isa.fixed import ACC_BITS
from isa.geometry import Geometry
from isa.layer import LayerKind
from sim import golden_access as access
from sim import golden_kernels as kernels
from sim.golden_access import Operands
from sim.golden_program import Layer

Maps = npt.NDArray[np.integer]

UNIT_BITS = 64  # of a bit map: what one word of the memory holds, or its low bits


class State:
    """The memories, for N frames.

    The input ends with four values more, the stem's border, and the bit maps with a word more,
    all zeros, which is what a masked step reads.
    """

    def __init__(self, geometry: Geometry, frames: npt.NDArray[np.uint8]) -> None:
        count, lanes = len(frames), geometry.post_lanes
        size = math.prod(frames.shape[1:])
        self.input = np.zeros((count, size + 4), np.int16)
        self.input[:, :size] = frames.reshape(count, size)
        self.residual = np.zeros((count, geometry.residual_words * lanes), np.int16)
        units = (geometry.bit_words + 1) * units_a_word(geometry)
        self.bits = np.zeros((count, units), np.uint64)
        self.features = np.zeros((count, -(-geometry.channels // lanes) * lanes), np.int16)
        self.logits = np.zeros((count, -(-geometry.classes // lanes) * lanes), np.int64)
        # The last row of the stem's part before: residuals and signs, (N, width * channels) each.
        self.stem_row: tuple[Maps, Maps] | None = None

    def take(self, frames: npt.NDArray[np.uint8]) -> None:
        """Other frames stand in the input."""
        self.input[:, :-4] = frames.reshape(len(frames), -1)

    @property
    def nbytes(self) -> int:
        return self.input.nbytes + self.residual.nbytes + self.bits.nbytes


def unit_bits(geometry: Geometry) -> int:
    return min(geometry.word_bits, UNIT_BITS)


def units_a_word(geometry: Geometry) -> int:
    return geometry.word_bits // unit_bits(geometry)


class BinaryProducts:
    """Accumulators of a binary convolution, int32 (N * pixels, channels)."""

    def __init__(self, geometry: Geometry, layer: Layer) -> None:
        assert layer.weights is not None
        reads, width = access.operands(geometry, layer), layer.words(geometry) * geometry.post_lanes
        # (tiles, steps, M, K) -> (channels, steps * K), the rest of the last word zeros
        flat = layer.weights.transpose(0, 2, 1, 3).reshape(-1, layer.steps * geometry.word_bits)
        packed = np.packbits(flat[:width], axis=1, bitorder="little")
        packed = np.pad(packed, ((0, 0), (0, -packed.shape[1] % 8)))
        self._weights = np.ascontiguousarray(packed.view("<u8").T, np.uint64)
        self._unit_bits, units = unit_bits(geometry), units_a_word(geometry)
        words = np.where(reads.inside, reads.addresses, geometry.bit_words)
        self._reads = (words[:, :, None] * units + np.arange(units)).reshape(len(words), -1)
        self._set_masks(geometry, layer, reads, flat[:width])

    def _set_masks(
        self, geometry: Geometry, layer: Layer, reads: Operands, weights: npt.NDArray[np.integer]
    ) -> None:
        """Pixels are of a kind if the same steps are masked, which is the case for all but those
        at the borders.

        acc = 2 * (equal bits of the steps inside) - valid_bits, but all steps are compared: where
        x is masked it is 0, and differs from the weights that are 1.
        """
        inside, kinds = np.unique(reads.inside, axis=0, return_inverse=True)
        self._kinds, inside = kinds.ravel(), inside.astype(np.int64)
        ones = weights.reshape(len(weights), layer.steps, -1).sum(axis=2, dtype=np.int64)
        first = np.arange(layer.steps) % layer.fields["inner"] % layer.fields["channel_words"] == 0
        valid = inside @ np.where(first, layer.fields["channels"], 0)
        compared = inside.sum(axis=1) * geometry.word_bits
        masked = (1 - inside) @ ones.T
        self._constants = (2 * (compared[:, None] + masked) - valid[:, None]).astype(np.int32)

    def __call__(self, state: State) -> npt.NDArray[np.int32]:
        pixels, channels = len(self._reads), self._constants.shape[1]
        acc = np.empty((len(state.bits) * pixels, channels), np.int32)
        kernels.xnor_products(
            state.bits,
            self._reads,
            self._unit_bits,
            self._weights,
            self._constants,
            self._kinds,
            acc,
        )
        return acc


class MacProducts:
    """Accumulators of a convolution with int8 weights, int32 (N * pixels, channels)."""

    def __init__(self, geometry: Geometry, layer: Layer) -> None:
        assert layer.weights is not None
        self._kind, reads = layer.kind, access.operands(geometry, layer)
        width = layer.words(geometry) * geometry.post_lanes
        # (tiles, steps, M, S or T) -> (steps * S or T, channels)
        weights = layer.weights.transpose(1, 3, 0, 2).astype(np.int16)
        taps = geometry.taps_of(layer.kind)
        weights = weights.reshape(layer.steps * taps, -1)[:, :width]
        largest = {
            LayerKind.STEM: 255,
            LayerKind.POINTWISE: 1 << (fixed.RESIDUAL_BITS - 1),
            LayerKind.CLASSIFIER: 1 << (fixed.FEATURE_BITS - 1),
        }[layer.kind]
        bound = int(np.abs(weights).sum(axis=0, dtype=np.int64).max()) * largest
        limit = fixed.limits(ACC_BITS)[1]
        layer.require(bound <= limit, f"accumulate at most {limit}", bound)
        addresses = reads.addresses
        if layer.kind is LayerKind.STEM:
            channels = layer.fields["in_channels"]
            layer.require(1 <= channels <= 4, "have 1 to 4 input channels", channels)
            self._border = layer.fields["border"] >> np.arange(4) * 8 & 0xFF
            # The border's bytes follow the frame's; tap t of step n takes channel (n*S + t) % C.
            per_row = np.arange(layer.fields["inner"] * taps) % channels
            border = layer.fields["frame_bytes"] + np.tile(per_row, layer.fields["kernel_rows"])
            addresses = np.where(reads.inside, addresses, border)
        rest = -len(weights) % 4  # the kernel takes four values at a time
        self._weights = np.pad(weights, ((0, rest), (0, 0)))
        self._reads = np.pad(addresses, ((0, 0), (0, rest)))

    def __call__(self, state: State) -> npt.NDArray[np.int32]:
        if self._kind is LayerKind.STEM:
            state.input[:, -4:] = self._border
            source = state.input
        else:
            source = state.residual if self._kind is LayerKind.POINTWISE else state.features
        acc = np.empty((len(source) * len(self._reads), self._weights.shape[1]), np.int32)
        kernels.mac_products(source, self._reads, self._weights, acc)
        return acc
