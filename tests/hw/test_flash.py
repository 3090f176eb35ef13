# amaranth: UnusedElaboratable=no
"""Reading and copying the flash against a model of the chip, and the model against its rules."""

import dataclasses
import json
import random

import pytest

from hw.flash import FAST_READ, FlashCopier, FlashReader
from isa.flash import IMAGE_OFFSET
from isa.geometry import TINY
from isa.image import HEADER_WORDS, MAGIC, words_to_bytes
from sim.harness import MODELS
from sim.simulator import SimulationError, build
from sim.verilog import to_verilog
from tests.geometries import TINY_SDRAM

HERE = MODELS.parents[1] / "tests" / "hw"
SMALL = dataclasses.replace(TINY_SDRAM, sdram_bytes=2048)
MOST = SMALL.sdram_image_words - HEADER_WORDS  # of a frame section
COPIER_PORTS = [
    "clk", "rst", "reset", "memory_ready", "memory_fault", "claim", "host__valid", "host__ready",
    "host__address", "host__data", "write__valid", "write__ready", "write__address",
    "write__data", "copying", "copied", "selected",
]  # fmt: skip
#: Picoseconds of the core's cycle: 60, 80 and 100 MHz.
CORE_PS = (16_667, 12_500, 10_000)


def bench(folder, simulator="verilator"):
    design = folder / "copier.v"
    design.write_text(to_verilog(FlashCopier(geometry=SMALL), "flash_copier"))
    sources = [design, HERE / "flash_bench.v", MODELS / "flash.v"]
    return build(sources, "flash_bench", COPIER_PORTS, simulator=simulator)


@pytest.fixture(scope="module")
def copier(tmp_path_factory):
    return bench(tmp_path_factory.mktemp("copier"))


def made_up(frame_words, *, magic=MAGIC, count=None, seed=1):
    """Words like an image's: a header that says `frame_words`, and `count` words altogether."""
    luck = random.Random(seed)
    count = HEADER_WORDS + frame_words if count is None else count
    words = [luck.getrandbits(32) for _ in range(count)]
    words[0], words[3] = magic, frame_words
    return words


def run(built, folder, test, *, words=None, core_ps=CORE_PS[2], offset=IMAGE_OFFSET, **options):
    """Runs a test of the bench with `words` in the flash, from byte `offset` on."""
    result = folder / "result.json"
    plusargs = [f"+core_ps={core_ps}"]
    if words is not None:
        content = folder / "flash.bin"
        with content.open("wb") as file:
            file.seek(offset)
            file.write(words_to_bytes(words))
        plusargs.append(f"+flash={content}")
    built.run(
        "tests.hw.cocotb_flash",
        results=folder,
        testcase=test,
        env={"FLASH_OPTIONS": json.dumps({**options, "result": str(result)})},
        plusargs=plusargs,
        timeout_s=120,
    )
    return json.loads(result.read_text()) if result.is_file() else None


def copies(built, folder, scenarios, **options):
    return run(built, folder, "copies", scenarios=scenarios, **options)


def addressed(words):
    return [list(pair) for pair in enumerate(words)]


@pytest.mark.parametrize("core_ps", CORE_PS)
def test_copies_header_and_frame_section(tmp_path, copier, core_ps):
    words = made_up(100, count=150)  # what follows is not part of it
    scenarios = [{"stalls": kind} for kind in ("none", "light", "heavy", "long")]
    results = copies(copier, tmp_path, scenarios, words=words, core_ps=core_ps)
    length = HEADER_WORDS + 100
    assert len(results) == len(scenarios)
    for result in results:
        assert (result["written"], result["copied"]) == (addressed(words[:length]), 1)
    assert 64 * length < results[0]["cycles"] < 64 * length + 100
    assert results[3]["cycles"] > 1.3 * results[0]["cycles"]


def test_on_icarus(tmp_path):
    words = made_up(20)
    results = copies(bench(tmp_path, "icarus"), tmp_path, [{"stalls": "long"}], words=words)
    assert [(x["written"], x["copied"]) for x in results] == [(addressed(words), 1)]


@pytest.mark.parametrize("magic", [None, MAGIC ^ 1 << 31], ids=["erased", "other"])
def test_without_the_magic_word_nothing_is_copied(tmp_path, copier, magic):
    words = None if magic is None else made_up(20, magic=magic)
    scenarios = [{}, {"stalls": "heavy"}]
    for result in copies(copier, tmp_path, scenarios, words=words):
        assert (result["written"], result["copied"]) == ([], 0)
        assert result["cycles"] < 200


@pytest.mark.parametrize("frame_words", [0, MOST, MOST + 1, 0xFFFF_FFFF])
def test_a_length_that_cannot_be_is_not_followed(tmp_path, copier, frame_words):
    """The check will find the fault; only what is possible is copied before."""
    words = made_up(frame_words, count=HEADER_WORDS + MOST + 1)
    copied = HEADER_WORDS + (frame_words if frame_words <= MOST else 0)
    (result,) = copies(copier, tmp_path, [{}], words=words)
    assert (result["written"], result["copied"]) == (addressed(words[:copied]), 1)


def test_a_memory_with_a_fault_gets_nothing(tmp_path, copier):
    scenarios = [{"fault": "early"}, {"fault": "late"}]
    for result in copies(copier, tmp_path, scenarios, words=made_up(10)):
        assert (result["written"], result["copied"]) == ([], 0)
        assert result["cycles"] < 5


def test_a_host_that_takes_over_is_left_alone(tmp_path, copier):
    """The bench checks that only the host writes from then on, and that the chip is deselected."""
    words = made_up(10)
    moments = (0, 1, 2, 3, 4, 50, 81, 82, *range(140, 156), 500, 1001)
    scenarios = [
        {"claim_at": moment, "stalls": stalls} for moment in moments for stalls in ("none", "heavy")
    ]
    results = copies(copier, tmp_path, scenarios, words=words)
    for scenario, result in zip(scenarios, results, strict=True):
        moment, taken = scenario["claim_at"], len(result["written"])
        assert (result["copied"], result["cycles"]) == (0, moment + 1)
        assert result["written"] == addressed(words)[:taken]
        assert (moment - 155) // 64 <= taken <= moment // 64


# --- the model ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def chip(tmp_path_factory):
    sources = [HERE / "flash_rules.v", MODELS / "flash.v"]
    return build(sources, "flash_rules", ["sck", "cs", "copi", "cipo"])


@pytest.mark.parametrize(("opcode", "dummies"), [(0x03, 0), (FAST_READ, 1)])
def test_the_chip_reads_from_any_address(tmp_path, chip, opcode, dummies):
    words = made_up(0, count=4)
    content = {10 + place: byte for place, byte in enumerate(words_to_bytes(words))}
    reads = [(10, 16), (13, 2), (20, 8), (7, 4), (0xFFFFFF, 3), (0x400000, 1)]
    result = run(
        chip, tmp_path, "read", words=words, offset=10, opcode=opcode, dummies=dummies, reads=reads
    )
    # What is before the words is a hole in the file: zeros.
    for (address, count), found in zip(reads, result, strict=True):
        places = [(address + i) % (1 << 24) for i in range(count)]
        assert found == [content.get(place, 0 if place < 10 else 0xFF) for place in places]


def clocked(byte):
    """A byte on the pins, with a period of 40 ns."""
    bits = [byte >> bit & 1 for bit in reversed(range(8))]
    return [
        step for bit in bits for step in ((0, {"copi": bit}), (20, {"sck": 1}), (20, {"sck": 0}))
    ]


RULES = {
    "selected while the clock is high": [(1, {"sck": 1}), (30, {"cs": 1})],
    "deselected too soon": [(1, {"cs": 1}), (30, {"sck": 1}), (4, {"cs": 0})],
    "selected too soon": [(1, {"cs": 1}), (30, {"cs": 0}), (99, {"cs": 1})],
    "clocked too soon": [(1, {"cs": 1}), (4, {"sck": 1})],
    "data must be held": [(1, {"cs": 1}), (9, {"sck": 1}), (2, {"copi": 1})],
    "data must be there": [(1, {"cs": 1}), (9, {"copi": 1}), (1, {"sck": 1})],
    "the clock is too fast": [(1, {"cs": 1}), (9, {"sck": 1}), (9, {"sck": 0}), (10, {"sck": 1})],
    "unknown command": [(1, {"cs": 1}), *clocked(0x05)],
}  # fmt: skip


@pytest.mark.parametrize("rule", RULES)
def test_the_chip_complains(tmp_path, chip, rule):
    with pytest.raises(SimulationError, match=f"Error: flash at [0-9]+: .*{rule}"):
        run(chip, tmp_path, "rule", script=RULES[rule])


def test_the_chip_accepts_what_is_just_in_time(tmp_path, chip):
    script = [
        (1, {"cs": 1}), (5, {"sck": 1}), (3, {"copi": 1}), (7, {"sck": 0}), (10, {"sck": 1}),
        (3, {"copi": 0}), (2, {"cs": 0}), (5, {"sck": 0}), (95, {"cs": 1}), *clocked(0x03),
    ]  # fmt: skip
    run(chip, tmp_path, "rule", script=script)


def test_a_clock_that_is_too_fast_is_caught(tmp_path, copier):
    with pytest.raises(SimulationError, match="the clock is too fast"):
        copies(copier, tmp_path, [{}], words=made_up(10), core_ps=9_900)


# --- parameters --------------------------------------------------------------------------------


@pytest.mark.parametrize("offset", [-1, 1 << 24, 0.0])
def test_offset_is_checked(offset):
    with pytest.raises(ValueError) as caught:
        FlashReader(offset=offset)
    assert str(caught.value) == f"Flash reader offset must be in 0..16777215, not {offset!r}"


def test_a_geometry_without_an_sdram_is_refused():
    with pytest.raises(ValueError) as caught:
        FlashCopier(geometry=TINY)
    assert str(caught.value) == ("Flash copier geometry must have an SDRAM to copy to, not 'tiny'")
