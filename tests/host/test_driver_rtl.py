"""The driver against the gateware: loads, classifies, meets errors and recovers from them."""

import json

import numpy as np
import pytest

from compiler.pipeline import compile_tensors
from host.device_errors import EXPLANATIONS
from isa.flash import combine
from isa.geometry import TINY
from isa.registers import ErrorCode
from sim.core_build import core_build
from sim.golden import Golden
from tests.geometries import TINY_SDRAM
from tests.networks import random_checkpoint, random_frames, small_network

NETWORK = small_network("plain")


def run(folder, geometry, test, frames, flash=None, faults=()):
    """What the driver's bench reports, and the logits that are right; `flash`: of the image.
    `faults`: plus-args of the SDRAM's model."""
    image = compile_tensors(*random_checkpoint(NETWORK), geometry).image
    (folder / "net.img").write_bytes(image.to_bytes())
    np.save(folder / "frames.npy", frames)
    if flash is not None:
        (folder / "flash.bin").write_bytes(combine(geometry, b"", flash(image.to_bytes())))
    core_build(geometry, "verilator").run(
        "tests.host.cocotb_driver",
        testcase=test,
        results=folder,
        env={
            "DRIVER_IMAGE": str(folder / "net.img"),
            "DRIVER_FRAMES": str(folder / "frames.npy"),
            "DRIVER_REPORT": str(folder / "report.json"),
        },
        plusargs=[*faults, *([] if flash is None else [f"+flash={folder / 'flash.bin'}"])],
        timeout_s=300,
    )
    found = json.loads((folder / "report.json").read_text())
    found["expected"] = Golden(geometry, image).run_batch(frames).tolist()
    return found, image


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    return run(tmp_path_factory.mktemp("driver"), TINY, "driver", random_frames(NETWORK, 3))[0]


def check(found, logits):
    order = sorted(range(len(logits)), key=lambda c: (-logits[c], c))[: TINY.top_k]
    assert found["logits"] == logits
    assert found["top"] == [[c, logits[c]] for c in order]
    assert found["cycles"] > 1000


def test_frames(report):
    assert report["geometry"] == "tiny"
    for found, logits in zip(report["ram"], report["expected"], strict=False):
        check(found, logits)


def test_lost_input_is_tried_again(report):
    check(report["retried"], report["expected"][2])


def test_lost_input_is_explained_and_the_next_frame_works(report):
    text = EXPLANATIONS[ErrorCode.WATCHDOG]
    assert report["lost"] == f"Device reports an error: {text} (WATCHDOG)"
    check(report["after"], report["expected"][1])


def test_a_host_that_goes_in_the_middle_of_a_frame(report):
    """The next one reads why its frame was aborted, and goes on; the image is still there."""
    assert report["gone"] == ["RUNNING", "ERROR", "WATCHDOG"]
    check(report["after gone"], report["expected"][2])
    assert report["sent again"] == 0


def test_a_damaged_image_is_refused(report):
    assert report["damaged"].startswith("Device reports an error: ")
    assert report["damaged"].endswith(("(FRAME_CRC)", "(PACKET)"))


def test_the_link_as_source(report):
    check(report["link"][0], report["expected"][2])
    check(report["link"][1], report["expected"][0])


@pytest.fixture(scope="module")
def with_sdram(tmp_path_factory):
    folder, frames = tmp_path_factory.mktemp("sdram"), random_frames(NETWORK, 3)
    return run(folder, TINY_SDRAM, "driver_with_sdram", frames)[0]


def test_frames_in_an_sdram(with_sdram):
    assert with_sdram["all"] == with_sdram["batch"] == with_sdram["expected"]


def test_an_image_for_another_geometry(with_sdram):
    assert with_sdram["foreign"] == "FOREIGN_GEOMETRY"
    assert with_sdram["after foreign"] == with_sdram["expected"][1]


def test_a_host_that_is_unplugged_while_it_sends_ahead(with_sdram):
    """What it had sent is not in the next host's frame; the image is still there."""
    assert with_sdram["unplugged"] == "unplugged"
    assert with_sdram["after unplugged"] == with_sdram["expected"][0]
    assert with_sdram["sent again"] == 0


def test_pixels_lost_on_their_way_to_an_sdram(with_sdram):
    text = EXPLANATIONS[ErrorCode.WATCHDOG]
    assert with_sdram["lost"] == f"Device reports an error: {text} (WATCHDOG)"
    assert with_sdram["after lost"] == with_sdram["expected"]


def test_a_host_that_goes_in_the_middle_of_a_frame_in_an_sdram(with_sdram):
    assert with_sdram["gone"] == ["RUNNING", "ERROR", "WATCHDOG"]
    assert with_sdram["after gone"] == with_sdram["expected"][1:]
    assert with_sdram["gone, sent again"] == 0


@pytest.mark.parametrize(
    ("fault", "where"),
    [
        ("+stuck_data=7", "0x0"),  # a data pin
        ("+stuck_address=3", "0x0"),  # an address pin: two bursts are one
        ("+stuck_cell=2b", "0x50"),  # one bit in the sixth burst
    ],
)
def test_a_fault_of_the_sdram_is_found_at_the_start(tmp_path, fault, where):
    frames = random_frames(NETWORK, 1)
    found, _ = run(tmp_path, TINY_SDRAM, "driver_with_sdram", frames, faults=[fault])
    assert found["fault"] == (
        f"Device must have an SDRAM that keeps what is written: the 16 bytes at {where} did not"
    )


@pytest.mark.parametrize("damaged", [False, True], ids=["good", "damaged"])
def test_an_image_in_the_flash_is_sent_only_if_it_is_not_good(tmp_path, damaged):
    def flash(raw):
        return raw[:200] + bytes([raw[200] ^ damaged]) + raw[201:]

    found, image = run(tmp_path, TINY_SDRAM, "driver_with_flash", random_frames(NETWORK, 1), flash)
    assert found["sent"] == (len(image.words) if damaged else 0)
    assert [found["logits"]] == found["expected"]
