"""The floorplan of the 85F: real sites, none twice, pairs side by side; and how it gets there."""

import json
import re
from dataclasses import replace

import pytest

from hw.boards import get_board
from hw.floorplan import multiplier_sites, residual_sites
from hw.synth import fix_sites
from hw.tools import BuildError
from hw.top import Top
from isa.geometry import TINY, ULX3S_25F, ULX3S_85F


def place(site):
    column, row, number = map(int, re.fullmatch(r"X(\d+)/Y(\d+)/MULT18_(\d)", site).groups())
    return row, column, number


def test_every_multiplier_has_a_site_of_its_own():
    sites = multiplier_sites(ULX3S_85F)
    assert len(sites) == 2 * ULX3S_85F.lanes + 2 * ULX3S_85F.post_lanes
    assert len(set(sites.values())) == len(sites)
    for site in sites.values():
        row, column, number = place(site)
        # As Trellis knows the LFE5U-85F: blocks of nine columns, with a gap in the middle.
        assert row in (10, 34, 58)
        assert number in (0, 1, 4, 5)
        left = column - number
        assert (left in range(4, 59, 9)) or (left in range(69, 115, 9))


def test_the_two_of_a_lane_are_neighbours():
    sites = multiplier_sites(ULX3S_85F)
    for lane in range(ULX3S_85F.lanes):
        first, second = (
            place(sites[f"accelerator.core.mac.dot_{lane}.product_{tap}.block"]) for tap in (0, 1)
        )
        assert first[0] == second[0]
        assert second[1] == first[1] + 1


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError) as caught:
        multiplier_sites(replace(ULX3S_85F, name="wide", lanes=128, word_bits=128, port_bits=1024))
    assert str(caught.value) == (
        "Floorplan must be asked for lanes of 2 taps, at most 64 of them and 8 post lanes, "
        "not 128 of 2 taps and 8 post lanes"
    )
    with pytest.raises(ValueError, match=f"not {TINY.lanes} of {TINY.taps} taps"):
        multiplier_sites(TINY)


def test_a_bank_of_the_residual_map_has_a_column():
    sites = residual_sites(ULX3S_85F)
    assert len(set(sites.values())) == len(sites) == 4 * (12 * 2 + 1)  # the last bank has 512 words
    columns = {}
    for name, site in sites.items():
        bank, part, block = map(int, re.search(r"bank(\d+)_(\d)\.0\.(\d)$", name).groups())
        column, row, number = map(int, re.fullmatch(r"X(\d+)/Y(\d+)/EBR(\d)", site).groups())
        assert row == (22, 46)[block]
        # Four blocks of memory between two columns of multipliers.
        left = column - 2 * number
        assert (left in range(4, 59, 9)) or (left in range(69, 115, 9))
        assert columns.setdefault(column, (part, bank)) == (part, bank)
    assert sorted(columns.values()) == [columns[column] for column in sorted(columns)]


def test_a_residual_map_that_is_too_large_is_refused():
    with pytest.raises(ValueError) as caught:
        residual_sites(replace(ULX3S_85F, name="deep", residual_words=14 * 2048))
    assert str(caught.value) == (
        "Floorplan must be asked for a residual map of at most 52 banks in all parts, "
        "not 4 times 14"
    )


def test_only_the_large_board_has_one():
    for name, geometry, count in (("ulx3s-25f", ULX3S_25F, 0), ("ulx3s-85f", ULX3S_85F, 244)):
        assert len(Top(board=get_board(name), geometry=geometry).sites) == count


def test_sites_go_into_the_netlist(tmp_path):
    netlist = tmp_path / "top.json"
    cell = {"type": "MULT18X18D", "attributes": {"src": "x"}}
    netlist.write_text(json.dumps({"modules": {"top": {"cells": {"a": cell, "b": cell}}}}))
    fix_sites(netlist, {"a": "X4/Y10/MULT18_0"})
    cells = json.loads(netlist.read_text())["modules"]["top"]["cells"]
    assert cells["a"]["attributes"] == {"src": "x", "BEL": "X4/Y10/MULT18_0"}
    assert cells["b"] == cell
    before = netlist.read_text()
    with pytest.raises(BuildError) as caught:
        fix_sites(netlist, {"a": "X4/Y10/MULT18_0", "c": "X5/Y10/MULT18_1"})
    assert str(caught.value) == (
        f"netlist {netlist} must have the cell c that X5/Y10/MULT18_1 is meant for"
    )
    assert netlist.read_text() == before
