"""Write files atomically, and open files in shared folders safely.

In a folder in which somebody else can write too, a name may be a link to any file of the user. So a
file is written under a new random name and then renamed: renaming replaces a link, and never
follows it.
"""

from __future__ import annotations

import contextlib
import difflib
import errno
import os
import re
import secrets
import stat
import time
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

from scoresde.errors import CheckpointError

__all__ = [
    "NO_LINK",
    "NO_WAIT",
    "append",
    "clean",
    "did_you_mean",
    "locked",
    "make_folder",
    "open_file",
    "read_bytes",
    "unlocked",
    "write_bytes",
]

# What fsync answers on some network and FUSE file systems, and of folders.
_NO_FLUSH = (errno.EINVAL, errno.EBADF, errno.ENOSYS, errno.ENOTSUP)

NO_LINK: int = getattr(os, "O_NOFOLLOW", 0)
# without this flag, opening a pipe would wait until its other end is opened
NO_WAIT: int = getattr(os, "O_NONBLOCK", 0)

# errors after which writing is tried again: a network file system was briefly unavailable, or
# `clean` in another process removed the temporary file
_TRANSIENT = {errno.EAGAIN, errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ENOENT}
_TEMPORARY = re.compile(r"\.scoresde-[0-9a-f]{32}\.tmp")
_DAY = 86_400  # seconds


def write_bytes(path: str | os.PathLike[str], *parts: bytes | memoryview) -> None:
    """Write the parts of a file atomically, and make its folder if it is missing.

    The permissions of an existing file are kept; an existing link is replaced.

    Raises:
        CheckpointError: The file cannot be written, or is a folder, a pipe or a device; an older
            file is unchanged.
    """
    path = Path(path)
    for again in (False, True):
        try:
            _replace(path, parts)
            return
        except (OSError, ValueError) as error:  # a path with a null byte is a ValueError
            if again or getattr(error, "errno", None) not in _TRANSIENT:
                raise CheckpointError(
                    f"cannot write {path}: {_reason(error)}; an older file there, if any, is "
                    "unchanged"
                ) from error


def make_folder(path: Path) -> None:
    """Make a folder and its parents unless they exist.

    Raises:
        CheckpointError: The folder cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:  # a path with a null byte is a ValueError
        raise CheckpointError(f"cannot make the folder {path}: {_reason(error)}") from error


def _replace(path: Path, parts: Iterable[bytes | memoryview]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    clean(path.parent)  # a command that was killed may have left a file there
    mode = _mode(path)
    temporary = path.with_name(f".scoresde-{secrets.token_hex(16)}.tmp")
    try:
        with open(temporary, "xb", opener=_without_links) as file:
            if locked(file.fileno()) is False:  # `clean` in another process is removing the file
                raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
            for part in parts:
                file.write(part)
            file.flush()
            if mode is not None:
                os.chmod(file.fileno() if os.chmod in os.supports_fd else temporary, mode)
            _fsync(file.fileno())
            if os.name == "posix":
                os.replace(temporary, path)
        if os.name != "posix":  # Windows cannot rename an open file, and has no locks
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    # flush the folder, so that the rename reaches the disk; Windows has no such call
    if os.name == "posix":
        _flush(path.parent)


def _flush(folder: Path) -> None:
    try:
        file = os.open(folder, os.O_RDONLY)
    except PermissionError:  # the folder can be written but not read
        return
    try:
        _fsync(file)
    finally:
        os.close(file)


def _fsync(file: int) -> None:
    """Flush a file or a folder to the disk, unless its file system has no such call."""
    try:
        os.fsync(file)
    except OSError as error:
        if error.errno not in _NO_FLUSH:
            raise


def _mode(path: Path) -> int | None:
    """Return the permissions of an existing file if the user owns it, else None."""
    try:
        old = os.lstat(path)
    except FileNotFoundError:
        return None
    if stat.S_ISLNK(old.st_mode):
        return None
    _check_plain(old)
    ours = not hasattr(os, "geteuid") or old.st_uid == os.geteuid()
    return old.st_mode & 0o777 if ours else None


def append(path: str | os.PathLike[str], data: bytes) -> None:
    """Append to a file, and create it if it is missing; do not follow a link.

    Raises:
        OSError: The file cannot be written, or is a link or a hard link.
    """
    with open(path, "ab", opener=_without_links) as file:
        found = os.fstat(file.fileno())
        _check_plain(found)
        if found.st_nlink > 1:
            raise OSError(errno.EMLINK, "it is a hard link")
        file.write(data)


def open_file(path: str | os.PathLike[str]) -> BinaryIO:
    """Open a regular file for reading; follow links.

    Raises:
        OSError, ValueError: The file is missing or cannot be read, or is a folder, pipe or device.
    """
    file = open(path, "rb", opener=_without_waiting)  # noqa: SIM115, the caller closes it
    try:
        _check_plain(os.fstat(file.fileno()))
    except BaseException:
        file.close()
        raise
    return file


def did_you_mean(path: Path) -> str:
    """Return "; did you mean ...?" for a missing path, or "" without a suggestion.

    The suggestion is the most similar name in the same folder, whatever its suffix.
    """
    try:
        listed = os.listdir(path.parent.expanduser())
    except OSError:
        return ""
    # of files with the same stem the last is suggested, if possible one with the same suffix
    listed.sort(key=lambda name: Path(name).suffix == path.suffix)
    names = {Path(name).stem: name for name in listed}
    found = difflib.get_close_matches(path.stem[:200], names, n=1)
    return f"; did you mean {str(path.parent / names[found[0]])!r}?" if found else ""


def read_bytes(path: str | os.PathLike[str], *, most: int | None = None) -> bytes:
    """Return the content of a file.

    Args:
        path: The file, or a link to it.
        most: The largest number of bytes.

    Raises:
        CheckpointError: The file is missing, too large, or cannot be read.
    """
    try:
        with open_file(path) as file:
            size = os.fstat(file.fileno()).st_size
            if most is not None and size > most:
                raise CheckpointError(
                    f"{path} has {size:,} bytes; at most {most:,} are read of such a file"
                )
            return file.read() if most is None else file.read(most)
    except FileNotFoundError as error:
        raise CheckpointError(f"there is no file {path}") from error
    except MemoryError as error:  # a sparse file can be larger than any memory
        raise CheckpointError(f"{path} has {size:,} bytes, more than fit into memory") from error
    except (OSError, ValueError) as error:
        raise CheckpointError(f"cannot read {path}: {_reason(error)}") from error


def clean(folder: str | os.PathLike[str]) -> None:
    """Remove temporary files that killed processes of this user left in `folder`.

    Such a file is recognised by its name, and by the fact that no process has locked it. On a disk
    without locks, files that are a day old are removed.
    """
    with contextlib.suppress(OSError):
        for name in os.listdir(folder):
            if _TEMPORARY.fullmatch(name):
                with contextlib.suppress(OSError):
                    _remove_abandoned(Path(folder) / name)


def _remove_abandoned(path: Path) -> None:
    file = os.open(path, os.O_RDONLY | NO_LINK | NO_WAIT)
    try:
        found = os.fstat(file)
        ours = not hasattr(os, "geteuid") or found.st_uid == os.geteuid()
        free = locked(file)
        if free is None:
            free = time.time() - found.st_mtime > _DAY
        if free and ours and stat.S_ISREG(found.st_mode):
            path.unlink()
    finally:
        os.close(file)


def locked(file: int, *, shared: bool = False) -> bool | None:
    """Lock a file by its descriptor; return True on success, and None on a disk without locks.

    The lock belongs to the descriptor and to the copies of it that `fork` makes. It ends when all
    of these are closed.

    Args:
        file: The descriptor.
        shared: Take a shared lock, which several processes can hold at the same time.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        return None
    try:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except OSError as error:
        return False if error.errno in (errno.EACCES, errno.EAGAIN) else None
    return True


def unlocked(file: int) -> None:
    """Release the lock, for all processes that share the descriptor."""
    with contextlib.suppress(ImportError, OSError):
        import fcntl

        fcntl.flock(file, fcntl.LOCK_UN)


def _without_links(path: str, flags: int) -> int:
    return os.open(path, flags | NO_LINK | NO_WAIT, 0o666)


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | NO_WAIT)


def _check_plain(found: os.stat_result) -> None:
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "it is a pipe or a device")


def _reason(error: Exception) -> object:
    return getattr(error, "strerror", None) or error
