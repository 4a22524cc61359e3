"""Find the line of the user's code that a warning points to."""

from __future__ import annotations

import sys
from pathlib import Path
from types import FrameType

__all__ = ["outside"]

_HOME = str(Path(__file__).parent.parent) + "/"


def outside() -> int:
    """Return the `stacklevel` with which a warning points to the line that called the package.

    That is the line of the caller of the package's outermost function on the stack.
    """
    frame: FrameType | None = sys._getframe(1)
    level, found = 1, 1
    while frame is not None:
        if frame.f_code.co_filename.startswith(_HOME):
            found = level + 1
        frame, level = frame.f_back, level + 1
    return found
