"""Measure speed on this computer: PyTorch, golden model, training step, RTL simulation.

OUT has the golden model's frames per second and their ratio to the float model's, the simulated
cycles per second, and of a training step its time and peak memory, with their ratios to those of
the same network with plain straight-through binary weights and with real weights.

`rbonn bench golden` measures the golden model alone, beside the float model frame by frame (its
binary weights computed before); by default a ResNet-18 for 224 x 224 pixels. `rbonn bench train`
measures the training step alone, and needs no checkpoint.

`rbonn bench board-sim` says how fast a board with an SDRAM is: frames that lie there, by
simulation, and frames that come over the serial line, by the bytes that they take.

`rbonn bench rounding` says what the accelerator's integers change in the classes of the whole test
set of Fashion-MNIST.

These four keep what they found in DIR/bench as well, for `rbonn report` to publish.
"""

import argparse
import platform
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from host.arguments import (
    add_board,
    add_json,
    add_model,
    add_source,
    cycles_bar,
    say,
    source_of,
    write_json,
)
from host.checkpoints import checkpoint_of
from host.errors import UserError, positive
from host.models import geometry_named, model_name, shipped_images, stream_rate
from host.numbers import BENCHES

HELP = "measure cycles, frames per second and simulation speed"
GOLDEN_MODEL = "resnet18-imagenet"
PIXELS = 200_000  # of all frames together: 250 of Fashion-MNIST
GOLDEN_FRAMES = 16
FLOAT_FRAMES = 4
RTL_FRAMES = 4
RUNS = 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "what",
        nargs="?",
        choices=("all", "golden", "train", "board-sim", "rounding"),
        default="all",
        help="default: all",
    )
    add_model(parser, required=False)
    add_board(parser)
    add_source(parser)
    parser.add_argument("--no-rtl", action="store_true", help="leave the RTL simulation out")
    parser.add_argument(
        "--threads", metavar="N", type=positive, default=2,
        help="of the golden model alone, the training step and rounding (default: 2)",
    )  # fmt: skip
    step = parser.add_argument_group("the training step")
    step.add_argument("--method", metavar="X", default="released", help="(default: released)")
    step.add_argument("--batch", metavar="N", type=positive, default=128, help="(default: 128)")
    step.add_argument(
        "--rounds", metavar="N", type=positive, default=5, help="steps to time (default: 5)"
    )
    step.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--build", metavar="DIR", default="build", help="(default: build)")
    add_json(parser)


def best_seconds(action: Callable[[], object]) -> float:
    """The shortest of RUNS runs."""
    found = []
    for _ in range(RUNS):
        start = time.perf_counter()
        action()
        found.append(time.perf_counter() - start)
    return min(found)


def run(args: argparse.Namespace) -> int:
    if args.model is None:
        if args.what not in ("golden", "board-sim"):
            raise UserError("Give the --model to measure")
        args.model = GOLDEN_MODEL
    if args.what == "train":
        keep(args, {"model": args.model, "method": args.method} | training(args))
        return 0
    checkpoint = checkpoint_of(args)
    if args.what == "rounding":
        keep(args, {"model": args.model} | rounded(args, checkpoint))
        return 0
    geometry = geometry_named(args.board, args.model)
    from compiler.pipeline import compile_network
    from isa.checkpoint import read_info

    source = source_of(args, geometry)
    compiled = compile_network(
        checkpoint,
        geometry,
        source=source,
        stream_rate=stream_rate(geometry, source),
        verify=False,
    )
    result: dict[str, Any] = {
        "model": args.model,
        "board": geometry.name,
        "untrained": read_info(checkpoint).untrained,
    }
    if args.what == "golden":
        keep(args, result | golden_alone(args, checkpoint, compiled, geometry))
    elif args.what == "board-sim":
        keep(args, result | board(args, compiled, geometry))
    else:
        write_json(args.json, result | everything(args, checkpoint, compiled, geometry))
    return 0


def keep(args: argparse.Namespace, result: dict[str, Any]) -> None:
    """Writes ``result``, and on what it was measured, where --json says and for `rbonn report`."""
    from isa.checkpoint import write_json_atomically

    result = {"what": args.what} | result | computer(args.threads)
    write_json(args.json, result)
    subject = [args.what, model_name(args.model)]
    if args.what == "train":
        subject += [args.method, str(args.batch), args.precision]
    write_json_atomically(Path(args.build) / BENCHES / f"{'-'.join(subject)}.json", result)


def computer(threads: int) -> dict[str, Any]:
    """What the measurement ran on."""
    import torch

    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        named = re.search(r"model name\s*:\s*(.+)", info.read_text())
        cpu = named.group(1).strip() if named else cpu
    return {"threads": threads, "cpu": cpu, "torch": torch.__version__}


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """While entered, PyTorch computes with so many threads."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def golden_alone(
    args: argparse.Namespace, checkpoint: Path, compiled: Any, geometry: Any
) -> dict[str, Any]:
    """Frames per second of the golden model and of PyTorch, with the same number of threads."""
    from isa.checkpoint import read_checkpoint
    from rbonn_train.checkpoint import load_frozen
    from rbonn_train.data import to_tensor
    from sim.golden import Golden

    pixels = shipped_images(compiled.image.info.input_shape, GOLDEN_FRAMES).pixels
    golden, model = Golden(geometry, compiled.image), load_frozen(*read_checkpoint(checkpoint))
    images = to_tensor(pixels[:FLOAT_FRAMES])
    with torch_threads(args.threads):
        golden.run_batch(pixels, args.threads)  # compiles the kernels, if need be
        seconds = best_seconds(lambda: golden.run_batch(pixels, args.threads))
        alone = best_seconds(lambda: golden.run_batch(pixels[:1], args.threads))
        in_float = best_seconds(lambda: [model.logits(image[None]) for image in images])
    fps, float_fps = len(pixels) / seconds, len(images) / in_float
    say(f"golden: {fps:,.1f} frames/s with {args.threads} threads, {1e3 * alone:.1f} ms a frame "
        f"with one", args)  # fmt: skip
    say(f"float, frame by frame: {float_fps:,.1f} frames/s with {args.threads} threads", args)
    ratio = round(fps / float_fps, 4)
    say(f"golden over float: {ratio:.2f}", args)
    return {
        "golden_fps": round(fps, 1),
        "golden_ms": round(1e3 * alone, 2),
        "float_fps": round(float_fps, 1),
        "golden_over_float": ratio,
    }


def rounded(args: argparse.Namespace, checkpoint: Path) -> dict[str, Any]:
    """What :func:`rbonn_train.evaluate.rounding` finds; sums of floats depend on the threads."""
    from rbonn_train.evaluate import rounding

    with torch_threads(args.threads):
        found = rounding(checkpoint, progress=sys.stderr.isatty())
    change, points = found["float_to_integer"], 100 * (found["integer"] - found["float"])
    say(
        f"float {found['float']:.2%}, integer {found['integer']:.2%} of {found['images']:,} "
        f"images: {points:+.2f} points", args
    )  # fmt: skip
    say(
        f"{change['changed']:,} images change their class: {change['lost']:,} from the right one, "
        f"{change['won']:,} to it", args
    )  # fmt: skip
    return found


def board(args: argparse.Namespace, compiled: Any, geometry: Any) -> dict[str, Any]:
    """Frames per second of a board, as `host.board_sim` has them."""
    from host.board_sim import FRAMES, board_sim

    image = compiled.image
    pixels = shipped_images(image.info.input_shape, FRAMES).pixels
    total = (FRAMES + 1) * compiled.report["estimate"]["cycles"]
    with cycles_bar(total) as progress:
        found = board_sim(geometry, image, pixels, progress=progress)
    mbaud = found.baud / 1e6
    say(
        f"frames that lie in the SDRAM: {found.kernel_fps:.1f} frames/s, {found.cycles:,} cycles "
        f"from start to start at {found.clock_mhz:.1f} MHz",
        args,
    )
    say(
        f"with starts and the largest logits over the UART at {mbaud:g} Mbaud: "
        f"{found.batch_fps:.1f} frames/s, {found.batch_bytes:,} bytes a frame",
        args,
    )
    say(
        f"end to end, pixels over the UART as well: {found.end_to_end_fps:.2f} frames/s, "
        f"{found.frame_bytes:,} bytes a frame",
        args,
    )
    return found.to_json()


def everything(
    args: argparse.Namespace, checkpoint: Path, compiled: Any, geometry: Any
) -> dict[str, Any]:
    from rbonn_train.evaluate import predict
    from sim.golden import Golden

    height, width, _ = shape = compiled.image.info.input_shape
    pixels = shipped_images(shape, max(1, min(250, PIXELS // (height * width)))).pixels
    golden = Golden(geometry, compiled.image)
    result: dict[str, Any] = {}
    actions: dict[str, Callable[[], object]] = {
        "float": lambda: predict(checkpoint, pixels, "float"),
        "integer": lambda: predict(checkpoint, pixels, "integer"),
        "golden": lambda: golden.run_batch(pixels),
    }
    for name, action in actions.items():
        result[f"{name}_fps"] = round(len(pixels) / best_seconds(action), 1)
        say(f"{name}: {result[f'{name}_fps']:,.0f} frames/s", args)
    result["golden_over_float"] = round(result["golden_fps"] / result["float_fps"], 4)
    result |= training(args)
    if not args.no_rtl:
        result |= simulation(compiled, geometry)
        say(
            f"RTL: {result['rtl_cycles_per_frame']:,} cycles a frame (estimate "
            f"{result['estimated_cycles']:,}), {result['rtl_cycles_per_second']:,} cycles/s", args
        )  # fmt: skip
    return result


def training(args: argparse.Namespace) -> dict[str, Any]:
    """Time and peak memory of a training step, beside plain binary weights and real ones."""
    from rbonn_train.bench import Case, measure
    from rbonn_train.config import load_model_yaml

    case = Case(args.batch, args.precision, args.threads)
    network = load_model_yaml(args.model).network
    result = measure(network, args.method, case, rounds=args.rounds)
    say(
        f"training step, {args.method}: {result['train_step_ms']:.1f} ms, "
        f"{result['train_step_ratio']:.3f} times plain binary weights, "
        f"{result['train_step_over_real']:.3f} times real ones; peak memory "
        f"{result['train_peak_mb']:.0f} MB, {result['train_peak_ratio']:.3f} times plain",
        args,
    )
    return result


def simulation(compiled: Any, geometry: Any) -> dict[str, int]:
    """Cycles of a frame in RTL simulation, the estimate of them, and simulated cycles a second."""
    from host.flow import STEADY
    from sim.runner import simulate

    pixels = shipped_images(compiled.image.info.input_shape, RTL_FRAMES).pixels
    found = {}
    simulate(geometry, compiled.image, pixels[:1])  # builds the simulator, if need be
    for frames in (1, RTL_FRAMES):
        start = time.perf_counter()
        result = simulate(geometry, compiled.image, pixels[:frames])
        found[frames] = sum(result.cycles), time.perf_counter() - start
    # The difference: what starting the simulator and loading the image take does not count.
    cycles, seconds = (b - a for a, b in zip(found[1], found[RTL_FRAMES], strict=True))
    return {
        "rtl_cycles_per_frame": int(result.cycles[STEADY]),
        "estimated_cycles": int(compiled.report["estimate"]["cycles"]),
        "rtl_cycles_per_second": round(cycles / seconds),
    }
