"""The driver against the gateware: loads, classifies, meets errors and recovers from them."""

import json

import numpy as np
import pytest

from compiler.pipeline import compile_tensors
from host.device import EXPLANATIONS
from isa.geometry import TINY
from isa.registers import ErrorCode
from sim.golden import Golden
from sim.runner import core_build
from tests.networks import random_checkpoint, random_frames, small_network

NETWORK = small_network("plain")


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    folder = tmp_path_factory.mktemp("driver")
    image = compile_tensors(*random_checkpoint(NETWORK), TINY).image
    frames = random_frames(NETWORK, 3)
    (folder / "net.img").write_bytes(image.to_bytes())
    np.save(folder / "frames.npy", frames)
    core_build(TINY, "verilator").run(
        "tests.host.cocotb_driver",
        results=folder,
        env={
            "DRIVER_IMAGE": str(folder / "net.img"),
            "DRIVER_FRAMES": str(folder / "frames.npy"),
            "DRIVER_REPORT": str(folder / "report.json"),
        },
        timeout_s=300,
    )
    found = json.loads((folder / "report.json").read_text())
    found["expected"] = Golden(TINY, image).run_batch(frames).tolist()
    return found


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


def test_a_damaged_image_is_refused(report):
    assert report["damaged"].startswith("Device reports an error: ")
    assert report["damaged"].endswith(("(FRAME_CRC)", "(PACKET)"))


def test_the_link_as_source(report):
    check(report["link"][0], report["expected"][2])
    check(report["link"][1], report["expected"][0])
