"""A tool's output is logged and passed on, and its failure becomes one line."""

import sys

import pytest

from hw.tools import BuildError, run_tool


def run(tmp_path, body, **options):
    run_tool("a stage", [sys.executable, "-c", body], log=tmp_path / "log", cwd=tmp_path, **options)


@pytest.mark.parametrize("terminal", [False, True])
def test_output_goes_to_log_and_callback(terminal, tmp_path):
    lines = []
    body = "import sys; print('one', flush=True); print('two', file=sys.stderr)"
    run(tmp_path, body, on_line=lines.append, terminal=terminal)
    assert lines == ["one", "two"]
    assert (tmp_path / "log").read_text() == "one\ntwo\n"


def test_to_a_terminal_lines_are_written_at_once(tmp_path):
    """The program waits for an answer to a line that it has not flushed."""
    body = (
        "import pathlib, time\nprint('ask')\n"
        "while not pathlib.Path('answer').exists(): time.sleep(0.01)"
    )
    lines = []

    def answer(line):
        lines.append(line)
        (tmp_path / "answer").touch()

    run(tmp_path, body, on_line=answer, terminal=True)
    assert lines == ["ask"]


@pytest.mark.parametrize("terminal", [False, True])
def test_the_first_error_is_quoted(terminal, tmp_path):
    body = "print('ERROR: bad'); print('then'); raise SystemExit(3)"
    with pytest.raises(BuildError) as error:
        run(tmp_path, body, terminal=terminal)
    assert str(error.value) == f"a stage failed with status 3: ERROR: bad (see {tmp_path / 'log'})"


def test_else_the_last_line(tmp_path):
    with pytest.raises(BuildError, match="status 2: gone"):
        run(tmp_path, "print('gone'); print(); raise SystemExit(2)")


def test_silence(tmp_path):
    with pytest.raises(BuildError, match="status 2: it said nothing"):
        run(tmp_path, "raise SystemExit(2)")


def test_a_program_that_does_not_exist(tmp_path):
    with pytest.raises(BuildError) as error:
        run_tool("a stage", ["no-such-program"], log=tmp_path / "log", cwd=tmp_path)
    assert str(error.value) == "a stage could not start no-such-program: No such file or directory"


def test_an_interrupt_stops_the_tool(tmp_path):
    def stop(line):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, "print('on', flush=True); import time; time.sleep(60)", on_line=stop)
