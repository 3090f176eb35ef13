"""`rbonn flash`: one file of bitstream and image, its checks, and the program that writes it."""

import json

import pytest

from compiler.pipeline import compile_tensors
from host import cli
from isa.flash import IMAGE_OFFSET
from isa.geometry import ULX3S_25F, ULX3S_85F
from tests.bitstreams import bitstream
from tests.host.test_cli import fails, flip
from tests.networks import random_checkpoint, small_network

#: Notes what it was called with, and does as `status` says.
LOADER = """#!/usr/bin/env python3
import json, pathlib, sys
folder = pathlib.Path(__file__).parent
content = pathlib.Path(sys.argv[-1]).read_bytes()
(folder / "called.json").write_text(json.dumps([sys.argv[1:], len(content)]))
print("Writing: [====] 100.00%")
status = int((folder / "status").read_text())
if status:
    print("Verification failed at 0")
raise SystemExit(status)
"""


@pytest.fixture(scope="module")
def images():
    checkpoint = random_checkpoint(small_network("plain"))
    geometries = (ULX3S_25F, ULX3S_85F)
    return {g.name: compile_tensors(*checkpoint, g, verify=False).image for g in geometries}


@pytest.fixture
def build(tmp_path, images, monkeypatch):
    """A folder with builds of the model `tiny` for both boards; no programs are installed."""
    for board, idcode in (("ulx3s-25f", 0x41111043), ("ulx3s-85f", 0x41113043)):
        folder = tmp_path / "tiny" / board
        folder.mkdir(parents=True)
        (folder / "top.bit").write_bytes(bitstream(idcode))
        (folder / "model.img").write_bytes(images[board].to_bytes())
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    return tmp_path


@pytest.fixture
def loader(build, monkeypatch):
    """openFPGALoader's stand-in: the folder in which it leaves what it was called with."""
    folder = build / "bin"
    folder.mkdir()
    (folder / "openFPGALoader").write_text(LOADER)
    (folder / "openFPGALoader").chmod(0o755)
    (folder / "status").write_text("0")
    monkeypatch.setenv("PATH", f"{folder}:/usr/local/bin:/usr/bin:/bin")
    return folder


def arguments(build, board, *more):
    return ["flash", "--model", "tiny", "--board", board, "--build", str(build), *more]


def command(path):
    return f"openFPGALoader --board ulx3s --write-flash --verify --file-type bin {path}"


def test_both_are_written_in_one_file(build, images, loader, capsys):
    assert cli.main(arguments(build, "ulx3s-85f")) == 0
    path = build / "tiny" / "ulx3s-85f" / "flash.bin"
    content = path.read_bytes()
    raw = images["ulx3s-85f"].to_bytes()
    assert content[:10_000] == bitstream(0x41113043)
    assert set(content[10_000:IMAGE_OFFSET]) == {0xFF}
    assert content[IMAGE_OFFSET:] == raw
    called, size = json.loads((loader / "called.json").read_text())
    assert " ".join(["openFPGALoader", *called]) == command(path)
    assert size == len(content)
    captured = capsys.readouterr()
    assert captured.out == (
        f"{path}: {len(content):,} bytes\n"
        f"  bitstream at 0x0: 10,000 bytes\n"
        f"  image plain at 0x400000: {len(raw):,} bytes\n"
    )
    assert f"done: {path} written and read back" in captured.err


def test_a_board_without_an_sdram_has_its_image_in_the_bitstream(build, loader, capsys):
    assert cli.main(arguments(build, "ulx3s-25f")) == 0
    path = build / "tiny" / "ulx3s-25f" / "flash.bin"
    assert path.read_bytes() == bitstream(0x41111043)
    assert (loader / "called.json").exists()
    assert capsys.readouterr().out == (
        f"{path}: 10,000 bytes\n"
        f"  bitstream at 0x0: 10,000 bytes\n"
        f"  the image is in the bitstream's block RAM\n"
    )


@pytest.mark.parametrize("more", [["-o", "x.bin"], ["--dry-run"]], ids=["file", "dry-run"])
def test_a_file_alone(build, loader, capsys, monkeypatch, more):
    monkeypatch.chdir(build)
    assert cli.main(arguments(build, "ulx3s-85f", *more)) == 0
    path = "x.bin" if "-o" in more else build / "tiny" / "ulx3s-85f" / "flash.bin"
    assert (build / path).stat().st_size > IMAGE_OFFSET
    assert capsys.readouterr().out.endswith(f"\nto write it: {command(path)}\n")
    assert not (loader / "called.json").exists()


def test_files_that_are_named(build, images, capsys):
    folder = build / "tiny" / "ulx3s-85f"
    for name in ("top.bit", "model.img"):
        (folder / name).rename(build / name)
    files = ["--bitstream", f"{build}/top.bit", "--image-file", f"{build}/model.img"]
    out = build / "x.bin"
    assert cli.main(["flash", "--board", "ulx3s-85f", *files, "-o", str(out)]) == 0
    assert out.read_bytes()[IMAGE_OFFSET:] == images["ulx3s-85f"].to_bytes()


def test_a_program_that_is_not_installed(build, capsys):
    path = build / "tiny" / "ulx3s-85f" / "flash.bin"
    assert fails(capsys, *arguments(build, "ulx3s-85f")) == (
        "openFPGALoader must be installed to write the flash (Debian: apt-get install "
        f"openfpgaloader); the content is there, to be written by: {command(path)}"
    )
    assert path.exists()


def test_a_program_that_fails(build, loader, capsys):
    (loader / "status").write_text("1")
    assert cli.main(arguments(build, "ulx3s-85f")) == 1
    log = build / "tiny" / "ulx3s-85f" / "flash.log"
    assert capsys.readouterr().err.splitlines()[-1] == (
        f"rbonn: error: flash failed with status 1: Verification failed at 0 (see {log})"
    )
    assert "Writing: [====] 100.00%" in log.read_text()


def test_a_bitstream_that_is_not_there(build, capsys):
    path = build / "tiny" / "ulx3s-85f" / "top.bit"
    path.unlink()
    assert fails(capsys, *arguments(build, "ulx3s-85f")) == (
        f"Bitstream must be a readable file, not {path}: No such file or directory; "
        f"`rbonn bitstream` builds it"
    )


def test_bitstreams_that_are_not_for_this_board(build, capsys):
    path = build / "tiny" / "ulx3s-85f" / "top.bit"
    path.write_bytes(bitstream(0x41111043))
    assert fails(capsys, *arguments(build, "ulx3s-85f")) == (
        f"{path}: Bitstream must be for ulx3s-85f (IDCODE 0x41113043), not for an FPGA with "
        f"0x41111043"
    )
    path.write_bytes(b"\x7fELF")
    assert fails(capsys, *arguments(build, "ulx3s-85f")) == (
        f"{path}: Bitstream must be one of an ECP5, as ecppack writes it: build it again"
    )
    path.write_bytes(bitstream(0x41113043, IMAGE_OFFSET + 16))
    assert fails(capsys, *arguments(build, "ulx3s-85f")) == (
        "Bitstream must end before the image at 0x400000, not at 0x400010: compress it"
    )
    assert not path.with_name("flash.bin").exists()


def test_bitstreams_that_are_damaged(build, capsys):
    path = build / "tiny" / "ulx3s-85f" / "top.bit"
    raw = path.read_bytes()
    path.write_bytes(raw[:2_000])
    assert fails(capsys, *arguments(build, "ulx3s-85f")) == (
        f"{path}: Bitstream must go on to its end (ISC_PROGRAM_DONE), but is cut off after 2,000 "
        f"bytes: copy it or build it again"
    )
    path.write_bytes(bytes(flip(bytearray(raw), 2_000)))
    line = fails(capsys, *arguments(build, "ulx3s-85f"))
    assert line.startswith(f"{path}: Bitstream must have CRC-16 0x")
    assert line.endswith(": it is damaged; copy it or build it again")
    assert not path.with_name("flash.bin").exists()


def test_images_that_are_not_for_this_board(build, images, capsys):
    path = build / "tiny" / "ulx3s-85f" / "model.img"
    raw = path.read_bytes()
    for content, message in (
        (
            images["ulx3s-25f"].to_bytes(),
            f"Image must be compiled for geometry ulx3s-85f ({ULX3S_85F.digest:#010x}), not "
            f"{ULX3S_25F.digest:#010x}: compile it again for this board",
        ),
        (
            bytes(flip(bytearray(raw), len(raw) - 20)),
            "Image frame must match its CRC-32, but it is corrupt: compile it again",
        ),
        (
            bytes(flip(bytearray(raw), 0)),
            "Image must begin with 0x4e4e4252 ('RBNN'), not 0x4e4e4242",
        ),
    ):
        path.write_bytes(content)
        assert fails(capsys, *arguments(build, "ulx3s-85f")) == f"{path}: {message}"
    path.unlink()
    assert fails(capsys, *arguments(build, "ulx3s-85f")) == (
        f"Image must be a readable file, not {path}: No such file or directory"
    )
    assert not path.with_name("flash.bin").exists()


def test_wrong_options(build, capsys):
    line = fails(capsys, *arguments(build, "ulx3s-25f", "--image-file", "x.img"))
    assert line == (
        "Board ulx3s-25f must have its image in the bitstream, as it has no SDRAM: leave "
        "--image-file out"
    )
    line = fails(capsys, "flash", "--board", "ulx3s-85f", "--bitstream", "x.bit")
    assert line == "Give --model, or --bitstream and --image-file"
    assert fails(capsys, "flash", "--board", "ulx3s-25f") == "Give --model, or --bitstream"
    line = fails(capsys, *arguments(build, "tiny"))
    assert line == "Board must be one of ulx3s-25f, ulx3s-85f, not 'tiny'"
