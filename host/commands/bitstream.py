"""Build everything for a network on a board: bitstream, model image and report.

Writes build/M/B/{top.bit, model.img, report.json, report.html}. Whole frames are simulated first,
and every layer compared with the golden model; a bitstream is only kept if it meets its clock. It
depends on the board alone, so that a second network reuses the first one's from build/cache.
"""

import argparse
from pathlib import Path

from host.arguments import add_board, add_model
from host.checkpoints import checkpoint_of
from host.errors import known, positive
from host.models import deployment, geometry_named, model_name

HELP = "build bitstream, model image and report"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model(parser)
    add_board(parser)
    parser.add_argument("--build", metavar="DIR", default="build", help="(default: build)")
    parser.add_argument("--seed", metavar="S", type=int, help="placement seed to use")
    parser.add_argument(
        "--sweep", metavar="N", type=positive, default=0, help="try N seeds, keep the fastest"
    )


def run(args: argparse.Namespace) -> int:
    board = args.board or deployment(args.model).board
    from hw.boards import BOARDS

    if board not in BOARDS:
        raise known("Board", board, BOARDS)
    geometry = geometry_named(board)
    model = model_name(args.model)
    checkpoint = checkpoint_of(args)
    from host.flow import build_all

    build_all(
        model,
        geometry,
        checkpoint,
        Path(args.build),
        seed=args.seed,
        sweep=args.sweep,
    )
    return 0
