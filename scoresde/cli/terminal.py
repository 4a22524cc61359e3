"""Lines for people, where any are left to read them."""

from __future__ import annotations

import os
import sys
from typing import TextIO

__all__ = ["open_closed", "say", "show", "silence"]


def say(line: str, file: TextIO) -> None:
    """Print a line about the work, which goes on where the line cannot be printed.

    As where a terminal was closed, the reader of a pipe has gone, or a disk is full.
    """
    try:
        print(_harmless(line), file=file, flush=True)
    except (OSError, ValueError):  # the latter of a stream that was closed
        silence(file)


def show(text: object) -> None:
    """Print lines that are the result of the work, whose words may be of a file.

    Raises:
        OSError: They cannot be printed.
    """
    for line in str(text).split("\n"):
        print(_harmless(line), flush=True)


def _harmless(line: str) -> str:
    """A line without what terminals obey, or what cannot be written in UTF-8."""
    return "".join(c if c.isprintable() else "?" for c in line)


def silence(file: TextIO) -> None:
    """Let a stream lead nowhere, so that the interpreter can flush it at its end."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), file.fileno())
    except (OSError, ValueError):
        return  # it is no stream of the system


def open_closed() -> None:
    """Let the standard streams that were closed lead nowhere: else a file would get their number.

    What is written to an error stream would then go into that file.
    """
    for name, flags in (("stdin", os.O_RDONLY), ("stdout", os.O_WRONLY), ("stderr", os.O_WRONLY)):
        if getattr(sys, name) is None:
            file = os.open(os.devnull, flags)
            setattr(sys, name, open(file, "r" if name == "stdin" else "w"))  # noqa: SIM115
