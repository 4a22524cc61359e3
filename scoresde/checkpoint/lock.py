"""A folder into which one writer alone writes, be others in another process or in this one."""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import platform
import stat
import time
import warnings
import weakref
from collections.abc import Iterator
from pathlib import Path

from scoresde.checkpoint.files import NO_LINK, NO_WAIT, locked, unlocked
from scoresde.checks import outside
from scoresde.errors import CheckpointError

__all__ = ["Lock", "holder"]

_NAME = ".lock"
# The locks that this process has, by the number of the file that is locked.
_HELD: weakref.WeakValueDictionary[tuple[int, int], Lock] = weakref.WeakValueDictionary()


class Lock:
    """Keeps others from taking the same folder: processes, threads, and other objects of this kind.

    The system forgets it when the process ends, however that happens, and processes that this one
    forks do not have it. On a disk that knows no locks, as some over a network, it keeps out what
    is in this process, and warns.

    Args:
        folder: What is left in it is an empty file `.lock`; meanwhile it says who has the folder.

    Attributes:
        idle: Whether another object of this process may have the folder in its place.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.idle = False
        self.file: int | None = None
        self._end: weakref.finalize[..., Lock] | None = None

    def take(self) -> bool:
        """Have the folder until `release`; return False where it is had already.

        Raises:
            CheckpointError: Somebody else has it; says who. Or `.lock` is a link, or no file, or
                cannot be opened where other files can be written.
        """
        return self._take(over=True)

    def _take(self, *, over: bool) -> bool:
        """Take the folder, with `over` from an idle object of this process too."""
        if self._end is not None:
            return False
        file = self._open()
        if file is None:
            return True  # where nothing can be written, nothing is overwritten
        found = os.fstat(file)
        key = found.st_dev, found.st_ino
        holder = _HELD.get(key)
        if holder is not None and holder.idle and over:
            holder.release()
        elif holder is not None:
            del holder
            gc.collect()  # it may be that of a trainer that nobody can reach any more
        free = locked(file)
        if free is False or key in _HELD:
            who = _read(file)
            os.close(file)
            raise CheckpointError(
                f"another Trainer of this process, {os.getpid()}, trains in {self.folder}; wait "
                "for its end, or interrupt it"
                if key in _HELD
                else f"another process trains in {self.folder}{who}; wait for its end, or take "
                "another folder"
            )
        if free is None:
            warnings.warn(
                f"the disk of {self.folder} knows no locks; see to it that no other process trains "
                "there too",
                RuntimeWarning,
                stacklevel=outside(),
            )
        _write(file, f"process {os.getpid()} on {platform.node()} since {time.ctime()}")
        self.file, _HELD[key] = file, self
        self._end = weakref.finalize(self, _release, file)
        return True

    def keep(self) -> bool:
        """Take it again where somebody removed `.lock` meanwhile; return whether that was so.

        Raises:
            CheckpointError: As in `take`.
        """
        if self.file is None:
            return False
        with contextlib.suppress(OSError):
            if os.path.samestat(os.lstat(self.folder / _NAME), os.fstat(self.file)):
                return False
        self.release()
        with contextlib.suppress(OSError):
            self.folder.mkdir(parents=True, exist_ok=True)
        return self._take(over=False)

    def release(self) -> None:
        """Give it back, if it is had."""
        if self._end is not None:
            self._end()
            self.forget()

    @contextlib.contextmanager
    def unless_it_fails(self) -> Iterator[None]:
        """Give it back where the block fails: whoever keeps the error would keep it, too."""
        try:
            yield
        except BaseException:
            self.release()
            raise

    def forget(self) -> None:
        """No longer have it, and leave it as it is."""
        self._end = self.file = None
        for key in [key for key, lock in _HELD.items() if lock is self]:
            del _HELD[key]

    def _open(self) -> int | None:
        path, why = self.folder / _NAME, ""
        for flags in (os.O_RDWR | os.O_CREAT, os.O_RDONLY):  # somebody else may have made it
            try:
                file = os.open(path, flags | NO_LINK | NO_WAIT, 0o666)
            except OSError as error:
                if error.errno in (errno.ELOOP, errno.ENXIO):  # a socket is the latter
                    raise self._foreign() from error
                why = os.strerror(error.errno or 0)
                continue
            found = os.fstat(file)
            if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
                os.close(file)
                raise self._foreign()
            return file
        if os.access(self.folder, os.W_OK):  # whoever may write here could do so beside another
            raise CheckpointError(
                f"cannot open {path}: {why}; without it nothing keeps others out of the folder"
            )
        return None

    def _foreign(self) -> CheckpointError:
        return CheckpointError(
            f"{self.folder / _NAME} is a link, or no file; a run has a file of its own there, so "
            "remove it"
        )


def holder(folder: Path) -> str:
    """Return who has a folder at the moment, as "process 12 on host since ...", or nothing."""
    try:
        file = os.open(folder / _NAME, os.O_RDONLY | NO_LINK | NO_WAIT)
    except OSError:
        return ""
    try:
        who = _read(file).removeprefix(": ")
        return who if who and locked(file, shared=True) is False else ""
    finally:
        os.close(file)


def _release(file: int) -> None:
    _write(file, "")
    unlocked(file)  # for a child that took the descriptor along, too
    os.close(file)


def _forget_after_fork() -> None:
    """In a child, close what is its parent's: else it would keep the folder after its parent."""
    for lock in list(_HELD.values()):
        if lock._end is not None and lock.file is not None:
            lock._end.detach()
            os.close(lock.file)
        lock.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_after_fork)


def _write(file: int, text: str) -> None:
    with contextlib.suppress(OSError):  # of a full disk, or of a file that is only read
        os.lseek(file, 0, os.SEEK_SET)
        os.ftruncate(file, 0)
        os.write(file, text.encode())


def _read(file: int) -> str:
    """Return who has the lock, as the end of a sentence, or nothing."""
    with contextlib.suppress(OSError):
        text = os.read(file, 200).decode(errors="replace")
        return f": {text}" if text.isprintable() and text else ""
    return ""
