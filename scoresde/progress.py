"""Show the progress of long work.

In a terminal and in a notebook the progress is a bar. Elsewhere, for example in a log file or a
pipe, lines are written to stderr: the first after 10 seconds, each further line at least 30 seconds
later, and a last line at the end. Work of less than 10 seconds writes nothing.
"""

from __future__ import annotations

import contextlib
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Protocol, TextIO, TypeVar

from tqdm import TqdmWarning
from tqdm.std import tqdm

from scoresde import distributed
from scoresde.checks import check_range, quoted
from scoresde.errors import InvalidTypeError

__all__ = ["Progress", "duration", "each", "hidden", "in_notebook", "showing"]

T = TypeVar("T")

# The first line is written after _FIRST seconds. Later lines follow after at least _GAP seconds,
# and after at least _SHARE of the time so far.
_FIRST, _GAP, _SHARE = 10.0, 30.0, 1 / 60
# Seconds between two updates of a notebook's bar, since the notebook's file stores every update.
_OF_NOTEBOOK = 2.0
_HIDDEN: ContextVar[bool] = ContextVar("hidden", default=False)


class Progress(Protocol):
    """Define the interface of objects that show the progress of work."""

    def update(self, n: int = 1) -> object:
        """Count `n` more units of work."""

    def note(self, **values: float) -> None:
        """Replace the numbers shown beside the count."""


@contextmanager
def hidden() -> Iterator[None]:
    """Show no progress in the block, except with `show=True`."""
    token = _HIDDEN.set(True)
    try:
        yield
    finally:
        _HIDDEN.reset(token)


@contextmanager
def showing(
    total: int | None,
    doing: str,
    *,
    unit: str = "step",
    done: int = 0,
    show: bool | None = None,
    keep: bool = False,
    delay: float = 0.0,
) -> Iterator[Progress]:
    """Show the progress of the work in the block.

    Args:
        total: The number of units of work, or None if unknown.
        doing: The name of the work, such as "sampling".
        unit: The name of one unit.
        done: The number of units that are already done; the name then says so.
        show: True always shows a bar, False shows nothing, and None shows a bar in a terminal or a
            notebook and lines elsewhere. With None and several processes, only the first shows its
            progress.
        keep: Leave a finished bar on the screen.
        delay: Seconds before the bar appears.

    Raises:
        InvalidTypeError: `show` is neither True, False nor None.

    Examples:
        >>> with showing(3, "counting", show=False) as progress:
        ...     for _ in range(3):
        ...         progress.update()
    """
    if not (show is None or isinstance(show, bool)):
        raise InvalidTypeError(f"progress must be True, False or None, got {quoted(show)}")
    if show is None and (_HIDDEN.get() or not distributed.is_main()):
        show = False
    stream, doing = sys.stderr, f"{doing} from {unit} {done:,}" if done else doing
    if show is False or stream is None:
        yield _Silent()
    elif show or in_notebook() or _is_terminal(stream):
        kind = _bar_of_notebook() if in_notebook() else tqdm
        with kind(
            total=total, initial=done, desc=doing, unit=unit, leave=keep, delay=delay,
            file=None if in_notebook() else _SafeStream(stream),
            mininterval=_OF_NOTEBOOK if in_notebook() else 0.1,
        ) as bar:  # fmt: skip
            yield _Bar(bar)
    else:
        lines = _Lines(total, doing, unit, done, stream)
        try:
            yield lines
        finally:
            lines.close()


def each(items: Sequence[T], doing: str, *, unit: str = "step", show: bool | None) -> Iterator[T]:
    """Yield the items, and show the progress as `showing` does."""
    with showing(len(items), doing, unit=unit, show=show) as progress:
        for item in items:
            yield item
            progress.update()


def in_notebook() -> bool:
    """Return True if a Jupyter kernel runs this code."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return shell is not None and "IPKernelApp" in shell.config


def duration(seconds: float) -> str:
    """Return a time in plain English, in at most two units.

    Examples:
        >>> duration(42.3), duration(100), duration(4000), duration(200000)
        ('42 s', '1 min 40 s', '1 h 6 min', '2 d 7 h')

    Raises:
        InvalidValueError: The time is negative, infinite or NaN.
    """
    check_range("seconds", seconds, "[0, inf)")
    left = round(seconds)
    parts: list[str] = []
    for size, name in ((86400, "d"), (3600, "h"), (60, "min"), (1, "s")):
        count, left = divmod(left, size)
        if count or parts or name == "s":
            parts.append(f"{count} {name}" if count or not parts else "")
    return " ".join(part for part in parts[:2] if part)


class _Silent:
    """Show nothing."""

    def update(self, n: int = 1) -> None:
        """Do nothing."""

    def note(self, **values: float) -> None:
        """Do nothing."""


class _Bar:
    """Show a bar of tqdm."""

    def __init__(self, bar: Any) -> None:
        self.update = bar.update
        self._bar = bar

    def note(self, **values: float) -> None:
        """Show the numbers at the end of the bar."""
        shown = {_label(name): f"{value:.3g}" for name, value in values.items()}
        self._bar.set_postfix(shown, refresh=False)


class _Lines:
    """Write a line from time to time."""

    def __init__(self, total: int | None, doing: str, unit: str, done: int, stream: TextIO) -> None:
        self.total, self.doing, self.unit, self.count = total, doing, unit, done
        self._first, self._values, self._stream = done, "", _SafeStream(stream)
        self._start = time.monotonic()
        self._due, self._written = self._start + _FIRST, False

    def update(self, n: int = 1) -> None:
        """Count, and write a line if it is time for a line."""
        self.count += n
        now = time.monotonic()
        if now < self._due:
            return
        passed = now - self._start
        self._due = now + max(_GAP, passed * _SHARE)
        self._written = True
        left = ""
        if self.total is not None and self.count > self._first:
            rest = (self.total - self.count) * passed / (self.count - self._first)
            left = f"  {duration(max(rest, 0))} left"
        self._write(f"{self._values}{left}")

    def note(self, **values: float) -> None:
        """Store the numbers for the next line."""
        self._values = "".join(f"  {_label(name)} {value:.3g}" for name, value in values.items())

    def close(self) -> None:
        """Write the time taken, if any line was written."""
        if self._written:
            self._write(f"{self._values}  after {duration(time.monotonic() - self._start)}")

    def _write(self, rest: str) -> None:
        of = "" if self.total is None else f"/{self.total:,}"
        self._stream.write(f"{self.doing}: {self.unit} {self.count:,}{of}{rest}\n")
        self._stream.flush()


class _SafeStream:
    """Write to a stream, and ignore errors such as a closed terminal."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write the text, or return 0 on an error."""
        with contextlib.suppress(OSError, ValueError):
            return self._stream.write(text)
        return 0

    def flush(self) -> None:
        """Flush the stream, or do nothing on an error."""
        with contextlib.suppress(OSError, ValueError):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _is_terminal(stream: TextIO) -> bool:
    """Return True if a stream is an open terminal."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        return stream.isatty()
    return False


def _bar_of_notebook() -> Any:
    """Return tqdm's widget bar, or its text bar if widgets are not available."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TqdmWarning)
        from tqdm.auto import tqdm as automatic
    return automatic


def _label(name: str) -> str:
    """Return the name of a number with underscores replaced by hyphens."""
    return name.replace("_", "-")
