"""What is written to a board's flash, and how."""

import shlex
import shutil
from pathlib import Path

from host.errors import UserError
from host.models import geometry_named, read_image
from isa.flash import IMAGE_OFFSET, combine

LOADER = "openFPGALoader"


def flash_content(board: str, bitstream: Path, image: Path | None) -> tuple[bytes, list[str]]:
    """The flash's content from its first byte on, and a line for each part of it.

    ``image`` is None for a board whose bitstream has the image in its block RAM. Raises UserError
    or ValueError for a file that is not there, is damaged, is for another board or does not fit.
    """
    from hw.bitstream import idcode
    from hw.bitstream_check import check_bitstream
    from hw.boards import get_board

    try:
        bits = bitstream.read_bytes()
    except OSError as error:
        raise UserError(
            f"Bitstream must be a readable file, not {bitstream}: {error.strerror}; "
            f"`rbonn bitstream` builds it"
        ) from error
    expected = get_board(board).idcode
    try:
        found = idcode(bits)
    except ValueError as error:
        raise UserError(f"{bitstream}: {error}") from error
    if found != expected:
        raise UserError(
            f"{bitstream}: Bitstream must be for {board} (IDCODE {expected:#010x}), not for an "
            f"FPGA with {found:#010x}"
        )
    try:
        check_bitstream(bits)
    except ValueError as error:
        raise UserError(f"{bitstream}: {error}") from error
    lines = [f"bitstream at 0x0: {len(bits):,} bytes"]
    geometry = geometry_named(board)
    if image is None:
        return combine(geometry, bits), [*lines, "the image is in the bitstream's block RAM"]
    parsed, _ = read_image(image, board)
    raw = parsed.to_bytes()
    lines.append(f"image {parsed.info.name} at {IMAGE_OFFSET:#x}: {len(raw):,} bytes")
    return combine(geometry, bits, raw), lines


def loader_command(board: str, content: Path) -> list[str]:
    """What writes a file to the flash of ``board`` from its first byte on, and reads it back."""
    from hw.boards import get_board

    # As bytes: what openFPGALoader takes for a bitstream it changes.
    options = ["--write-flash", "--verify", "--file-type", "bin"]
    return [LOADER, "--board", get_board(board).loader, *options, str(content)]


def write_flash(board: str, content: Path) -> None:
    """Runs that. Raises UserError if the program is not installed, BuildError if it fails."""
    from hw.progress import ConsoleProgress
    from hw.tools import run_tool

    command = loader_command(board, content)
    if shutil.which(LOADER) is None:
        raise UserError(
            f"{LOADER} must be installed to write the flash (Debian: apt-get install "
            f"openfpgaloader); the content is there, to be written by: {shlex.join(command)}"
        )
    progress = ConsoleProgress()
    run_tool(
        "flash",
        command,
        log=content.with_suffix(".log"),
        cwd=Path(),
        on_line=lambda line: progress("flash", line),
    )
    progress("done", f"{content} written and read back")
