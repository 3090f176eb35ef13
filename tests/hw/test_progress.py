"""Progress: one live line on a terminal, one line a stage in a log."""

import io

from hw.progress import ConsoleProgress


class Terminal(io.StringIO):
    def isatty(self):
        return True


def ticks():
    times = iter(range(100))
    return lambda: next(times)


def test_a_log_gets_a_line_for_each_stage_and_each_lost_seed():
    out = io.StringIO()
    progress = ConsoleProgress(out, clock=ticks())
    progress("synthesise", "a")
    progress("synthesise", "b")
    progress("place and route", "seed 1: place 1")
    progress("place and route", "seed 1: missed timing")
    assert out.getvalue().splitlines() == [
        "   1.0 s  synthesise: a",
        "   3.0 s  place and route: seed 1: place 1",
        "   4.0 s  place and route: seed 1: missed timing",
    ]


def test_a_terminal_gets_one_line_rewritten():
    out = Terminal()
    progress = ConsoleProgress(out, clock=ticks())
    progress("pack", "ecppack")
    progress("done", "61.00 MHz")
    assert out.getvalue() == ("\r\x1b[K   1.0 s  pack: ecppack\r\x1b[K   2.0 s  done: 61.00 MHz\n")
