"""Measure the accuracy of a checkpoint on the whole test set, in float or in integer arithmetic.

`integer` computes what the accelerator computes, bit for bit, in PyTorch.
"""

import argparse
import sys
from pathlib import Path

from host.arguments import add_json, add_model, say, write_json
from host.checkpoints import checkpoint_of

HELP = "measure accuracy on the whole test set"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model(parser)
    parser.add_argument("--arith", choices=("float", "integer"), required=True)
    parser.add_argument("--data", metavar="DIR", help="folder with the files of Fashion-MNIST")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    checkpoint = checkpoint_of(args, calibrated=args.arith == "integer")
    from rbonn_train.evaluate import evaluate

    data = None if args.data is None else Path(args.data)
    result = evaluate(checkpoint, args.arith, data, progress=sys.stderr.isatty())
    say(f"accuracy: {result['accuracy']:.4f} over {result['images']} images", args)
    write_json(args.json, result)
    return 0
