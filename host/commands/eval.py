"""Measure the accuracy of a checkpoint on the whole test set, in float or in integer arithmetic.

`integer` computes what the accelerator computes, bit for bit, in PyTorch; `golden` compiles the
checkpoint for the board and executes the image.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

from host.arguments import add_board, add_json, add_model, say, write_json
from host.checkpoints import checkpoint_of, label
from host.models import geometry_named
from isa.geometry import Geometry
from isa.registers import Source

HELP = "measure accuracy on the whole test set"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model(parser)
    parser.add_argument("--arith", choices=("float", "integer", "golden"), required=True)
    add_board(parser)
    parser.add_argument("--data", metavar="DIR", help="folder with the files of Fashion-MNIST")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    checkpoint = checkpoint_of(args, calibrated=args.arith != "float")
    from rbonn_train.evaluate import evaluate

    data = None if args.data is None else Path(args.data)
    if args.arith == "golden":
        result = _golden(checkpoint, geometry_named(args.board, args.model), data)
    else:
        result = evaluate(checkpoint, args.arith, data, progress=sys.stderr.isatty())
    accuracy, count = result["accuracy"], result["images"]
    say(f"accuracy: {accuracy:.4f} over {count} images{label(checkpoint)}", args)
    write_json(args.json, result)
    return 0


def _golden(checkpoint: Path, geometry: Geometry, data: Path | None) -> dict[str, Any]:
    """What :func:`rbonn_train.evaluate.evaluate` gives, of the golden model."""
    from compiler.pipeline import compile_network
    from host.backends import run_image
    from host.images import ImageSet
    from isa.pixels import fit
    from rbonn_train.data import load_split

    test = load_split("test", data)
    image = compile_network(checkpoint, geometry, source=Source.LINK).image
    pixels = fit(test.images, image.info.input_shape)
    images = ImageSet(pixels, test.labels, [str(index) for index in range(len(pixels))])
    accuracy = images.accuracy(run_image("golden", image, geometry, images).classes)
    assert accuracy is not None
    return {"accuracy": round(accuracy, 6), "images": len(images)}
