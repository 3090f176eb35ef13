"""Compile a checkpoint to a model image for a board.

Writes OUT.img and OUT.json (sizes, memory map, estimated cycles). A network that does not fit is
refused, naming the memory and by how much.
"""

import argparse
from pathlib import Path

from host.arguments import add_board, add_model, add_source, source_of
from host.checkpoints import checkpoint_of
from host.errors import UserError
from host.models import geometry_named, stream_rate

HELP = "compile a checkpoint to a model image"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model(parser)
    add_board(parser)
    add_source(parser)
    parser.add_argument("-o", metavar="OUT.img", dest="out", required=True, help="image to write")
    parser.add_argument(
        "--save-intermediates", metavar="DIR", help="also write what each pass of the compiler made"
    )


def run(args: argparse.Namespace) -> int:
    geometry = geometry_named(args.board, args.model)
    checkpoint = checkpoint_of(args)
    out = Path(args.out)
    if out.suffix == ".json":
        raise UserError(f"Output must be an image file, not {out}: its .json is written beside it")
    from compiler.pipeline import compile_network
    from isa.checkpoint import read_checkpoint, write_atomically, write_json_atomically

    source = source_of(args, geometry)
    folder = None if args.save_intermediates is None else Path(args.save_intermediates)
    compiled = compile_network(
        checkpoint,
        geometry,
        save_intermediates=folder,
        source=source,
        stream_rate=stream_rate(geometry, source),
    )
    raw = compiled.image.to_bytes()
    write_atomically(out, raw)
    info, _ = read_checkpoint(checkpoint)
    report = {**compiled.report, "untrained": info.untrained}
    write_json_atomically(out.with_suffix(".json"), report)
    label = ", UNTRAINED" if info.untrained else ""
    print(f"{out}: {len(raw)} bytes for {geometry.name}{label}")
    return 0
