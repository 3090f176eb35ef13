"""A board with an SDRAM: bytes on the line as the link really sends them, and rates."""

import os
import select

import numpy as np
import pytest

from host import cli
from host.board_sim import BoardSim, CountedTransport, board_sim, end_to_end, line_bytes
from host.errors import UserError
from host.golden_transport import GoldenTransport
from host.link import LinkTransport
from isa.geometry import TINY, ULX3S_85F
from isa.image import LAYER_WORDS, ImageInfo, Packet, PacketType, build
from isa.registers import Register
from sim.runner import SimResult
from tests.geometries import TINY_SDRAM
from tests.host.serial_device import SerialDevice

INFO = ImageInfo("x", (20, 20, 1), classes=16, layers=1, logit_exponent=0)
PACKETS = [Packet(PacketType.LAYER, [0] * LAYER_WORDS)]


class CountingPort:
    """Both directions of a terminal, counted."""

    def __init__(self, name):
        self._descriptor = os.open(name, os.O_RDWR | os.O_NOCTTY)
        self.bytes = 0

    def read(self, count, timeout):
        if not select.select([self._descriptor], [], [], timeout)[0]:
            return b""
        raw = os.read(self._descriptor, count)
        self.bytes += len(raw)
        return raw

    def write(self, raw):
        self.bytes += os.write(self._descriptor, raw)

    def close(self):
        os.close(self._descriptor)


def test_bytes_are_those_of_the_link():
    """The same accesses over a real link, byte by byte."""
    counted = CountedTransport(GoldenTransport(TINY))
    with SerialDevice(TINY) as device:
        port = CountingPort(device.name)
        with LinkTransport(port) as transport:
            transport.synchronise()
            port.bytes = 0
            for count in (1, 63, 64, 65, 200):
                for both in (transport, counted):
                    both.write(Register.INPUT, [5] * count)
                    both.write(Register.IMAGE, [7] * count)
                    both.read(Register.LOGITS, count)
    assert counted.pixels > 0
    assert counted.pixels + counted.others == port.bytes


def test_bytes_of_a_frame():
    """100 words of pixels in two requests, and 16 logits in one, besides what every frame takes."""
    batch, single = line_bytes(TINY_SDRAM, build(TINY_SDRAM, INFO, PACKETS))
    assert batch < 300
    # Of a write: 9 bytes there and 7 back; of a read: 9 there and 7 back as well.
    assert single == batch + 4 * (100 + 16) + 3 * (9 + 7)


def test_end_to_end():
    """The line or the accelerator, whichever is slower."""
    image = build(ULX3S_85F, INFO, PACKETS)
    _, count = line_bytes(ULX3S_85F, image)
    for kernel_fps in (1e6, 5.0):
        fps = round(min(3e5 / count, kernel_fps), 2)
        assert end_to_end(ULX3S_85F, image, kernel_fps) == {
            "uart_baud": 3_000_000, "bytes_per_frame": count, "fps": fps,
        }  # fmt: skip


def test_rates():
    found = BoardSim(
        cycles=1_000_000, clock_mhz=80.0, baud=3_000_000, batch_bytes=300, frame_bytes=165_000
    )
    assert found.kernel_fps == 80
    assert found.batch_fps == pytest.approx(1 / (0.0125 + 0.001))
    assert found.end_to_end_fps == pytest.approx(1 / 0.55)
    fast = BoardSim(
        cycles=1_000_000, clock_mhz=80.0, baud=3_000_000, batch_bytes=30, frame_bytes=60
    )
    assert fast.end_to_end_fps == 80


@pytest.mark.parametrize("geometry", [TINY, TINY_SDRAM], ids=lambda geometry: geometry.name)
def test_a_board_without_an_sdram_is_refused(geometry):
    with pytest.raises(UserError) as caught:
        board_sim(geometry, build(geometry, INFO, PACKETS), np.zeros((4, 20, 20, 1), np.uint8))
    assert str(caught.value) == f"Board must be one with an SDRAM, not {geometry.name}"


def simulated(**changes):
    values = {
        "logits": np.zeros((1, 10), np.int64), "top": [], "cycles": [100] * 4, "counters": [],
        "starts": [5, 205, 355, 505], "layers": 1, "layer_cycles": [], "tails": [],
        "compared_values": 5, "mismatches": 0, "differences": [], "end": 600,
    }  # fmt: skip
    return SimResult(**values | changes)


def test_command(monkeypatch, tmp_path, capsys):
    def simulate(geometry, image, frames, *, source, queued, progress):
        assert (geometry, len(frames), queued) == (ULX3S_85F, 4, True)
        progress(1000)
        return simulated()

    monkeypatch.setattr("sim.runner.simulate", simulate)
    out = tmp_path / "out.json"
    arguments = ["bench", "board-sim", "--model", "fmnist-s", "--board", "ulx3s-85f"]
    assert cli.main([*arguments, "--json", str(out)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "150 cycles from start to start" in lines[-3]
    assert lines[-2].startswith("with starts and the largest logits over the UART at 3 Mbaud: ")
    assert lines[-1].startswith("end to end, pixels over the UART as well: ")
    assert '"cycles_start_to_start": 150' in out.read_text()
    monkeypatch.setattr(
        "sim.runner.simulate", lambda *_, **__: simulated(mismatches=1, differences=["x"])
    )
    assert cli.main(arguments) == 1
    assert "must equal the golden model, but: x" in capsys.readouterr().err
