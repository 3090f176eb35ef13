"""Imports between the folders only point down: the floors of the architecture, checked."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAY_IMPORT = {
    "isa": set(),
    "hw": {"isa"},
    "compiler": {"isa"},
    "rbonn_train": {"isa"},
    "sim": {"isa", "hw", "compiler", "rbonn_train"},
    "host": {"isa", "hw", "compiler", "rbonn_train", "sim"},
}


def imported_packages(source):
    """(top-level package, line) of every absolute import, inside functions too."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name.partition(".")[0], node.lineno
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.module.partition(".")[0], node.lineno


def violations(floor, source, name):
    allowed = MAY_IMPORT[floor] | {floor}
    return [
        f"{name}:{line} imports {package}"
        for package, line in imported_packages(source)
        if package in {*MAY_IMPORT, "tests"} and package not in allowed
    ]


@pytest.mark.parametrize("floor", MAY_IMPORT)
def test_imports_only_point_down(floor):
    found = []
    for path in sorted((ROOT / floor).rglob("*.py")):
        found += violations(floor, path.read_text(), path.relative_to(ROOT))
    assert not found


def test_every_folder_with_code_is_a_floor():
    outside = {"tests", "docs", "models", "build"}
    folders = {path.parent.name for path in ROOT.glob("[a-z]*/*.py")}
    assert folders - outside <= set(MAY_IMPORT)


def test_the_check_sees_what_is_forbidden():
    source = "import numpy\ndef f():\n    from host.device import Device\nimport isa.bits\n"
    assert violations("compiler", source, "x.py") == ["x.py:3 imports host"]
    assert violations("isa", "import rbonn_train.data as d", "y.py") == [
        "y.py:1 imports rbonn_train"
    ]
