"""What a component is on a board: the Verilog of its cells, executed by Icarus on their models."""

import subprocess

from amaranth.back import verilog
from amaranth.hdl import Fragment


def board_verilog(dut):
    """The module `dut`. Any platform will do: a component asks only whether there is one."""
    fragment = Fragment.get(dut, platform=object())
    ports = [value for *_, value in dut.signature.flatten(dut)]
    return verilog.convert(fragment, name="dut", ports=ports, emit_src=False)


def displayed(folder, dut_text, bench_text, models):
    """The words that the module `bench` displays."""
    (folder / "dut.v").write_text(dut_text)
    (folder / "bench.v").write_text(bench_text)
    program = folder / "bench.vvp"
    sources = [folder / "bench.v", folder / "dut.v", *models]
    subprocess.run(["iverilog", "-g2012", "-s", "bench", "-o", program, *sources], check=True)
    done = subprocess.run(["vvp", "-n", program], capture_output=True, text=True, check=True)
    return done.stdout.split()
