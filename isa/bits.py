"""What a bit means, and how values are packed into words.

Bit 1 is +1 and bit 0 is -1; sign(0) = +1. Lane 0 stands in the least significant bits.
Channels beyond the real ones have map bits 0 and weight bits 1, so that their XNOR is 0.
Pixels outside a map contribute 0: they are masked, never padded with a value.
"""

import numpy as np
import numpy.typing as npt

WORD_BITS = 32  # a word of the image stream and of the host bus

IntArray = npt.NDArray[np.int64]


def sign_bits(x: npt.ArrayLike) -> IntArray:
    """1 where x >= 0, else 0."""
    return (np.asarray(x) >= 0).astype(np.int64)


def pack(values: npt.ArrayLike, width: int, word_bits: int) -> list[int]:
    """Packs integers of ``width`` bits, first value in the least significant bits, into words.

    Signed values are stored in two's complement. The last word is filled with zeros. Raises
    ValueError for a value that does not fit ``width`` bits, signed or unsigned.
    """
    flat = np.asarray(values, np.int64).ravel()
    if flat.size and (flat.min() < -(1 << (width - 1)) or flat.max() >= 1 << width):
        raise ValueError(f"Packed values must fit {width} bits, not {flat.min()}..{flat.max()}")
    bits = ((flat[:, None] >> np.arange(width)) & 1).astype(np.uint8).ravel()
    bits = np.pad(bits, (0, -len(bits) % word_bits))
    packed = np.packbits(bits.reshape(-1, word_bits), axis=1, bitorder="little")
    return [int.from_bytes(row.tobytes(), "little") for row in packed]


def unpack(words: list[int], width: int, word_bits: int, count: int, *, signed: bool) -> IntArray:
    """The inverse of :func:`pack`: ``count`` values."""
    size = (word_bits + 7) // 8
    raw = np.frombuffer(b"".join(w.to_bytes(size, "little") for w in words), np.uint8)
    bits = np.unpackbits(raw.reshape(len(words), size), axis=1, bitorder="little")[:, :word_bits]
    bits = bits.ravel()[: count * width].reshape(count, width).astype(np.int64)
    values = (bits << np.arange(width)).sum(axis=1)
    return values - ((values >> (width - 1)) << width) if signed else values
