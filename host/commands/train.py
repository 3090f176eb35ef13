"""Train a network of models/ from scratch: binary activations first, then RBONN weights.

Writes DIR/M.safetensors (the checkpoint, with its scales) and DIR/M.json (configuration, seed,
curve, metrics). Fashion-MNIST is read from the Debian package, or from --data.
"""

import argparse
from pathlib import Path

from host.errors import positive
from host.models import model_name

HELP = "train a network"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", metavar="M", required=True, help="a network of models/")
    parser.add_argument("--epochs", metavar="N", type=positive, help="in all (default: its recipe)")
    parser.add_argument("--seed", metavar="S", type=int, default=0, help="random seed (default: 0)")
    parser.add_argument(
        "--out", metavar="DIR", default="build/train", help="(default: build/train)"
    )
    parser.add_argument("--data", metavar="DIR", help="folder with the files of Fashion-MNIST")


def run(args: argparse.Namespace) -> int:
    model_name(args.model)
    from rbonn_train.loop import train

    path = train(
        args.model,
        epochs=args.epochs,
        seed=args.seed,
        out=Path(args.out),
        data=None if args.data is None else Path(args.data),
    )
    print(f"checkpoint: {path}")
    return 0
