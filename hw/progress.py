"""Shows the progress of a build on a terminal, or stage by stage in a log."""

import sys
import time


class ConsoleProgress:
    """A `progress(stage, detail)` for `build_bitstream`, written to `stream`.

    On a terminal, one line that is rewritten in place; elsewhere, one line when a stage begins,
    and the reason when a seed is given up.
    """

    def __init__(self, stream=None, *, clock=time.monotonic):
        self._stream = sys.stderr if stream is None else stream
        self._clock = clock
        self._began = clock()
        self._stage = None
        self._live = self._stream.isatty()

    def __call__(self, stage, detail):
        elapsed = f"{self._clock() - self._began:6.1f} s"
        if self._live:
            # Clear to the end of the line; a terminal narrower than 100 columns may wrap.
            end = "\n" if stage == "done" else ""
            self._stream.write(f"\r\x1b[K{elapsed}  {stage}: {detail}"[:100] + end)
        elif stage != self._stage or detail.endswith("missed timing"):
            self._stream.write(f"{elapsed}  {stage}: {detail}\n")
        self._stage = stage
        self._stream.flush()
