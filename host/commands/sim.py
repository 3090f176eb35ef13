"""Simulate the gateware on a network and compare every layer with the golden model, bit for bit.

Every layer of the golden model, and the gateware's logits, are compared with the integer PyTorch
model as well. OUT is {"layers": n, "compared_values": n, "mismatches": 0, "cycles": n}; cycles are
those of all frames. The first difference is named, and the exit status is 1.
"""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from host.arguments import (
    add_board,
    add_images,
    add_json,
    add_model,
    add_source,
    cycles_bar,
    say,
    source_of,
    write_json,
)
from host.checkpoints import checkpoint_of, label
from host.images import Pixels
from host.models import geometry_named, images_for, stream_rate

if TYPE_CHECKING:
    from sim.pytorch import MapsComparison
    from sim.runner import SimResult

HELP = "simulate the gateware and compare every layer"
DEFAULT_IMAGES = 20
LEAST_IMAGES = 2  # so that one follows another
DEFAULT_CYCLES = 3_600_000  # of all images together, where nobody says how many


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model(parser)
    add_board(parser)
    add_source(parser)
    add_images(
        parser, f"default: the first {DEFAULT_IMAGES} that ship, {LEAST_IMAGES} for a large network"
    )
    parser.add_argument("--simulator", choices=("verilator", "icarus"), default="verilator")
    parser.add_argument(
        "--stalls",
        choices=("none", "light", "heavy"),
        default="none",
        help="have host and SDRAM pause by chance, now and then or most of the time",
    )
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    geometry = geometry_named(args.board, args.model)
    checkpoint = checkpoint_of(args)
    from compiler.pipeline import compile_network

    source = source_of(args, geometry)
    rate = stream_rate(geometry, source)
    compiled = compile_network(checkpoint, geometry, source=source, stream_rate=rate)
    image, estimate = compiled.image, compiled.report["estimate"]["cycles"]
    limit = args.limit
    if args.images is None and limit is None:
        limit = default_images(estimate)
    images = images_for(args.images, image.info.input_shape, limit)
    from sim.runner import simulate
    from sim.surroundings import Stalls

    with cycles_bar(round(len(image.words) / rate) + len(images) * estimate) as progress:
        result = simulate(
            geometry,
            image,
            images.pixels,
            simulator=args.simulator,
            source=source,
            stalls=Stalls(args.stalls),
            progress=progress,
        )
    from_pytorch = compare_with_pytorch(checkpoint, images.pixels, result)
    differences = [*result.differences, *from_pytorch.differences]
    summary = {
        "layers": result.layers,
        "compared_values": result.compared_values + from_pytorch.compared,
        "mismatches": result.mismatches + from_pytorch.mismatches,
        "cycles": int(sum(result.cycles)),
    }
    write_json(args.json, summary)
    say(
        f"{len(images)} images, {result.layers} layers, each against golden model and integer "
        f"PyTorch: {summary['compared_values']} values compared, {summary['mismatches']} "
        f"mismatches, {summary['cycles']} cycles{label(checkpoint)}",
        args,
    )
    if differences:
        print(f"rbonn: error: {differences[0]}", file=sys.stderr)
        return 1
    return 0


def default_images(estimate: int) -> int:
    """How many, where nobody says it, for a network of so many cycles a frame."""
    return min(DEFAULT_IMAGES, max(LEAST_IMAGES, DEFAULT_CYCLES // estimate))


def compare_with_pytorch(checkpoint: Path, pixels: Pixels, result: "SimResult") -> "MapsComparison":
    """The integer PyTorch model beside a simulation: every map of the golden model, which the
    gateware's were compared with, and the logits that were read of the gateware."""
    from isa.checkpoint import read_checkpoint
    from isa.folding import fold_network
    from rbonn_train.integer import IntegerNetwork
    from sim.pytorch import LOGITS, MapsComparison, compare_maps, map_layers

    network = IntegerNetwork(fold_network(*read_checkpoint(checkpoint)))
    compared = mismatches = 0
    differences: list[str] = []
    for frame, layers in enumerate(map_layers(result.golden)):
        expected = network.trace(pixels[frame : frame + 1])
        maps = compare_maps(frame, layers, expected)
        logits = expected[LOGITS].residual[0].numpy()
        wrong = [
            f"Frame {frame}, logit of class {index}: {logits[index]} in PyTorch, "
            f"{result.logits[frame, index]} in the gateware"
            for index in np.flatnonzero(logits != result.logits[frame])
        ]
        compared += maps.compared + logits.size
        mismatches += maps.mismatches + len(wrong)
        differences += [*maps.differences, *wrong]
    return MapsComparison(compared, mismatches, tuple(differences))
