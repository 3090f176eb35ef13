"""What a simulation reads: the words on the bus, the SDRAM's first content, and the job."""

import numpy as np

from compiler.pipeline import compile_tensors
from isa.registers import Source
from sim.session import Job
from sim.surroundings import Flash, Stalls, Surroundings, beats_as_hex
from tests.geometries import TINY_SDRAM
from tests.networks import random_checkpoint, random_frames, small_network

NETWORK = small_network("plain")
FRAMES = random_frames(NETWORK, 2)


def prepared(folder, **options):
    image = compile_tensors(*random_checkpoint(NETWORK), TINY_SDRAM, verify=False).image
    return image, Surroundings(**options).prepare(folder, TINY_SDRAM, image, FRAMES)


def test_beats_of_an_image():
    assert beats_as_hex(np.array([0x12345678, 0x9ABC0001])) == b"5678\n1234\n0001\n9abc\n"


def test_words_on_the_bus(tmp_path):
    image, plusargs = prepared(tmp_path, source=Source.LINK)
    words = np.fromfile(plusargs["feed"], ">u4")
    assert words[: len(image.words)].tolist() == image.words
    assert words[len(image.words) :].astype("<u4").tobytes() == FRAMES.tobytes()
    job = Job.read(plusargs["job"])
    assert (job.image_words, job.frames, job.frame_words) == (len(image.words), 2, 16)
    assert job.load_words == 0


def test_an_image_in_sdram_is_there_but_for_what_the_test_overwrites(tmp_path):
    image, plusargs = prepared(tmp_path, source=Source.SDRAM, faults={"stuck_data": 3})
    assert plusargs["sdram"].read_bytes() == beats_as_hex(np.array(image.words))
    assert Job.read(plusargs["job"]).load_words == 64
    assert plusargs["stuck_data"] == 3


def test_an_image_in_flash_is_nowhere_else(tmp_path):
    image, plusargs = prepared(tmp_path, source=Source.SDRAM, flash=Flash(b"x"))
    assert "sdram" not in plusargs
    assert plusargs["flash"].read_bytes() == b"x"
    job = Job.read(plusargs["job"])
    assert (job.load_words, job.startup) == (len(image.words), True)


def test_stalls(tmp_path):
    stalls = Stalls("heavy", 5, late_input=True)
    _, plusargs = prepared(tmp_path, source=Source.SDRAM, stalls=stalls)
    assert (plusargs["feed_gaps"], plusargs["pauses"]) == (179, 800)
    assert (plusargs["feed_seed"], plusargs["pause_seed"]) == (5, 5)
    job = Job.read(plusargs["job"])
    assert (job.stalls, job.seed, job.late_input) == ("heavy", 5, True)
