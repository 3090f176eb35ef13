"""Classify images with PyTorch, the golden model, a simulation of the gateware or a board.

integer, golden, rtl and serial give the same integer logits. OUT is
{"logits": [[...]], "classes": [...], "cycles": [...]}, one entry per image; cycles are null where
there is no clock (float, integer, golden).
"""

import argparse
from pathlib import Path

from host import backends
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
from host.checkpoints import checkpoint_of, label
from host.errors import UserError
from host.models import geometry_named, images_for, labelled, read_image, stream_rate

HELP = "classify images"
SHOWN = 20  # classes printed; all of them are in the JSON


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model(parser, required=False)
    parser.add_argument("--image-file", metavar="X.img", help="a compiled image instead of a model")
    add_board(parser)
    add_source(parser)
    parser.add_argument("--backend", metavar="NAME", required=True, help=", ".join(backends.NAMES))
    add_images(parser, "default: the test images that ship")
    parser.add_argument("--simulator", choices=("verilator", "icarus"), default="verilator")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    backend = backends.check_name(args.backend)
    checkpoint: Path | None = None  # an image file does not say what it was made of
    if (args.model is None) == (args.image_file is None):
        raise UserError("Give either --model or --image-file")
    if backends.is_pytorch(backend):
        if args.model is None:
            raise UserError(f"Backend {backend} must have a --model, not an --image-file")
        checkpoint = checkpoint_of(args, calibrated=backend == "integer")
        from isa.checkpoint import read_checkpoint

        network = read_checkpoint(checkpoint, calibrated=backend == "integer")[0].network
        images = images_for(args.images, (*network.input_size, network.input_channels), args.limit)
        results = backends.run_pytorch(backend, checkpoint, images.pixels)
    else:
        if args.model is None:
            image, geometry = read_image(args.image_file, args.board)
        else:
            geometry = geometry_named(args.board, args.model)
            checkpoint = checkpoint_of(args)
            from compiler.pipeline import compile_network

            source = source_of(args, geometry)
            rate = stream_rate(geometry, source)
            image = compile_network(checkpoint, geometry, source=source, stream_rate=rate).image
        images = images_for(args.images, image.info.input_shape, args.limit)
        results = backends.run_image(
            backend, image, geometry, images, args.simulator, source_of(args, geometry)
        )
    for name, found in list(zip(images.names, results.classes, strict=True))[:SHOWN]:
        say(f"{name}: class {found}", args)
    if len(images) > SHOWN:
        say(f"... and {len(images) - SHOWN} more", args)
    images = labelled(images, args.images, len(results.logits[0]))
    accuracy = images.accuracy(results.classes)
    summary = f"{len(images)} images{'' if checkpoint is None else label(checkpoint)}"
    if accuracy is not None:
        say(f"accuracy: {accuracy:.4f} over {summary}", args)
    else:
        say(summary, args)
    write_json(args.json, results.to_json())
    return 0
