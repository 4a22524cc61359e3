"""Lines for people, where any are left to read them."""

from __future__ import annotations

import errno
import os
from typing import TextIO

__all__ = ["say", "silence"]


def say(line: str, file: TextIO) -> None:
    """Print a line, whose words may be of a file; a terminal that was closed is no error."""
    shown = "".join(c if c.isprintable() else "?" for c in line)  # no escapes, which terminals obey
    try:
        print(shown, file=file, flush=True)
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        silence(file)


def silence(file: TextIO) -> None:
    """Let a stream lead nowhere, so that the interpreter can flush it at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), file.fileno())
