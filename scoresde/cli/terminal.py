"""Lines for people, where any are left to read them."""

from __future__ import annotations

import errno
import os
from typing import TextIO

__all__ = ["say", "silence"]


def say(line: str, file: TextIO) -> None:
    """Print a line; a terminal that was closed is no error, and hears nothing from then on."""
    try:
        print(line, file=file, flush=True)
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        silence(file)


def silence(file: TextIO) -> None:
    """Let a stream lead nowhere, so that the interpreter can flush it at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), file.fileno())
