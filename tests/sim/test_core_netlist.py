"""The core after synthesis for the ECP5, cell by cell, on an image: equal to the golden model."""

import numpy as np

from compiler.pipeline import compile_tensors
from isa.geometry import TINY
from sim.core_build import DESIGN, elaborate
from sim.netlist import cell_models, synthesise
from sim.runner import simulate
from tests.networks import random_checkpoint, random_frames, small_network


def test_netlist_equals_golden(tmp_path):
    """Block RAM, multipliers and distributed RAM included. Icarus: compiling takes no time, and an
    unknown value that matters does not go unseen."""
    netlist = tmp_path / "netlist.v"
    cells = synthesise(elaborate(TINY), DESIGN, netlist)
    assert {"DP16KD", "MULT18X18D", "TRELLIS_DPR16X4", "CCU2C"} <= set(cells)
    network = small_network("one-pixel")
    image = compile_tensors(*random_checkpoint(network), TINY, verify=False).image
    frames = random_frames(network, 1)
    files = [netlist, *cell_models(tmp_path)]
    mapped = simulate(TINY, image, frames, simulator="icarus", netlist=files)
    assert mapped.first is None
    assert mapped.mismatches == 0
    written = simulate(TINY, image, frames)
    assert mapped.cycles == written.cycles
    assert np.array_equal(mapped.logits, written.logits)
