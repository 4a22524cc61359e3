"""Find the line of the user's code that a warning should point to."""

from __future__ import annotations

import sys
from pathlib import Path
from types import FrameType

__all__ = ["outside"]

_HOME = str(Path(__file__).parent.parent) + "/"


def outside() -> int:
    """Return the `stacklevel` for a warning about the line that called the package.

    If functions of the package called each other, it is the line that called the first of them.
    """
    frame: FrameType | None = sys._getframe(1)
    level, found = 1, 1
    while frame is not None:
        if frame.f_code.co_filename.startswith(_HOME):
            found = level + 1
        frame, level = frame.f_back, level + 1
    return found
