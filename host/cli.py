"""The `rbonn` command: parses arguments, runs one command, turns any failure into one line.

Exit status: 0 success, 1 failure, 2 wrong usage, 130 interrupted. A failure writes exactly one
line, `rbonn: error: ...`, to stderr; `--debug` shows the traceback instead.
"""

import argparse
import os
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import NoReturn

from host.errors import describe

COMMANDS = (
    "train",
    "ablate",
    "eval",
    "calibrate",
    "compile",
    "run",
    "sim",
    "bitstream",
    "flash",
    "report",
    "bench",
)
"""Modules of `host.commands`. Each has HELP, `add_arguments(parser)` and `run(args)`, which returns
the exit status; it imports torch, amaranth and the like only inside `run`."""


class _Usage(Exception):
    """Arguments that argparse refuses."""


class _Parser(argparse.ArgumentParser):
    """Raises instead of printing the whole usage: one line is enough."""

    def error(self, message: str) -> NoReturn:
        raise _Usage(f"{message} (see `{self.prog} --help`)")


def build_parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="rbonn",
        description="Compiles trained RBONN binary neural networks to a bit-exact accelerator.",
    )
    parser.add_argument("--version", action="version", version=f"rbonn {_version()}")
    common = _Parser(add_help=False)
    common.add_argument(
        "--debug", action="store_true", default=False, help="show the traceback of an error"
    )
    commands = parser.add_subparsers(
        dest="command", required=True, metavar="COMMAND", parser_class=_Parser
    )
    for name in COMMANDS:
        module = import_module(f"host.commands.{name}")
        sub = commands.add_parser(
            name, help=module.HELP, description=module.__doc__, parents=[common],
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )  # fmt: skip
        module.add_arguments(sub)
        sub.set_defaults(run=module.run)
    return parser


def _version() -> str:
    try:
        return version("rbonn")
    except PackageNotFoundError:  # run from a folder that was never installed
        return "unknown"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line ``argv`` (default: the process's) and returns its exit status."""
    # Before numpy is imported: the threads of its matrix products, which are small here, wait for
    # each other, and on a busy machine for several times as long as they work.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    try:
        args = build_parser().parse_args(argv)
    except _Usage as error:
        return _fail(str(error), 2)
    try:
        status = args.run(args)
        sys.stdout.flush()
        return int(status or 0)
    except KeyboardInterrupt as stop:
        return _fail(str(stop) or "interrupted", 130)
    except BrokenPipeError:
        # Whoever read the output has gone (`| head`); keep Python from complaining at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if args.debug:
            traceback.print_exc()
            return 1
        return _fail(describe(error), 1)


def _fail(message: str, status: int) -> int:
    print(f"rbonn: error: {message}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
