"""The fold of a whole checkpoint: from float tensors to the integers of every layer.

One function for the integer PyTorch network and for the compiler, numpy float64 throughout. Each
layer is described by its integer weights and by the post-process that :mod:`isa.fixed` defines.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from isa import bits, fixed
from isa.fixed import Affine, FloatArray, Folded, IntArray
from isa.network import BN_EPSILON, Block, CheckpointInfo, Network, NetworkError, Quantisation

Tensors = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class FoldedConv:
    """A convolution and its post-process.

    ``weights``: (out, in, kernel, kernel), int8 values, or in a binary convolution bits (1 = +1).
    ``acc_bound``: the largest |accumulator| that any input can cause in any channel.
    ``lsb``: real value of one LSB of the output residual.
    """

    name: str
    weights: IntArray
    acc_bound: int
    folded: Folded
    lsb: float


@dataclass(frozen=True)
class FoldedStem(FoldedConv):
    """The stem; its threshold carries blocks.0.bias0. ``border``: uint8 values outside the image,
    one per input channel. The max-pool (if any) acts on residuals (max) and on sign bits (OR)."""

    border: IntArray


@dataclass(frozen=True)
class FoldedBlock:
    """A binary block.

    ``shortcut`` is the 1x1 convolution of the 2x2-averaged residual, if any; its output, or the
    block's input residual, is the residual operand of ``conv``'s post-process. The threshold of
    ``conv`` carries the next block's bias0; the sign bits of the last block are not used.
    """

    block: Block
    shortcut: FoldedConv | None
    conv: FoldedConv


@dataclass(frozen=True)
class FoldedClassifier:
    """Global sum (shifted right by ``feature_shift``) and the fully connected layer.

    ``weights``: (classes, channels), int8; ``lsb``: real value of one logit LSB.
    """

    name: str
    weights: IntArray
    acc_bound: int
    folded: Folded
    lsb: float
    feature_shift: int


@dataclass(frozen=True)
class FoldedNetwork:
    """Every layer in order of execution; in a block the shortcut comes before the convolution."""

    network: Network
    quantisation: Quantisation
    stem: FoldedStem
    blocks: tuple[FoldedBlock, ...]
    classifier: FoldedClassifier


def fold_network(info: CheckpointInfo, tensors: Tensors) -> FoldedNetwork:
    """Integers of the whole network from a checked, calibrated checkpoint.

    Raises NetworkError without scales, and isa.fixed.FixedPointError, naming the layer, where a
    value cannot be held.
    """
    if info.quantisation is None:
        raise NetworkError("Checkpoint must be calibrated before it can be folded")
    tensors = {name: np.asarray(value, np.float64) for name, value in tensors.items()}
    network, quantisation = info.network, info.quantisation
    blocks = tuple(network.blocks())
    folded_blocks, source = [], "stem"
    for block in blocks:
        folded_blocks.append(_block(network, quantisation, tensors, block, source))
        source = block.name
    return FoldedNetwork(
        network=network,
        quantisation=quantisation,
        stem=_stem(network, quantisation, tensors),
        blocks=tuple(folded_blocks),
        classifier=_classifier(network, quantisation, tensors, source),
    )


def stem_weights(network: Network, weight: FloatArray) -> tuple[IntArray, FloatArray]:
    """int8 stem weights that act on uint8 inputs, and their scale (out,) in units of (x / 255).

    The division by ``std`` is folded in before rounding: ``weight / std ~ scale * integers``.
    """
    std = np.asarray(network.std, np.float64).reshape(1, -1, 1, 1)
    return fixed.quantise_weights(weight / std)


def _stem(network: Network, quantisation: Quantisation, tensors: Tensors) -> FoldedStem:
    weights, scale = stem_weights(network, tensors["stem.conv.weight"])
    # sum w * (x/255 - mean) / std = scale/255 * (sum q*x - 255 * sum q*mean), q the integers
    mean = np.asarray(network.mean, np.float64)
    sums = (weights.sum(axis=(2, 3)) * mean).sum(axis=1)
    gain, offset = _batch_norm(tensors, "stem.bn", scale / 255)
    offset = offset - 255 * gain * sums
    flat = weights.reshape(len(weights), -1)
    one_sided = np.maximum(np.maximum(flat, 0).sum(axis=1), np.maximum(-flat, 0).sum(axis=1))
    bound = int(one_sided.max()) * 255
    affine = Affine.plain(gain, offset, tensors["blocks.0.bias0"])
    return FoldedStem(
        name="stem",
        weights=weights,
        acc_bound=bound,
        folded=_fold("stem", quantisation, affine, bound, None),
        lsb=quantisation.lsb("stem"),
        border=fixed.border_values(network.mean),
    )


def _block(
    network: Network, quantisation: Quantisation, tensors: Tensors, block: Block, source: str
) -> FoldedBlock:
    shortcut, name = None, block.name
    if block.downsamples:
        shortcut = _shortcut(quantisation, tensors, block, source)
        source = shortcut.name
    gain, offset = _batch_norm(tensors, f"{name}.bn", tensors[f"{name}.conv.alpha"])
    affine = Affine(
        gain=gain,
        offset=offset + tensors[f"{name}.bias1"],
        slope=tensors[f"{name}.prelu"],
        bias2=tensors[f"{name}.bias2"],
        sign_bias=tensors.get(f"blocks.{block.index + 1}.bias0", np.zeros(block.out_channels)),
    )
    bound = 9 * block.in_channels
    conv = FoldedConv(
        name=name,
        weights=bits.sign_bits(tensors[f"{name}.conv.weight"]),
        acc_bound=bound,
        folded=_fold(name, quantisation, affine, bound, quantisation.exponents[source]),
        lsb=quantisation.lsb(name),
    )
    return FoldedBlock(block, shortcut, conv)


def _shortcut(
    quantisation: Quantisation, tensors: Tensors, block: Block, source: str
) -> FoldedConv:
    name = f"{block.name}.shortcut"
    weights, scale = fixed.quantise_weights(tensors[f"{name}.conv.weight"])
    gain, offset = _batch_norm(tensors, f"{name}.bn", scale * quantisation.lsb(source))
    bound = _weight_sum(weights) << (fixed.RESIDUAL_BITS - 1)
    affine = Affine.plain(gain, offset)
    folded = _fold(name, quantisation, affine, bound, None)
    return FoldedConv(name, weights, bound, folded, quantisation.lsb(name))


def _classifier(
    network: Network, quantisation: Quantisation, tensors: Tensors, source: str
) -> FoldedClassifier:
    pixels = network.final_size[0] * network.final_size[1]
    shift = fixed.feature_shift(pixels)
    sum_bound = np.array(pixels << (fixed.RESIDUAL_BITS - 1))
    feature_bound = int(fixed.round_shift(sum_bound, shift))
    weights, scale = fixed.quantise_weights(tensors["fc.weight"])
    bound = _weight_sum(weights) * feature_bound
    # feature * 2**shift / pixels is the mean in LSBs of the last residual
    gain = scale * (quantisation.lsb(source) * 2.0**shift / pixels)
    try:
        folded, lsb = fixed.fold_classifier(gain, tensors["fc.bias"], bound)
    except fixed.FixedPointError as error:
        raise fixed.FixedPointError(f"Layer fc: {error}") from error
    return FoldedClassifier("fc", weights, bound, folded, lsb, shift)


def _batch_norm(tensors: Tensors, name: str, gain: FloatArray) -> tuple[FloatArray, FloatArray]:
    return fixed.batch_norm(
        gain,
        tensors[f"{name}.weight"],
        tensors[f"{name}.bias"],
        tensors[f"{name}.running_mean"],
        tensors[f"{name}.running_var"],
        BN_EPSILON,
    )


def _weight_sum(weights: IntArray) -> int:
    """The largest sum of |weight| over the output channels."""
    return int(np.abs(weights).reshape(len(weights), -1).sum(axis=1).max())


def _fold(
    name: str, quantisation: Quantisation, affine: Affine, bound: int, exponent_in: int | None
) -> Folded:
    exponent_out = quantisation.exponents[name]
    try:
        return fixed.fold(affine, bound, quantisation.lsb(name), exponent_in, exponent_out)
    except fixed.FixedPointError as error:
        raise fixed.FixedPointError(f"Layer {name}: {error}") from error
