"""From float tensors to the integer program, and the proof that no format overflows."""

import math

import numpy as np

from compiler.errors import CompileError
from compiler.importer import Checkpoint
from compiler.ir import BINARY_KERNEL, Layer, Program
from isa import fixed
from isa.fixed import IntArray
from isa.folding import FoldedBlock, FoldedNetwork, fold_network
from isa.geometry import Geometry
from isa.layer import LayerKind
from isa.network import NetworkError


def fold(checkpoint: Checkpoint) -> FoldedNetwork:
    """BN, alpha, biases, PReLU and scales become integers. Raises CompileError, naming the layer,
    where a value cannot be held."""
    try:
        return fold_network(checkpoint.info, checkpoint.tensors)
    except (fixed.FixedPointError, NetworkError) as error:
        raise CompileError(str(error)) from error


def lower(folded: FoldedNetwork, geometry: Geometry) -> Program:
    """The layers in order of execution."""
    network, stem, classifier = folded.network, folded.stem, folded.classifier
    layers = [
        Layer(
            name=stem.name,
            kind=LayerKind.STEM,
            in_size=network.input_size,
            in_channels=network.input_channels,
            out_size=network.stem_size,
            out_channels=network.widths[0],
            kernel=network.stem.kernel,
            stride=network.stem.stride,
            pooled=network.stem.pool,
            write_bits=True,
            weights=stem.weights,
            params=stem.folded.params,
            shifts=stem.folded.shifts,
            border=stem.border,
        )
    ]
    for block in folded.blocks:
        layers += _block(block, last=block is folded.blocks[-1])
    layers += [
        Layer(
            name="mean",
            kind=LayerKind.MEAN,
            in_size=network.final_size,
            in_channels=network.widths[-1],
            out_size=(1, 1),
            out_channels=network.widths[-1],
            feature_shift=classifier.feature_shift,
        ),
        Layer(
            name=classifier.name,
            kind=LayerKind.CLASSIFIER,
            in_size=(1, 1),
            in_channels=network.widths[-1],
            out_size=(1, 1),
            out_channels=network.classes,
            weights=classifier.weights[:, :, None, None],
            params=classifier.folded.params,
            shifts=classifier.folded.shifts,
        ),
    ]
    return Program(network, geometry, tuple(layers), classifier.lsb)


def _block(folded: FoldedBlock, last: bool) -> list[Layer]:
    block, shortcut, conv = folded.block, folded.shortcut, folded.conv
    layers = []
    if shortcut is not None:
        layers = [
            Layer(
                name=f"{block.name}.pool",
                kind=LayerKind.POOL,
                in_size=block.in_size,
                in_channels=block.in_channels,
                out_size=block.out_size,
                out_channels=block.in_channels,
                stride=2,
            ),
            Layer(
                name=shortcut.name,
                kind=LayerKind.POINTWISE,
                in_size=block.out_size,
                in_channels=block.in_channels,
                out_size=block.out_size,
                out_channels=block.out_channels,
                weights=shortcut.weights,
                params=shortcut.folded.params,
                shifts=shortcut.folded.shifts,
            ),
        ]
    return [
        *layers,
        Layer(
            name=block.name,
            kind=LayerKind.BINARY,
            in_size=block.in_size,
            in_channels=block.in_channels,
            out_size=block.out_size,
            out_channels=block.out_channels,
            kernel=BINARY_KERNEL,
            stride=block.stride,
            shortcut=True,
            write_bits=not last,
            weights=conv.weights,
            params=conv.folded.params,
            shifts=conv.folded.shifts,
        ),
    ]


def prove_formats(program: Program) -> Program:
    """The program unchanged, if no input whatever can make a sum exceed its format.

    Bounds are per output channel, from the actual weights; t, y and the residual saturate by
    design. Raises CompileError naming layer, quantity and channel.
    """
    for layer in program.layers:
        if layer.kind is LayerKind.MEAN:
            pixels = layer.in_size[0] * layer.in_size[1]
            total = np.array([pixels << (fixed.RESIDUAL_BITS - 1)])
            features = fixed.round_shift(total, layer.feature_shift)
            _fits(layer, "feature", features, fixed.FEATURE_BITS)
        elif layer.weights is not None:
            _prove_convolution(layer, program)
    return program


def accumulator_bounds(layer: Layer, largest_feature: int) -> IntArray:
    """(out,): the largest |accumulator| of each output channel over all inputs."""
    assert layer.weights is not None
    flat = layer.weights.reshape(len(layer.weights), -1)
    match layer.kind:
        case LayerKind.BINARY:
            return np.full(len(flat), flat.shape[1])
        case LayerKind.STEM:  # inputs of one sign
            positive, negative = np.maximum(flat, 0).sum(axis=1), np.maximum(-flat, 0).sum(axis=1)
            return 255 * np.maximum(positive, negative)
        case LayerKind.POINTWISE:
            return np.abs(flat).sum(axis=1) << (fixed.RESIDUAL_BITS - 1)
        case _:
            return np.abs(flat).sum(axis=1) * largest_feature


def _prove_convolution(layer: Layer, program: Program) -> None:
    params, shifts = layer.params, layer.shifts
    assert params is not None
    pixels = math.prod(program.network.final_size)
    shift = fixed.feature_shift(pixels)
    largest_feature = int(
        fixed.round_shift(np.array(pixels << (fixed.RESIDUAL_BITS - 1)), shift),
    )
    acc = accumulator_bounds(layer, largest_feature)
    _fits(layer, "accumulator", acc, fixed.ACC_BITS)
    # Rounding half up raises the positive end by half a unit at most.
    acc18 = (acc + (1 << shifts.a >> 1)) >> shifts.a
    _fits(layer, "scaled accumulator", acc18, fixed.ACC18_BITS)
    residual = 1 << (fixed.RESIDUAL_BITS - 1 + shifts.k) if layer.shortcut else 0
    p = np.abs(params.m) * acc18 + np.abs(params.n) + residual + (1 << shifts.s >> 1)
    _fits(layer, "sum p", p, fixed.SUM_BITS)
    if layer.kind is LayerKind.CLASSIFIER:
        _fits(layer, "logit", p >> shifts.s, fixed.LOGIT_BITS)
    for name, values, bits in (
        ("m", params.m, fixed.M_BITS),
        ("n", params.n, fixed.N_BITS),
        ("slope", params.slope, fixed.SLOPE_BITS),
        ("bias2", params.bias2, fixed.BIAS2_BITS),
        ("threshold", params.threshold, fixed.THRESHOLD_BITS),
    ):
        _fits(layer, name, np.where(values < 0, ~values, values), bits)
    for name, value in (("a", shifts.a), ("s", shifts.s), ("k", shifts.k)):
        if not 0 <= value < 1 << fixed.SHIFT_BITS:
            raise CompileError(
                f"Layer {layer.name}: shift {name} must be in 0..{(1 << fixed.SHIFT_BITS) - 1}, "
                f"not {value}"
            )


def _fits(layer: Layer, quantity: str, bounds: IntArray, bits: int) -> None:
    """``bounds``: largest absolute value per channel."""
    largest = fixed.limits(bits)[1]
    channel = int(np.argmax(bounds))
    if bounds[channel] > largest:
        raise CompileError(
            f"Layer {layer.name}: {quantity} must fit {bits} bits, not {int(bounds[channel])} in "
            f"channel {channel}"
        )
