"""Train a grid of recipes and seeds, and write the table of their accuracy.

SPEC.yaml names a network, a recipe, what each cell changes in it, seeds, and what is compared with
what. Results are written to SPEC.csv, SPEC.md and SPEC.svg after each cell; finished cells are
skipped, and an interrupted one goes on where it stopped, so the same command may be repeated until
it says that all are done.
"""

import argparse
import sys
from pathlib import Path

HELP = "compare recipes over several seeds"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("spec", metavar="SPEC", help="a .yaml file")
    parser.add_argument(
        "--results", metavar="CSV", help="(default: SPEC.csv; its .md and .svg lie beside it)"
    )
    parser.add_argument("--build", metavar="DIR", default="build/ablate", help="of unfinished runs")
    parser.add_argument("--data", metavar="DIR", help="folder of the data set")
    parser.add_argument(
        "--keep", action="store_true", help="keep checkpoint, log and page of each run in --build"
    )


def run(args: argparse.Namespace) -> int:
    from rbonn_train.ablate import run_grid
    from rbonn_train.grid import load_spec
    from rbonn_train.runs import load_data

    source = Path(args.spec)
    spec = load_spec(source)
    results = source.with_suffix(".csv") if args.results is None else Path(args.results)
    data = None if args.data is None else Path(args.data)
    in_files = next((recipe for recipe in spec.cells.values() if recipe.in_files), None)
    sets = load_data(spec.network, data, spec.limit, in_files)
    folder = Path(args.build) / spec.name
    options = {"keep": args.keep, "progress": sys.stderr.isatty()}
    for row, left in run_grid(source, results, folder, sets, **options):
        print(
            f"{row['cell']}, seed {row['seed']}: {float(row['accuracy_integer']):.2%} "
            f"({left} runs left)",
            flush=True,
        )
    print(f"table: {results.with_suffix('.md')}")
    return 0
