"""End a run after the current step when a signal arrives."""

from __future__ import annotations

import signal
import threading
import time
from types import FrameType, TracebackType
from typing import Any, Self

from scoresde import distributed

__all__ = ["Stop"]

# With several processes, further signals are ignored for this many seconds after the first.
_ECHO = 2.0
# Windows has no SIGHUP
_SIGNALS = [s for s in signal.Signals if s.name in ("SIGINT", "SIGTERM", "SIGHUP")]


class Stop:
    """Record the first signal that arrives in the block; end the block at once at a second.

    The training loop runs in the block. It calls `agreed` after each step, and ends the run if a
    signal is returned. If a signal arrives after the last call of `agreed`, an exception is raised
    when the block is left, the same as by `end`.

    The signals are SIGINT, SIGTERM, and SIGHUP, which a closing terminal sends. A signal that was
    ignored before, as SIGHUP under `nohup`, stays ignored. Outside the main thread Python allows no
    handlers, so nothing is changed. With several processes further signals are ignored for two
    seconds, since a terminal and `torchrun` each send one. After any signal a SIGHUP is ignored,
    since a shell and its terminal each send one.

    Attributes:
        received: The recorded signal, or None.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._at = 0.0
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                if signal.getsignal(number) != signal.SIG_IGN:
                    self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._previous.items():
            # None means that the handler was not installed from Python
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        if error is None and self.received is not None:  # the signal came after the last `agreed`
            self.end(f"{self.received.name} after the last step")

    def _note(self, number: int, frame: FrameType | None) -> None:
        again, new, now = self.received is not None, signal.Signals(number), time.monotonic()
        echo = distributed.size() > 1 and now - self._at < _ECHO
        if again and (echo or new.name == "SIGHUP"):
            return
        self._at, self.received = now, new
        if again:
            self.end(f"stopped immediately by a second signal, {new.name}")

    def agreed(self) -> signal.Signals | None:
        """Return a signal that this or another process of the group received, or None."""
        number = distributed.largest(self.received or 0)
        if number:
            if self.received is None:  # this process may receive the same signal a little later
                self._at = time.monotonic()
            self.received = signal.Signals(number)
        return self.received

    def end(self, message: str) -> None:
        """Raise KeyboardInterrupt for SIGINT, and SystemExit(128 + number) for other signals.

        Args:
            message: The message of the KeyboardInterrupt.
        """
        if self.received is None or self.received == signal.SIGINT:
            raise KeyboardInterrupt(message)
        raise SystemExit(128 + self.received)
