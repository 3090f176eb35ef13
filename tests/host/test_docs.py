"""What the documents say is true: examples run, generated parts are fresh, links lead somewhere."""

import doctest
import re
from pathlib import Path

import pytest

from host import contract
from host.cli import COMMANDS, build_parser

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def test_the_worked_example_is_true():
    result = doctest.testfile(str(ROOT / "docs" / "arithmetic.md"), module_relative=False)
    assert result.attempted > 15
    assert result.failed == 0


def test_the_contract_is_fresh():
    assert contract.PATH.read_text() == contract.generate(), (
        "docs/contract.md must be generated again: python -m host.contract"
    )


def test_a_stale_contract_is_noticed(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(contract, "PATH", tmp_path / "contract.md")
    assert contract.main(["--check"]) == 1
    assert "must be generated again: python -m host.contract" in capsys.readouterr().err
    assert contract.main([]) == 0
    assert contract.main(["--check"]) == 0
    (tmp_path / "contract.md").write_text("old")
    assert contract.main(["--check"]) == 1


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(path):
    text = re.sub(r"```.*?```", "", path.read_text(), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
        if not target.startswith(("http://", "https://")):
            assert (path.parent / target).exists(), f"{path.name} links to {target}"


def test_files_that_documents_name_exist():
    """Paths in backquotes that begin with one of our folders."""
    folders = "isa|hw|sim|host|compiler|rbonn_train|models|tests|docs"
    for path in DOCUMENTS:
        for target in re.findall(rf"`((?:{folders})/[\w./*-]+)`", path.read_text()):
            if "NAME" not in target:
                assert list(ROOT.glob(target.rstrip("/"))), f"{path.name} names {target}"


def test_the_readme_shows_every_command():
    text = (ROOT / "README.md").read_text()
    for command in COMMANDS:
        assert f"rbonn {command}" in text


def test_options_in_the_documents_exist():
    """Every `rbonn COMMAND --option` of the documents is one that the parser knows."""
    choices = next(action.choices for action in build_parser()._actions if action.dest == "command")
    for path in DOCUMENTS:
        for line in path.read_text().splitlines():
            for command, rest in re.findall(r"rbonn (\w+)((?: [^`|#]*)?)", line):
                if command in COMMANDS:
                    known = choices[command]._option_string_actions
                    for option in re.findall(r"(?<!\S)--[a-z][a-z-]*", rest):
                        assert option in known, f"{path.name}: rbonn {command} {option}"
