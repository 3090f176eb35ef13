"""What the Makefile's targets hand over to the commands."""

import subprocess

import pytest

from host import cli
from host.models import ROOT

TARGETS = ("compile", "sim", "bitstream", "run", "report", "bench")


@pytest.mark.parametrize("target", TARGETS)
def test_make_hands_checkpoint_and_calibration_over(target):
    variables = ["CHECKPOINT=theirs.pth.tar", "CALIBRATION=folder", "MODEL=resnet18-imagenet"]
    make = ["make", "-n", "--no-print-directory", target, *variables]
    made = subprocess.run(make, cwd=ROOT, capture_output=True, text=True, check=True)
    line = made.stdout.strip().splitlines()[-1]
    args = cli.build_parser().parse_args(line.split()[1:])
    assert (args.command, args.checkpoint, args.calibration) == (target, "theirs.pth.tar", "folder")


@pytest.mark.parametrize("target", ["compile", "run", "bitstream", "flash", "report", "bench"])
@pytest.mark.parametrize("board", [None, "ulx3s-85f"])
def test_make_leaves_the_board_to_the_model(target, board):
    make = ["make", "-n", "--no-print-directory", target, "MODEL=resnet18"]
    make += [f"BOARD={board}"] if board else []
    made = subprocess.run(make, cwd=ROOT, capture_output=True, text=True, check=True)
    line = made.stdout.strip().splitlines()[-1]
    args = cli.build_parser().parse_args(line.split()[1:])
    assert (args.command, args.model, args.board) == (target, "resnet18", board)
