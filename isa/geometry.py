"""The sizes of one accelerator: what a bitstream is built for, and what an image is packed for."""

import dataclasses
import json
import zlib
from dataclasses import dataclass
from functools import cached_property

from isa.bits import WORD_BITS
from isa.fixed import RESIDUAL_BITS, WEIGHT_BITS
from isa.layer import LayerKind
from isa.registers import IMAGE_ADDRESS_BITS, NO_CLASS, Register, Source

SDRAM_BYTES = (1024, 2 * 4 << IMAGE_ADDRESS_BITS)
"""Least and most of an external memory: half of it is the image, words of four bytes."""


def _power_of_two(value: int) -> bool:  # of a positive one
    return value & (value - 1) == 0


@dataclass(frozen=True)
class Geometry:
    """Array and memory sizes. Everything else about the gateware follows from these.

    ========================  ===================================================================
    lanes                     M: output channels computed at once, the height of a tile
    word_bits                 K: channels in one word of a bit map
    taps                      T: int8 products a lane sums in a cycle
    stem_taps                 S: those of the stem, at least T
    port_bits                 P: width of the weight ring
    post_lanes                L: channels post-processed in a cycle, and in a residual word
    ring_words                depth of the weight ring, in P-bit words
    residual_words            depth of the residual map, in words of L residuals
    bit_words                 depth of the bit maps (both of them together), in K-bit words
    input_bytes               depth of the input ring
    line_words                depth of the max-pool's line buffer, in words of L channels
    channels                  most channels that the classifier reads
    classes                   most classes
    image_words               depth of the `ram` source, in 32-bit words; 0: there is none
    top_k                     classes that the result reports, largest logit first
    sdram_bytes               of an external memory, the image in its lower half and input frames in
                              the upper one; 0: there is none
    ========================  ===================================================================
    """

    name: str
    lanes: int
    word_bits: int
    taps: int
    stem_taps: int
    port_bits: int
    post_lanes: int
    ring_words: int
    residual_words: int
    bit_words: int
    input_bytes: int
    line_words: int
    channels: int
    classes: int
    image_words: int
    top_k: int = 5
    sdram_bytes: int = 0

    BLOCK_PIXELS = 16  # depth of the accumulators: a distributed RAM of the ECP5 is 16 deep

    def __post_init__(self) -> None:
        for name, value in dataclasses.asdict(self).items():
            least = 0 if name in ("image_words", "sdram_bytes") else 1
            if name != "name" and (type(value) is not int or value < least):
                rule = "a positive integer" if least else "0 or a positive integer"
                raise ValueError(f"Geometry {name} must be {rule}, not {value!r}")
        for name in ("lanes", "word_bits", "taps", "post_lanes", "input_bytes"):
            if not _power_of_two(getattr(self, name)):
                raise ValueError(
                    f"Geometry {name} must be a power of two, not {getattr(self, name)!r}"
                )
        for name, most in (
            ("classes", NO_CLASS),
            ("image_words", 1 << IMAGE_ADDRESS_BITS),
            ("top_k", Register.TOP_LOGIT - Register.TOP_CLASS),
        ):
            if getattr(self, name) > most:
                raise ValueError(
                    f"Geometry {name} must be at most {most}, what its registers can hold, "
                    f"not {getattr(self, name)!r}"
                )
        if self.stem_taps < self.taps:
            raise ValueError(
                f"Geometry stem_taps must be at least taps ({self.taps}), not {self.stem_taps!r}"
            )
        least, most = SDRAM_BYTES
        size = self.sdram_bytes
        if size and not (_power_of_two(size) and least <= size <= most):
            raise ValueError(
                f"Geometry sdram_bytes must be 0 or a power of two in {least}..{most}, not {size!r}"
            )
        for text, whole, part in (
            ("word_bits must be a multiple of lanes", self.word_bits, self.lanes),
            ("lanes must be a multiple of post_lanes", self.lanes, self.post_lanes),
            ("port_bits must be a multiple of lanes", self.port_bits, self.lanes),
            ("post_lanes must be a multiple of taps", self.post_lanes, self.taps),
            (f"port_bits must be a multiple of {WORD_BITS}", self.port_bits, WORD_BITS),
            (
                "lanes * word_bits must be a multiple of port_bits",
                self.binary_set_bits,
                self.port_bits,
            ),
            ("lanes * taps * 8 must be a multiple of port_bits", self.mac_set_bits, self.port_bits),
            (
                "lanes * (stem_taps - taps) * 8 must be a multiple of port_bits",
                self.stem_set_bits - self.mac_set_bits,
                self.port_bits,
            ),
        ):
            if whole % part:
                raise ValueError(f"Geometry {text}, not {whole} and {part}")

    @property
    def row_bits(self) -> int:
        """Bits of a lane's weights in each word of the weight ring."""
        return self.port_bits // self.lanes

    @property
    def binary_set_bits(self) -> int:
        """Bits of the weights that the XNOR array holds at once."""
        return self.lanes * self.word_bits

    @property
    def mac_set_bits(self) -> int:
        """Bits of the weights that the MAC array holds at once, but for the stem's."""
        return self.lanes * self.taps * WEIGHT_BITS

    @property
    def stem_set_bits(self) -> int:
        """Bits of the stem's weights that the MAC array holds at once."""
        return self.lanes * self.stem_taps * WEIGHT_BITS

    def set_bits(self, kind: LayerKind) -> int:
        """Bits of one weight set of such a convolution."""
        if kind is LayerKind.BINARY:
            return self.binary_set_bits
        return self.stem_set_bits if kind is LayerKind.STEM else self.mac_set_bits

    def taps_of(self, kind: LayerKind) -> int:
        """Values that a step of such a convolution with int8 weights reads."""
        return self.stem_taps if kind is LayerKind.STEM else self.taps

    @property
    def groups(self) -> int:
        """Words of L channels in a tile of M."""
        return self.lanes // self.post_lanes

    @property
    def sub_words(self) -> int:
        """Tiles whose bits share one word of a bit map."""
        return self.word_bits // self.lanes

    @property
    def residual_word_bits(self) -> int:
        return self.post_lanes * RESIDUAL_BITS

    @property
    def sdram_image_words(self) -> int:
        """Depth of the `sdram` source, in 32-bit words."""
        return self.sdram_bytes // 2 // (WORD_BITS // 8)

    @property
    def sdram_frame_bytes(self) -> int:
        """What the external memory holds of input frames."""
        return self.sdram_bytes // 2

    @property
    def source(self) -> Source:
        """Where the image is unless somebody says otherwise."""
        if self.image_words:
            return Source.RAM
        return Source.SDRAM if self.sdram_bytes else Source.LINK

    @cached_property
    def digest(self) -> int:
        """32 bits that tell geometries apart: the CRC-32 of all fields as canonical JSON."""
        return zlib.crc32(json.dumps(dataclasses.asdict(self), sort_keys=True).encode())


TINY = Geometry(
    name="tiny",
    lanes=4, word_bits=8, taps=1, stem_taps=1, port_bits=32, post_lanes=2,
    ring_words=256, residual_words=2048, bit_words=512, input_bytes=1024, line_words=256,
    channels=64, classes=16, image_words=8192,
)  # fmt: skip
ULX3S_25F = Geometry(
    name="ulx3s-25f",
    lanes=16, word_bits=32, taps=1, stem_taps=1, port_bits=128, post_lanes=2,
    ring_words=512, residual_words=13312, bit_words=2048, input_bytes=2048, line_words=512,
    channels=256, classes=16, image_words=15872,
)  # fmt: skip
ULX3S_85F = Geometry(
    name="ulx3s-85f",
    lanes=64, word_bits=64, taps=2, stem_taps=3, port_bits=512, post_lanes=8,
    ring_words=1024, residual_words=25088, bit_words=6272, input_bytes=16384, line_words=1024,
    channels=512, classes=1024, image_words=0, sdram_bytes=1 << 25,
)  # fmt: skip

GEOMETRIES = {geometry.name: geometry for geometry in (TINY, ULX3S_25F, ULX3S_85F)}
