"""The errors that a user can cause, and how any exception becomes one line."""

import argparse
from collections.abc import Iterable


class UserError(Exception):
    """Something that the user can put right; the message is one line that says how."""


def known(subject: str, value: str, names: Iterable[str]) -> UserError:
    """The error for a name that does not exist, with those that do."""
    return UserError(f"{subject} must be one of {', '.join(sorted(names))}, not {value!r}")


def describe(error: BaseException) -> str:
    """One line, without line breaks.

    Our floors raise UserError, ValueError and its kin, OSError and subclasses of RuntimeError
    with a message for the user; anything else is a bug of ours, and is called one.
    """
    text = " ".join(str(error).split())
    if isinstance(error, KeyError):
        text = " ".join(str(error.args[0] if error.args else "").split())
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{error.filename}: {error.strerror}"
    expected = isinstance(error, (UserError, ValueError, OSError, RuntimeError))
    if expected and text:
        return text
    kind = type(error).__name__
    return f"internal error, please report it (--debug shows where): {kind}: {text}"


def positive(text: str) -> int:
    """An argparse type: an integer of at least 1."""
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be a positive integer, not {text!r}")
    return value
