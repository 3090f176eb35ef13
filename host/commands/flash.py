"""Write bitstream and model image to a board's flash: it then starts by itself.

Takes build/M/B/{top.bit, model.img}, or the files named, checks that they are whole, for this
board, and fit, and makes one file of them, build/M/B/flash.bin. openFPGALoader writes that and
reads it back. At power-up the FPGA loads the bitstream, and copies the image to its SDRAM; where a
board has no SDRAM, the image is in the bitstream.
"""

import argparse
import shlex
from pathlib import Path

from host.arguments import add_board
from host.errors import UserError, known
from host.models import deployment, geometry_named, model_name

HELP = "write bitstream and model image to a board's flash"
CONTENT = "flash.bin"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", metavar="M", help="a network that was built for the board")
    add_board(parser)
    parser.add_argument("--build", metavar="DIR", default="build", help="(default: build)")
    parser.add_argument("--bitstream", metavar="FILE", help="(default: the build's)")
    parser.add_argument("--image-file", metavar="X.img", help="(default: the build's)")
    parser.add_argument(
        "-o", metavar="FILE", dest="out", help="make this file of the content, and write no flash"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="make the file, and show the command to write it"
    )


def run(args: argparse.Namespace) -> int:
    from hw.boards import BOARDS

    board = args.board or deployment(args.model).board
    if board not in BOARDS:
        raise known("Board", board, BOARDS)
    in_memory = bool(geometry_named(board).sdram_bytes)
    if args.image_file is not None and not in_memory:
        raise UserError(
            f"Board {board} must have its image in the bitstream, as it has no SDRAM: leave "
            f"--image-file out"
        )
    if args.model is None and (args.bitstream is None or (in_memory and args.image_file is None)):
        files = "--bitstream and --image-file" if in_memory else "--bitstream"
        raise UserError(f"Give --model, or {files}")
    from host.flash import flash_content, loader_command, write_flash
    from host.flow import BITSTREAM, IMAGE
    from isa.checkpoint import write_atomically

    folder = Path(args.build) / (model_name(args.model) if args.model else "") / board
    bitstream = Path(args.bitstream or folder / BITSTREAM)
    image = Path(args.image_file or folder / IMAGE) if in_memory else None
    content, lines = flash_content(board, bitstream, image)
    out = Path(args.out or folder / CONTENT)
    write_atomically(out, content)
    print(f"{out}: {len(content):,} bytes", *lines, sep="\n  ")
    if args.out or args.dry_run:
        print(f"to write it: {shlex.join(loader_command(board, out))}")
    else:
        write_flash(board, out)
    return 0
