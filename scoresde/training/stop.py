"""Signals that end a run after the step they fall into."""

from __future__ import annotations

import signal
import threading
import time
from types import FrameType, TracebackType
from typing import Any, Self

from scoresde import distributed

__all__ = ["Stop"]

_ECHO = 2.0  # seconds
# Windows has no SIGHUP
_SIGNALS = [s for s in signal.Signals if s.name in ("SIGINT", "SIGTERM", "SIGHUP")]


class Stop:
    """Within the block a first signal is only noted; a second one ends it at once.

    One that nobody has obeyed by the end of the block is obeyed there.

    The signals are SIGINT, SIGTERM, and SIGHUP, which a closed terminal sends. One that is ignored,
    as SIGHUP is under `nohup`, stays so. Outside the main thread, where Python allows no handlers,
    nothing is changed. Among several processes a second one within two seconds is taken for an echo
    of the first, since a terminal and `torchrun` each send their own; so is any second SIGHUP, for
    a shell that ends sends one and the terminal another.

    Attributes:
        received: The signal, or None.
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
            # None stands for a handler that was not installed from Python
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        if error is None and self.received is not None:  # it came after the last look
            self.end(f"{self.received.name} after the last step")

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None and signal.Signals(number).name == "SIGHUP":
            return
        now = time.monotonic()
        echo = distributed.size() > 1 and now - self._at < _ECHO
        again = self.received is not None and not echo
        self._at = self._at if echo else now
        self.received = signal.Signals(number)
        if again:
            self.end(f"stopped at once by a second {self.received.name}")

    def agreed(self) -> signal.Signals | None:
        """Return the signal that this process received, or any of those that it works with."""
        number = distributed.largest(self.received or 0)
        if number:
            self.received = signal.Signals(number)
        return self.received

    def end(self, message: str) -> None:
        """Raise what Python raises for the signal: KeyboardInterrupt, or SystemExit(128 + number).

        Args:
            message: Said by the KeyboardInterrupt.
        """
        if self.received is None or self.received == signal.SIGINT:
            raise KeyboardInterrupt(message)
        raise SystemExit(128 + self.received)
