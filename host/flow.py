"""From a checkpoint to a folder with bitstream, model image and report."""

from pathlib import Path
from typing import Any

from host.board_sim import end_to_end
from host.errors import UserError
from host.html import render
from host.models import shipped_images, stream_rate
from host.report import REPORT_HTML, REPORT_JSON, LayerMeasured, Measured, build_report
from isa.geometry import Geometry
from isa.image import Image

SIMULATED_FRAMES = 3
STEADY = 1  # the one between two others: its stem is computed ahead, and it does so for the next

BITSTREAM = "top.bit"
IMAGE = "model.img"


def build_all(
    model: str,
    geometry: Geometry,
    checkpoint: Path,
    build: Path,
    *,
    seed: int | None = None,
    sweep: int = 0,
) -> Path:
    """Compiles, simulates, routes and reports; returns the folder ``build/model/board``.

    Where the geometry has a block RAM for the image, the bitstream holds it: a board that is
    configured with it classifies at once. Otherwise it comes from the flash, or the host sends it.
    Every file is replaced atomically, the report last, so that a report always stands beside what
    it reports. Raises UserError, CompileError or BuildError.
    """
    from compiler.pipeline import compile_network
    from hw.bitstream import prefill
    from hw.boards import get_board
    from hw.build import build_bitstream
    from hw.progress import ConsoleProgress
    from hw.top import Top
    from isa.checkpoint import read_checkpoint, write_atomically, write_json_atomically

    report_progress = ConsoleProgress()
    report_progress("compile", f"{checkpoint} for {geometry.name}")
    info, _ = read_checkpoint(checkpoint)
    rate = stream_rate(geometry, geometry.source)
    compiled = compile_network(checkpoint, geometry, stream_rate=rate)
    report_progress("simulate", f"{SIMULATED_FRAMES} frames, every layer against the golden model")
    measured = measure(geometry, compiled.image)
    board = get_board(geometry.name)
    result = build_bitstream(
        Top(board=board, geometry=geometry),
        board,
        cache=build / "cache",
        seed=seed,
        sweep=sweep,
        progress=report_progress,
    )
    bitstream = result.bitstream.read_bytes()
    if geometry.image_words:
        report_progress("fill", "the image into the bitstream's memory")
        bitstream = prefill(result.config, compiled.image.words, words=geometry.image_words)
    report: dict[str, Any] = build_report(
        model=model,
        geometry=geometry,
        checkpoint=checkpoint,
        info=info,
        image_bytes=4 * len(compiled.image.words),
        compiled=compiled.report,
        measured=measured,
        build=result,
        stream_peak=stream_rate(geometry, geometry.source, peak=True),
        end_to_end=end_to_end(geometry, compiled.image, result.clock_mhz * 1e6 / measured.cycles),
    )
    folder = build / model / geometry.name
    write_atomically(folder / BITSTREAM, bitstream)
    write_atomically(folder / IMAGE, compiled.image.to_bytes())
    write_atomically(folder / REPORT_HTML, render(report).encode())
    write_json_atomically(folder / REPORT_JSON, report)
    for name in (BITSTREAM, IMAGE, REPORT_JSON, REPORT_HTML):
        print(folder / name)
    label = "UNTRAINED, " if info.untrained else ""
    print(
        f"{label}{report['fps']:,.0f} frames/s: {report['cycles_per_frame']:,} cycles at "
        f"{report['clock_mhz']:.1f} MHz (routed for {report['fmax_mhz']:.1f} MHz); "
        f"{report['end_to_end']['fps']:,.1f} with pixels and logits over the UART"
    )
    return folder


def measure(geometry: Geometry, image: Image, *, simulator: str = "verilator") -> Measured:
    """A frame in steady state, from RTL simulation of shipped images that must match the golden
    model in every layer. Raises UserError if it does not."""
    from sim.runner import simulate

    images = shipped_images(image.info.input_shape, SIMULATED_FRAMES)
    result = simulate(geometry, image, images.pixels, simulator=simulator)
    if result.mismatches:
        raise UserError(f"Gateware must equal the golden model, but: {result.first}")
    layers = [LayerMeasured(layer.cycles, layer.activity) for layer in result.layer_cycles[STEADY]]
    counters = dict(result.counters[STEADY])
    counters["binary_cycles"] = counters.pop("binary_layer")  # the register's name
    tail = LayerMeasured(result.tails[STEADY].cycles, result.tails[STEADY].activity)
    return Measured(result.cycles[STEADY], counters, layers, tail)
