"""Find the line of the user's code that a warning points to."""

from __future__ import annotations

import sys
from pathlib import Path
from types import FrameType

__all__ = ["outside"]

_HOME = str(Path(__file__).parent.parent) + "/"


def outside() -> int:
    """Return the `stacklevel` of a warning that points to the line of whoever called the package.

    That is the line below all that are of the package, however they call each other.
    """
    frame: FrameType | None = sys._getframe(1)
    level, found = 1, 1
    while frame is not None:
        if frame.f_code.co_filename.startswith(_HOME):
            found = level + 1
        frame, level = frame.f_back, level + 1
    return found
