"""Give a checkpoint that was trained elsewhere the scales of its residual stream.

A few hundred typical images suffice; without --calibration, those that ship are used. The weights
stay as they are; metrics in the checkpoint are dropped, as they no longer hold. A .pth.tar file
that RBONN or ReActNet released needs --model, which says what its tensors mean, and images. For one
of ours --model may name the same network of another input size.
"""

import argparse
from pathlib import Path

from host.arguments import add_images
from host.checkpoints import checkpoint_path, is_released, label
from host.errors import UserError
from host.models import images_for

HELP = "determine the scales of a checkpoint trained elsewhere"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--checkpoint", metavar="FILE", required=True, help="checkpoint to read")
    parser.add_argument("-o", "--out", metavar="OUT", required=True, help="checkpoint to write")
    parser.add_argument("--model", metavar="M", help="the network; for a released checkpoint")
    add_images(parser, "default: the test images that ship", "--calibration")


def run(args: argparse.Namespace) -> int:
    path = Path(args.checkpoint)
    if not path.is_file():
        raise UserError(f"Checkpoint must be an existing file, not {path}")
    if is_released(path):
        if args.model is None:
            raise UserError(
                f"Checkpoint {path} needs --model, the network that it is of: for example "
                f"resnet18-imagenet"
            )
        if args.images is None:
            raise UserError(
                f"Checkpoint {path} needs --calibration: a few hundred images of the kind that it "
                f"was trained on (.npz, .png or a folder)"
            )
    if args.model is not None:
        path = checkpoint_path(args.model, path, calibrated=False)
    from isa.checkpoint import read_checkpoint

    network = read_checkpoint(path, calibrated=False)[0].network
    images = images_for(args.images, (*network.input_size, network.input_channels), args.limit)
    from rbonn_train.calibrate import calibrate

    out = calibrate(path, images.pixels, Path(args.out))
    print(
        f"{out}: calibrated with {len(images)} images; measure it with `rbonn eval`, "
        f"or with `rbonn run` on labelled images{label(out)}"
    )
    return 0
