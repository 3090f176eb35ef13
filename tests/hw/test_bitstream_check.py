"""The check of a bitstream: what ecppack makes is accepted; nothing cut off or changed is."""

import random

import pytest

from hw.bitstream import pack
from hw.bitstream_check import check_bitstream
from hw.tools import run_tool, yowasp_command
from tests.bitstreams import bitstream

LFE5U_25F = 0x41111043
END = "Bitstream must go on to its end (ISC_PROGRAM_DONE), but is cut off after {:,} bytes: {}"
ADVICE = "copy it or build it again"
DAMAGED = "Bitstream must have {} at byte {:,}: it is damaged; {}"


def refusal(raw):
    with pytest.raises(ValueError) as error:
        check_bitstream(bytes(raw))
    return str(error.value)


@pytest.fixture(scope="module", params=["25F", "85F"])
def packed(request, tmp_path_factory):
    """What ecppack makes of a configuration with some memory, compressed and not."""
    folder = tmp_path_factory.mktemp("packed")
    memory = "\n".join(["1ff 0a5 " * 4] * 256)
    memories = "".join(f".bram_init {number}\n{memory}\n\n" for number in range(3))
    config = folder / "top.config"
    config.write_text(f".device LFE5U-{request.param}\n\n{memories}")
    compressed = pack(config, log=folder / "log").read_bytes()
    command = [*yowasp_command("ecppack"), "--input", config.name, "--bit", "plain.bit"]
    run_tool("pack", command, log=folder / "log", cwd=folder)
    return compressed, (folder / "plain.bit").read_bytes()


def test_what_ecppack_makes_is_whole(packed):
    for raw in packed:
        check_bitstream(raw)


def test_what_ecppack_makes_is_protected(packed):
    luck = random.Random(3)
    for raw in packed:
        begin = raw.index(b"\xff\xff\xbd\xb3")
        for _ in range(4):
            position = luck.randrange(begin, len(raw))
            changed = bytearray(raw)
            changed[position] ^= 1 << luck.randrange(8)
            refusal(changed)
            assert refusal(raw[:position]).endswith(f"cut off after {position:,} bytes: {ADVICE}")


RAW = bitstream(LFE5U_25F, 0)  # ends with ISC_PROGRAM_DONE


def test_the_end():
    check_bitstream(RAW + b"\xff" * 4)
    check_bitstream(RAW + b"\xff" * 100)
    for size in range(len(RAW) + 4):
        assert refusal((RAW + b"\xff" * 4)[:size]) == END.format(size, ADVICE)
    assert refusal(RAW + b"\xff\xff\xff\xff\0") == DAMAGED.format(
        "only dummies behind its end", len(RAW), ADVICE
    )


def test_no_bit_may_change():
    whole = RAW + b"\xff" * 4
    for position in range(RAW.index(b"\xff\xff\xbd\xb3"), len(whole)):
        if not 120 < position < 2_400:  # a block RAM
            for bit in range(8):
                changed = bytearray(whole)
                changed[position] ^= 1 << bit
                refusal(changed)


def test_what_is_damaged_is_named():
    begin = RAW.index(b"\x3b\0\0\0") + 4
    crc = begin + 20 + 12 + 4 + 10
    changed = bytearray(RAW + b"\xff" * 4)
    changed[crc] ^= 0x10
    expected, found = RAW[crc : crc + 2].hex(), changed[crc : crc + 2].hex()
    assert refusal(changed) == DAMAGED.format(f"CRC-16 0x{expected}, not 0x{found},", crc, ADVICE)
    changed = bytearray(RAW + b"\xff" * 4)
    changed[begin] = 0x77
    assert refusal(changed) == DAMAGED.format(
        "only commands that ecppack writes, not 0x77,", begin, ADVICE
    )
    changed[begin] = 0xE2
    changed[begin + 7] = 0x44
    assert refusal(changed) == DAMAGED.format(
        "the IDCODE of an FPGA of ours before its frames", begin + 36, ADVICE
    )
    changed = bytearray(RAW + b"\xff" * 4)
    changed[-5] = 1
    assert refusal(changed) == DAMAGED.format("DONE without information", len(RAW) - 4, ADVICE)
