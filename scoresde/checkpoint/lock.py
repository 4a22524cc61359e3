"""Lock a folder, so that only one process, and in it only one object, writes there."""

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
# The locks of this process, by device and inode of the locked file.
_HELD: weakref.WeakValueDictionary[tuple[int, int], Lock] = weakref.WeakValueDictionary()


class Lock:
    """Lock a folder against other processes, threads and `Lock` objects.

    The lock ends when the process ends, for whatever reason. Forked processes do not inherit it. On
    disks without locks, such as some network disks, only other objects of this process are locked
    out, and there is a warning.

    Args:
        folder: The folder. Its file `.lock` names the owner while the lock is held; `release`
            empties the file.
        use: The activity of the owner in the folder, for messages, such as "writes a report".

    Attributes:
        idle: True if another object of this process may take over the lock.
    """

    def __init__(self, folder: Path, use: str = "trains") -> None:
        self.folder = folder
        self.use = use
        self.idle = False
        self.file: int | None = None
        self._end: weakref.finalize[..., Lock] | None = None

    def take(self) -> bool:
        """Take the lock until `release`; return False if this object already has it.

        A folder in which nothing can be written needs no lock: then the result is True.

        Raises:
            CheckpointError: Another process or object has the lock; or `.lock` is a link or not a
                regular file; or `.lock` cannot be opened although the folder can be written to.
        """
        return self._take(over=True)

    def _take(self, *, over: bool) -> bool:
        """Take the lock; with `over`, take it even from an idle object of this process."""
        if self._end is not None:
            return False
        file = self._open()
        if file is None:
            return True  # a read-only folder needs no lock
        found = os.fstat(file)
        key = found.st_dev, found.st_ino
        holder = _HELD.get(key)
        if holder is not None and holder.idle and over:
            holder.release()
        elif holder is not None:
            del holder
            gc.collect()  # the lock may belong to a trainer that is no longer referenced
        free = locked(file)
        if free is False or key in _HELD:
            who = _read(file)
            os.close(file)
            other = "Trainer" if self.use == "trains" else "call"
            raise CheckpointError(
                f"another {other} of this process, {os.getpid()}, {self.use} in {self.folder}; "
                "wait until it ends, or interrupt it"
                if key in _HELD
                else f"another process {self.use} in {self.folder}{who}; wait until it ends, or "
                "take another folder"
            )
        if free is None:
            warnings.warn(
                f"the disk of {self.folder} has no locks; make sure that no other process "
                f"{self.use} there too",
                RuntimeWarning,
                stacklevel=outside(),
            )
        _write(file, f"process {os.getpid()} on {platform.node()} since {time.ctime()}")
        self.file, _HELD[key] = file, self
        self._end = weakref.finalize(self, _release, file)
        return True

    def keep(self) -> bool:
        """Take the lock again if `.lock` was removed or replaced, and return True in that case.

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
        """Release the lock, if this object has it."""
        if self._end is not None:
            self._end()
            self.forget()

    @contextlib.contextmanager
    def unless_it_fails(self) -> Iterator[None]:
        """Release the lock if the block fails; else a reference to the error would keep it."""
        try:
            yield
        except BaseException:
            self.release()
            raise

    def remove(self) -> None:
        """Remove `.lock`, if this object has the lock, and release it."""
        if self._end is not None:
            with contextlib.suppress(OSError):
                os.unlink(self.folder / _NAME)
            self.release()

    def forget(self) -> None:
        """Forget that this object has the lock, without releasing the lock of the system."""
        self._end = self.file = None
        for key in [key for key, lock in _HELD.items() if lock is self]:
            del _HELD[key]

    def _open(self) -> int | None:
        path, why = self.folder / _NAME, ""
        for flags in (os.O_RDWR | os.O_CREAT, os.O_RDONLY):  # another user may have created it
            try:
                file = os.open(path, flags | NO_LINK | NO_WAIT, 0o666)
            except OSError as error:
                if error.errno in (errno.ELOOP, errno.ENXIO):  # a link, a socket
                    raise self._foreign() from error
                why = os.strerror(error.errno or 0)
                continue
            found = os.fstat(file)
            if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
                os.close(file)
                raise self._foreign()
            return file
        if os.access(self.folder, os.W_OK):
            raise CheckpointError(
                f"cannot open {path}: {why}; without this lock other processes could write to the "
                "folder too; make the file readable"
            )
        return None

    def _foreign(self) -> CheckpointError:
        return CheckpointError(
            f"{self.folder / _NAME} must be a regular file to lock the folder, but is a link or "
            "something else; remove it"
        )


def holder(folder: Path) -> str:
    """Return the owner of a folder's lock, such as "process 12 on host since ...", or ""."""
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
    unlocked(file)  # release it for a child process that inherited the descriptor too
    os.close(file)


def _forget_after_fork() -> None:
    """Close the parent's locks in a forked process; otherwise the fork would keep them locked."""
    for lock in list(_HELD.values()):
        if lock._end is not None and lock.file is not None:
            lock._end.detach()
            os.close(lock.file)
        lock.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_after_fork)


def _write(file: int, text: str) -> None:
    with contextlib.suppress(OSError):  # a full disk, or a read-only file
        os.lseek(file, 0, os.SEEK_SET)
        os.ftruncate(file, 0)
        os.write(file, text.encode())


def _read(file: int) -> str:
    """Return ": " and the owner of the lock, or an empty string."""
    with contextlib.suppress(OSError):
        text = os.read(file, 200).decode(errors="replace")
        return f": {text}" if text.isprintable() and text else ""
    return ""
