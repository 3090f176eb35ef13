"""Write the page of every build again, and the measured numbers in README.md and docs/.

Reads build/*/*/report.json, what `rbonn bench` kept in build/bench and the metrics of the
checkpoints that ship; measures nothing. With --model (and --board) that build must exist.
"""

import argparse
from pathlib import Path

from host import numbers
from host.arguments import add_board
from host.html import render
from host.models import MODELS, ROOT, geometry_named, model_name
from host.report import REPORT_HTML, REPORT_JSON, find_reports, read_report

HELP = "write the page and the published numbers of the builds again"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", metavar="M", help="default: every build that there is")
    parser.add_argument("--checkpoint", metavar="FILE", help=argparse.SUPPRESS)  # of `make report`
    parser.add_argument("--calibration", metavar="FILE", help=argparse.SUPPRESS)  # the same
    add_board(parser)
    parser.add_argument("--build", metavar="DIR", default="build", help="(default: build)")


def run(args: argparse.Namespace) -> int:
    from isa.checkpoint import write_atomically

    build = Path(args.build)
    if args.model is not None:
        folder = build / model_name(args.model) / geometry_named(args.board).name
        read_report(folder / REPORT_JSON)
    reports = []
    for path in find_reports(build):
        reports.append(read_report(path))
        page = path.with_name(REPORT_HTML)
        write_atomically(page, render(reports[-1]).encode())
        print(page)
    # Only the builds of networks that ship are published, with or without a checkpoint.
    published = [r for r in reports if (MODELS / f"{r['model']}.yaml").is_file()]
    figures = numbers.Figures(
        published, numbers.shipped_metrics(MODELS), numbers.kept_benches(build)
    )
    for path in numbers.update(ROOT, figures):
        print(path)
    return 0
