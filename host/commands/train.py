"""Train a network of models/: binary activations first, then binary weights.

Writes DIR/M.safetensors (the checkpoint, with its scales), DIR/M.json (configuration, seed, curve,
metrics), the same as a page, DIR/M.html, and logs (M.csv, tensorboard/). Fashion-MNIST is read from
the Debian package, or from --data, which may also have folders train/CLASS and test/CLASS of
images, or shards train/*.tar and test/*.tar.

Every few minutes, and on Ctrl-C or SIGTERM, the state of the run is written to DIR/M.state.pt;
`rbonn train --resume DIR` goes on from there, to the same weights, bit for bit.
"""

import argparse
import math
from pathlib import Path

from host.errors import UserError, positive
from host.models import model_name

HELP = "train a network"
OUT = "build/train"


def seed(text: str) -> int:
    """An argparse type: a seed that every generator takes."""
    from rbonn_train.state import LARGEST_SEED

    if not text.isdecimal() or int(text) > LARGEST_SEED:
        raise argparse.ArgumentTypeError(f"must be 0 to {LARGEST_SEED}, not {text!r}")
    return int(text)


def minutes(text: str) -> float:
    """An argparse type: a finite time above 0."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"must be a number of minutes above 0, not {text!r}")
    return value


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", metavar="M", help="a network of models/, or a .yaml file")
    parser.add_argument("--resume", metavar="DIR", help="go on with the run that was interrupted")
    parser.add_argument("--recipe", metavar="R", help="change the model's recipe: a name or .yaml")
    parser.add_argument("--method", metavar="X", help="how weights become binary")
    parser.add_argument(
        "--set", metavar="KEY=VALUE", action="append", default=[], dest="settings",
        help="change a value of the recipe, e.g. binary_weights.epochs=20; may be repeated",
    )  # fmt: skip
    parser.add_argument("--epochs", metavar="N", type=positive, help="in all (default: its recipe)")
    parser.add_argument("--seed", metavar="S", type=seed, help="random seed (default: 0)")
    parser.add_argument("--out", metavar="DIR", help=f"(default: {OUT})")
    parser.add_argument("--data", metavar="DIR", help="folder of the data set")
    parser.add_argument(
        "--limit", metavar="N", type=positive, help="train on the first N images only"
    )
    parser.add_argument("--device", metavar="D", default="cpu", help="cpu or cuda (default: cpu)")
    parser.add_argument(
        "--save-every", metavar="MINUTES", type=minutes, default=5.0,
        help="between two writings of the state (default: 5)",
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    options = {"device": args.device, "save_every": args.save_every}
    if args.resume is not None:
        fixed = ("recipe", "method", "settings", "epochs", "seed", "out", "data", "limit")
        if given := [name for name in fixed if getattr(args, name) not in (None, [])]:
            option = "set" if given[0] == "settings" else given[0]
            raise UserError(f"--{option} is fixed in a run that is resumed")
        from rbonn_train.runs import resume

        name = None if args.model is None else model_name(args.model)
        path = resume(Path(args.resume), name, **options)
    else:
        if args.model is None:
            raise UserError("Give either --model or --resume")
        model_name(args.model)
        from rbonn_train.runs import configure, train

        config = configure(
            args.model,
            recipe=args.recipe,
            method=args.method,
            settings=args.settings,
            epochs=args.epochs,
        )
        path = train(
            config,
            seed=args.seed or 0,
            out=Path(args.out or OUT),
            data=None if args.data is None else Path(args.data),
            limit=args.limit,
            **options,
        )
    from rbonn_train.parallel import leads

    if leads():
        print(f"checkpoint: {path}")
    return 0
