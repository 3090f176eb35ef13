"""Layer descriptors and channel parameters: what the sequencer is told about each layer.

A convolution layer is a nest of loops, outermost first:

    tile of M output channels
      block of B <= 16 output pixels, in row-major order over the whole map
        step: kernel row ky, then position n along that row   (one weight set)
          pixel of the block                                  (one cycle)

For output pixel (i, j) and step (ky, n) the operand is read at

    base + (i*stride - pad + ky) * row + (j*stride - pad) * pixel + n

where neighbouring columns and channels are contiguous, so that n alone walks along a kernel row.
It contributes 0 (the stem: the border value) unless
0 <= first_row + i*stride - pad + ky < in_height and 0 <= (j*stride - pad)*pixel + n < row_length.
The unit of base, row, pixel and n is a K-bit word for a binary layer and a byte for the stem (n
counts groups of S = ``stem_taps`` bytes). For pointwise layer and classifier, n counts groups of T
channels; the other three count words of L channels.

A layer may come in parts, each with a descriptor of its own: some tiles of a convolution, whose
destinations lie behind those of the part before, or some rows of a stem of one tile. Parts of a
stem share its input and the rows that its max-pool has seen: only the first part ``begins`` with
them anew, and only the last one ``ends`` them. The part whose first output row is r has
``first_row`` = r * stride, and a ``src_base`` to match. Between them other layers may be computed.
"""

from amaranth.hdl import signed
from amaranth.lib import data, enum

from isa.fixed import BIAS2_BITS, M_BITS, N_BITS, SHIFT_BITS, SLOPE_BITS, THRESHOLD_BITS

ADDRESS_BITS = 18
STRIDE_BITS = 15
SIZE_BITS = 10
PIXEL_BITS = 11


class LayerKind(enum.Enum, shape=3):
    """What a layer does: operands -> result."""

    STEM = 0  # input bytes x int8 -> residual and bits, through the max-pool if pooled
    BINARY = 1  # bit map x 1 bit, plus the residual -> residual in place, and bits
    POINTWISE = 2  # residual x int8 -> residual (the 1x1 shortcut)
    CLASSIFIER = 3  # features x int8 -> logits
    POOL = 4  # 2x2 average, residual -> residual
    MEAN = 5  # sum over all pixels, residual -> features


LAYER = data.StructLayout(
    {
        "kind": LayerKind,
        "pooled": 1,  # stem: 3x3/2 max-pool before the maps are written
        "shortcut": 1,  # add the residual found at the destination
        "write_bits": 1,
        "stride2": 1,  # the output pixel advances two input pixels
        "begins": 1,  # stem: the first part of the frame's
        "ends": 1,  # stem, classifier: the last part of the frame's
        # source
        "src_base": ADDRESS_BITS,
        "src_row": STRIDE_BITS,
        "src_pixel": PIXEL_BITS,
        "first_row": SIZE_BITS,  # stem: its part's first input row, but for the padding
        "in_height": SIZE_BITS,  # rows of the source map
        "row_length": STRIDE_BITS,  # source units in a row
        "pad": 2,  # rows above the map
        "pad_x": PIXEL_BITS,  # pad * src_pixel: source units left of the map
        "kernel_rows": 3,  # steps: kernel_rows * inner
        "inner": SIZE_BITS,  # steps along a kernel row; pool, mean: words of L channels a pixel
        "channel_words": 5,  # binary: words a pixel; a step with n % channel_words == 0 counts
        "channels": SIZE_BITS + 1,  # ... this many valid bits
        "frame_bytes": ADDRESS_BITS,  # stem: bytes of an input frame, in_height * row_length
        # stem: input rows that a block wants, from the first one of its first pixel on; the rows
        # before that one are free. 0: wants the whole frame, and frees it at the end.
        "rows_ahead": 6,
        "in_channels": 3,  # stem: the border value of tap t at step n is [(n*S + t) % in_channels]
        "border": 32,  # four bytes, channel 0 in the least significant
        # loops
        "tiles": 8,
        "blocks": 12,
        "block": 5,  # pixels of a block, 1..16
        "last_block": 5,  # pixels of the last one
        "out_width": SIZE_BITS,  # convolution output, before any max-pool
        "out_height": SIZE_BITS,
        "last_groups": 6,  # words of L channels in the last tile
        # destination
        "dst_base": ADDRESS_BITS,  # residual map, features or logits, in words of L channels
        "dst_row": STRIDE_BITS,
        "dst_pixel": PIXEL_BITS,
        "bit_base": ADDRESS_BITS,  # bit map, in words of K bits; pixels are contiguous
        "bit_pixel": 5,  # words a pixel
        "classes": SIZE_BITS + 1,
        # arithmetic; mean: features are round(sum >> a)
        "a": SHIFT_BITS,
        "s": SHIFT_BITS,
        "k": SHIFT_BITS,
    }
)

CHANNEL = data.StructLayout(
    {
        "m": signed(M_BITS),
        "n": signed(N_BITS),
        "slope": signed(SLOPE_BITS),
        "bias2": signed(BIAS2_BITS),
        "threshold": signed(THRESHOLD_BITS),
    }
)
"""Parameters of one output channel. A channel beyond the real ones is all zeros but for a threshold
of 1, so that its residual is 0 and its bit 0."""

PADDING_CHANNEL = {"m": 0, "n": 0, "slope": 0, "bias2": 0, "threshold": 1}
