"""From a routed configuration to a bitstream, with a model image in its block RAM if asked for.

That takes no new synthesis and no new routing: the design is routed with a placeholder in its `ram`
source. Project Trellis' ecpbram recognises the slices of the placeholder in the memories of the
configuration, wherever synthesis and placement have put them, and replaces them by the image's.
"""

import hashlib
import re
import shutil
import tempfile
from pathlib import Path

from hw.tools import BuildError, run_tool, yowasp_command
from isa.bits import WORD_BITS

#: ecpbram recognises the memory by slices of so many words of one bit.
SLICE_WORDS = 512
_MEMORY = ".bram_init "
#: Preamble, reset of the CRC, check of the IDCODE: how ecppack begins, behind comments.
_BEGIN = re.compile(rb"\xff\xff\xbd\xb3\xff*\x3b\0\0\0\xe2\0\0\0(.{4})", re.DOTALL)
_COMMENT_BYTES = 4096


def placeholder(words):
    """`words` words of 32 bits that look random, and are the same everywhere and always."""
    raw = hashlib.shake_256(b"image").digest(words * WORD_BITS // 8)
    return [int.from_bytes(raw[i : i + 4], "little") for i in range(0, len(raw), 4)]


def prefill(config, image, *, words):
    """The bitstream of the routed `config` (a path) whose `ram` source holds `image`.

    `image` is a list of 32-bit words, `words` the size of the source, which is filled with zeros.
    Leaves `config` as it is. BuildError if the image is too long, or if the configuration does
    not hold the placeholder of `words` words.
    """
    if len(image) > words:
        raise BuildError(f"prefill takes an image of at most {words} words, not {len(image)}")
    if words % SLICE_WORDS:
        raise BuildError(
            f"prefill needs an image memory of a multiple of {SLICE_WORDS} words, not {words}"
        )
    config = Path(config)
    before = placeholder(words)
    after = [*image, *[0] * (words - len(image))]
    # Beside the configuration, as the tools see nothing outside of their folder.
    with tempfile.TemporaryDirectory(prefix="prefill-", dir=config.parent) as name:
        folder = Path(name)
        shutil.copyfile(config, folder / "routed.config")
        (folder / "from.hex").write_text(_hex(before))
        (folder / "to.hex").write_text(_hex(after))
        files = ("-i", "routed.config", "-o", "filled.config", "-f", "from.hex", "-t", "to.hex")
        log = config.parent / "prefill.log"
        run_tool("prefill", [*yowasp_command("ecpbram"), *files], log=log, cwd=folder)
        _verify(folder / "routed.config", folder / "filled.config", before, after)
        return pack(folder / "filled.config", log=log).read_bytes()


def pack(config, *, log):
    """The bitstream of a configuration, a path beside it."""
    config = Path(config)
    bitstream = config.with_suffix(".bit")
    command = [*yowasp_command("ecppack"), "--compress", "--input", config.name]
    run_tool("pack", [*command, "--bit", bitstream.name], log=log, cwd=config.parent)
    return bitstream


def idcode(bitstream):
    """The IDCODE of the FPGA that the bytes of a bitstream are for. ValueError if it is none."""
    found = _BEGIN.search(bitstream[:_COMMENT_BYTES])
    if not found:
        raise ValueError("Bitstream must be one of an ECP5, as ecppack writes it: build it again")
    return int.from_bytes(found[1], "big")


def _hex(words):
    return "".join(f"{word:08x}\n" for word in words)


def _verify(routed, filled, before, after):
    """Whether all of the placeholder has been replaced: ecpbram is silent about what it missed.

    A slice that was missed keeps its ones, so that the count of all ones does not come out right.
    """
    found = _ones(filled) - _ones(routed)
    expected = sum(map(int.bit_count, after)) - sum(map(int.bit_count, before))
    if found != expected:
        raise BuildError(
            f"prefill must change the ones in memory by {expected}, not {found}: the routed "
            f"configuration does not hold this memory's placeholder"
        )


def _ones(config):
    """The ones in all memories of a configuration: lines of hexadecimal words after each header."""
    count = 0
    inside = False
    for line in Path(config).read_text().splitlines():
        if line.startswith("."):
            inside = line.startswith(_MEMORY)
        elif inside:
            count += sum(int(word, 16).bit_count() for word in line.split())
    return count
