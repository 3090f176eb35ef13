"""Simulate the gateware on a network and compare every layer with the golden model, bit for bit.

OUT is {"layers": n, "compared_values": n, "mismatches": 0, "cycles": n}; cycles are those of all
frames. The first difference is named, and the exit status is 1.
"""

import argparse
import sys

from host.arguments import (
    add_board,
    add_images,
    add_json,
    add_model,
    add_source,
    say,
    source_of,
    write_json,
)
from host.checkpoints import checkpoint_of
from host.models import geometry_named, images_for, stream_rate

HELP = "simulate the gateware and compare every layer"
DEFAULT_IMAGES = 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model(parser)
    add_board(parser)
    add_source(parser)
    add_images(parser, f"default: the first {DEFAULT_IMAGES} that ship")
    parser.add_argument("--simulator", choices=("verilator", "icarus"), default="verilator")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    geometry = geometry_named(args.board, args.model)
    checkpoint = checkpoint_of(args)
    from compiler.pipeline import compile_network

    source = source_of(args, geometry)
    rate = stream_rate(geometry, source)
    image = compile_network(checkpoint, geometry, source=source, stream_rate=rate).image
    limit = args.limit
    if args.images is None and limit is None:
        limit = DEFAULT_IMAGES
    images = images_for(args.images, image.info.input_shape, limit)
    from sim.runner import simulate

    result = simulate(geometry, image, images.pixels, simulator=args.simulator, source=source)
    summary = {
        "layers": result.layers,
        "compared_values": result.compared_values,
        "mismatches": result.mismatches,
        "cycles": int(sum(result.cycles)),
    }
    write_json(args.json, summary)
    say(
        f"{len(images)} images, {result.layers} layers: {result.compared_values} values compared, "
        f"{result.mismatches} mismatches, {summary['cycles']} cycles",
        args,
    )
    if result.mismatches:
        print(f"rbonn: error: {result.first}", file=sys.stderr)
        return 1
    return 0
