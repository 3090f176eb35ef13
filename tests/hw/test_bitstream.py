"""Filling the memory of a routed design: the tools on a small configuration, and a whole design."""

import random

import pytest
from amaranth.hdl import ClockDomain, Elaboratable, Module, Signal
from amaranth.lib import io
from amaranth.lib.cdc import FFSynchronizer

from hw.bitstream import SLICE_WORDS, idcode, pack, placeholder, prefill
from hw.boards import get_board
from hw.build import build_bitstream
from hw.clocking import ClockGenerator
from hw.source import RamSource
from hw.tools import BuildError, run_tool, yowasp_command
from isa.flash import IMAGE_OFFSET
from isa.image import MAGIC

BOARD = get_board("ulx3s-25f")
IMAGE = [random.Random(5).getrandbits(32) for _ in range(300)]


def block(number, words):
    """A memory of the configuration that holds 512 words of 36 bits as 2048 of nine bits."""
    nines = [f"{word >> 9 * part & 0x1FF:03x}" for word in words for part in range(4)]
    lines = [" ".join(nines[i : i + 8]) for i in range(0, len(nines), 8)]
    return "\n".join([f".bram_init {number}", *lines, "", ""])


def configuration(path, *memories):
    """A routed configuration with nothing in it but memories."""
    text = "".join(block(number, words) for number, words in enumerate(memories, start=1))
    path.write_text(f".device LFE5U-25F\n\n{text}")
    return path


def test_the_placeholder_is_always_the_same_and_no_image():
    assert placeholder(3) == placeholder(2000)[:3] == [0xF2FCC4CE, 0x73C30DFA, 0xDD5937AE]
    assert placeholder(1)[0] != MAGIC
    # What ecpbram recognises must be there once.
    words = placeholder(1 << 14)
    slices = [
        sum((word >> bit & 1) << i for i, word in enumerate(words[start : start + SLICE_WORDS]))
        for bit in range(32)
        for start in range(0, len(words), SLICE_WORDS)
    ]
    assert len(set(slices)) == len(slices)


def test_every_memory_gets_its_part_of_the_image(tmp_path):
    parts = placeholder(2 * SLICE_WORDS)
    other = [7] * SLICE_WORDS  # of another memory: stays
    routed = configuration(tmp_path / "top.config", parts[SLICE_WORDS:], other, parts[:SLICE_WORDS])
    before = routed.read_text()
    image = IMAGE * 3
    filled = prefill(routed, image, words=2 * SLICE_WORDS)
    content = [*image, *[0] * (2 * SLICE_WORDS - len(image))]
    expected = configuration(
        tmp_path / "expected.config", content[SLICE_WORDS:], other, content[:SLICE_WORDS]
    )
    assert filled == pack(expected, log=tmp_path / "log").read_bytes()
    assert filled != pack(routed, log=tmp_path / "log").read_bytes()
    assert routed.read_text() == before
    assert not list(tmp_path.glob("prefill-*"))
    assert idcode(filled) == BOARD.idcode


def test_a_placeholder_that_is_not_there_is_noticed(tmp_path):
    half = configuration(tmp_path / "top.config", placeholder(SLICE_WORDS))
    with pytest.raises(BuildError) as error:
        prefill(half, IMAGE, words=2 * SLICE_WORDS)
    assert str(error.value).startswith("prefill must change the ones in memory by ")
    assert str(error.value).endswith("configuration does not hold this memory's placeholder")
    assert not list(tmp_path.glob("prefill-*"))


def test_an_image_that_does_not_fit(tmp_path):
    with pytest.raises(BuildError) as error:
        prefill(tmp_path / "top.config", [0] * 513, words=SLICE_WORDS)
    assert str(error.value) == "prefill takes an image of at most 512 words, not 513"
    with pytest.raises(BuildError) as error:
        prefill(tmp_path / "top.config", [0], words=600)
    assert str(error.value) == ("prefill needs an image memory of a multiple of 512 words, not 600")


def test_the_largest_bitstream_ends_before_the_image(tmp_path):
    """An ECP5-85F uncompressed, and every one of its 208 block RAMs filled."""
    memory = "\n".join(["1ff " * 8] * 256)
    memories = "".join(f".bram_init {number}\n{memory}\n\n" for number in range(208))
    (tmp_path / "top.config").write_text(f".device LFE5U-85F\n\n{memories}")
    command = [*yowasp_command("ecppack"), "--input", "top.config", "--bit", "top.bit"]
    run_tool("pack", command, log=tmp_path / "log", cwd=tmp_path)
    bitstream = (tmp_path / "top.bit").read_bytes()
    assert 2_400_000 < len(bitstream) < IMAGE_OFFSET * 0.6
    assert idcode(bitstream) == get_board("ulx3s-85f").idcode


@pytest.mark.parametrize("raw", [b"", b"RBNN", b"\xff\xff\xbd\xb3" + bytes(100)])
def test_what_is_no_bitstream_has_no_idcode(raw):
    with pytest.raises(ValueError) as error:
        idcode(raw)
    assert str(error.value) == (
        "Bitstream must be one of an ECP5, as ecppack writes it: build it again"
    )


class MemoryEcho(Elaboratable):
    """Streams a `ram` source of `words` words to a pin, from a start that another pin gives."""

    def __init__(self, board, *, words, image):
        self._board = board
        self._words = words
        self._image = image

    def elaborate(self, platform):
        m = Module()
        board = self._board
        m.domains.sync = ClockDomain(reset_less=True)
        m.submodules.clocks = clocks = ClockGenerator(
            input_mhz=board.oscillator_mhz, target_mhz=board.clock_mhz
        )
        pins = platform.request("uart", 0, dir={"rx": "-", "tx": "-", "rts": "-", "dtr": "-"})
        m.submodules.clock_pin = clock_pin = io.Buffer(
            "i", platform.request(board.oscillator, dir="-")
        )
        m.submodules.rx = rx = io.Buffer("i", pins.rx)
        m.submodules.tx = tx = io.Buffer("o", pins.tx)
        m.submodules.ram = ram = RamSource(words=self._words, init=self._image)
        arrived = Signal()
        m.submodules.rx_sync = FFSynchronizer(rx.i, arrived)
        bits = Signal(32)
        m.d.comb += [
            clocks.clk_in.eq(clock_pin.i),
            ram.image.rewind.eq(arrived),
            ram.image.words.ready.eq(bits[0]),
            ram.write.valid.eq(bits[1] & arrived),
            ram.write.address.eq(bits[2:]),
            ram.write.data.eq(bits),
            tx.o.eq(bits[0]),
        ]
        m.d.sync += bits.eq(bits.rotate_right(1) ^ ram.image.words.payload)
        return m


@pytest.mark.full
def test_filling_equals_building_anew(tmp_path):
    """Banks of both depths that boards have: one of four blocks of nine bits, one of two of 18."""
    words = 3072

    def build(image):
        top = MemoryEcho(BOARD, words=words, image=image)
        return build_bitstream(top, BOARD, cache=tmp_path)

    routed = build(placeholder(words))
    assert routed.utilisation["ebr"][0] == 6
    image = [random.Random(6).getrandbits(32) for _ in range(words - 100)]
    anew = build(image)
    assert anew.digest != routed.digest
    assert prefill(routed.config, image, words=words) == anew.bitstream.read_bytes()
