"""Write files in a thread while training continues."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable

__all__ = ["Background"]


class Background:
    """Run one job at a time in a thread; `finish` waits for it and raises its error.

    A fork waits until the jobs of all objects are done, since the new process would have a copy of
    an unfinished job, but not its thread. Python waits for a job before it exits.
    """

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._error: Exception | None = None
        _ALL.add(self)

    @property
    def done(self) -> bool:
        """Return True if no job is running."""
        return self._thread is None or not self._thread.is_alive()

    def begin(self, job: Callable[[], object]) -> None:
        """Wait for the previous job, raise its error if it failed, and start a job."""
        self.finish()

        def run() -> None:
            try:
                job()
            except Exception as error:
                self._error = error

        thread = threading.Thread(target=run, name="scoresde-checkpoint")
        try:
            thread.start()
        except RuntimeError:  # the system allows no further thread
            run()
        else:
            self._thread = thread

    def wait(self) -> None:
        """Wait until no job is running."""
        if self._thread is not None:
            self._thread.join()

    def finish(self) -> None:
        """Wait until no job is running; raise the error of the last job once."""
        self.wait()
        error, self._thread, self._error = self._error, None, None
        if error is not None:
            raise error


_ALL: weakref.WeakSet[Background] = weakref.WeakSet()


def _wait_before_fork() -> None:
    for background in list(_ALL):
        background.wait()


if hasattr(os, "register_at_fork"):  # Windows has no forks
    os.register_at_fork(before=_wait_before_fork)
