"""`rbonn run --backend serial:PORT`, against a stand-in behind a pseudo-terminal."""

import json
import time

import numpy as np
import pytest

from compiler.pipeline import compile_tensors
from host import cli
from isa import checked
from isa.geometry import TINY, ULX3S_25F, ULX3S_85F
from isa.registers import MEMORY, Register
from sim.golden import Golden
from tests.host.serial_device import SerialDevice
from tests.networks import random_checkpoint, random_frames, small_network

NETWORK = small_network("not-square")
FRAMES = random_frames(NETWORK, 3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """An image for a geometry that is a board's, and frames for it."""
    path = tmp_path_factory.mktemp("serial")
    image = compile_tensors(*random_checkpoint(NETWORK), ULX3S_25F).image
    (path / "net.img").write_bytes(image.to_bytes())
    np.savez(path / "frames.npz", images=FRAMES)
    (path / "expected.json").write_text(
        json.dumps(Golden(ULX3S_25F, image).run_batch(FRAMES).tolist())
    )
    return path


def run(folder, port, image="net.img"):
    return cli.main(
        [
            *("run", "--image-file", f"{folder}/{image}", "--images", f"{folder}/frames.npz"),
            *("--backend", f"serial:{port}", "--json", f"{folder}/out.json"),
        ]
    )


def error(capsys):
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    return lines[0].removeprefix("rbonn: error: ")


def test_the_same_integers_as_golden(folder):
    with SerialDevice(ULX3S_25F) as device:
        assert run(folder, device.name) == 0
        # A second program finds the device as the first one has left it.
        assert run(folder, device.name) == 0
    result = json.loads((folder / "out.json").read_text())
    assert result["logits"] == json.loads((folder / "expected.json").read_text())


def test_a_broken_sdram_is_reported(folder, capsys):
    image = compile_tensors(*random_checkpoint(NETWORK), ULX3S_85F).image
    (folder / "large.img").write_bytes(image.to_bytes())
    with SerialDevice(ULX3S_85F) as device:
        fields = {"present": 1, "ready": 1, "fault": 1, "fault_address": 0x123}
        broken = checked.encode(MEMORY, dict.fromkeys(MEMORY.members, 0) | fields)
        device.transport._registers[Register.MEMORY] = broken
        assert run(folder, device.name, "large.img") == 1
    assert error(capsys) == (
        "Device must have an SDRAM that keeps what is written: the 16 bytes at 0x1230 did not"
    )


def test_absent_port(folder, capsys):
    assert run(folder, "/dev/no-such-port") == 1
    line = error(capsys)
    assert line.startswith("Serial port must exist, be accessible and take 3000000 baud, not ")
    assert "/dev/no-such-port" in line


def test_a_device_that_stops_answering_in_a_frame(folder, capsys):
    (folder / "out.json").unlink(missing_ok=True)
    with SerialDevice(ULX3S_25F, silent_after=2) as device:
        start = time.monotonic()
        assert run(folder, device.name) == 1
        assert time.monotonic() - start < 15
    line = error(capsys)
    assert line.startswith("frames.npz[1]: Device must answer within 0.5 s, not stay silent")
    assert not (folder / "out.json").exists()


def test_nobody_answers(folder, capsys):
    with SerialDevice(ULX3S_25F, silent_after=0) as device:
        assert run(folder, device.name) == 1
    assert error(capsys).startswith("Device must answer within 0.5 s, not stay silent: check cable")


def test_another_board(folder, capsys):
    with SerialDevice(TINY) as device:
        assert run(folder, device.name) == 1
    assert error(capsys) == (
        f"Device must have the geometry ulx3s-25f ({ULX3S_25F.digest:#010x}), not tiny "
        f"({TINY.digest:#010x})"
    )
