"""Define a lock between threads, which no thread holds in a newly forked process.

`fork` copies locks as they are, but not the threads that hold them. So a lock that another thread
held at the fork would never be released in the child.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["ThreadLock"]


class ThreadLock:
    """Let one thread at a time run a block; the same thread may enter nested blocks.

    Examples:
        >>> alone = ThreadLock()
        >>> with alone(), alone():
        ...     pass
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        _ALL.add(self)

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """Let the block run in one thread at a time."""
        with self._lock:
            yield

    def renew(self) -> None:
        """Replace the lock by a new one, which no thread holds."""
        self._lock = threading.RLock()


_ALL: weakref.WeakSet[ThreadLock] = weakref.WeakSet()


def _renew_after_fork() -> None:
    for lock in _ALL:
        lock.renew()


if hasattr(os, "register_at_fork"):  # Windows has no forks
    os.register_at_fork(after_in_child=_renew_after_fork)
