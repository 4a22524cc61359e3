"""A folder into which one process alone writes."""

from __future__ import annotations

import contextlib
import errno
import os
import weakref
from pathlib import Path

from scoresde.errors import CheckpointError

__all__ = ["Lock"]

_NAME = ".lock"


class Lock:
    """Keeps other processes from taking the same folder.

    The system forgets it when the process ends, however that happens, and processes that this one
    forks do not have it. A disk that knows no locks, as some over a network, gives it to everybody;
    nor do several in one process shut one another out.

    Args:
        folder: What is left in it is an empty file `.lock`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._end: weakref.finalize[[int], Lock] | None = None

    def take(self) -> None:
        """Have the folder until `release`; nothing happens where it is had already.

        Raises:
            CheckpointError: Another process has it.
        """
        if self._end is not None:
            return
        with contextlib.suppress(OSError):  # where nothing can be written, nothing is overwritten
            file = os.open(self.folder / _NAME, os.O_WRONLY | os.O_CREAT, 0o666)
            self._end = weakref.finalize(self, os.close, file)
            if not _locked(file):
                self.release()
                raise CheckpointError(
                    f"another process trains in {self.folder}; wait for its end, or take another "
                    "folder"
                )

    def release(self) -> None:
        """Give it back, if it is had."""
        if self._end is not None:
            self._end()
        self._end = None


def _locked(file: int) -> bool:
    """Whether nobody else holds a lock of this file, so far as the disk can tell."""
    try:
        import fcntl
    except ImportError:  # Windows
        return True
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in (errno.EACCES, errno.EAGAIN)
    return True
