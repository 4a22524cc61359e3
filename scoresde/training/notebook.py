"""Show the progress and the loss curve of a run in a notebook during training."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any

from scoresde import plot
from scoresde.progress import in_notebook
from scoresde.result import page
from scoresde.training.callbacks import Callback, Callbacks
from scoresde.training.log import History

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["live", "losses", "run_page"]

# The smallest number of seconds between two pictures of the loss.
_GAP = 5.0


def losses(rows: Sequence[Mapping[str, float]]) -> Figure | None:
    """Draw the loss over the steps, and the held-out loss if it was logged.

    Args:
        rows: Rows of a log.

    Returns:
        The figure, or None if no row has a loss.
    """
    known = [row for row in rows if "loss" in row]
    held = [row for row in rows if "held_out" in row]
    if not known:
        return None
    steps, values = ([row[name] for row in known] for name in ("step", "loss"))
    drawn = plot.curve(values, steps=steps, label="training,\nlast weights" if held else None)
    if held:
        steps, values = ([row[name] for row in held] for name in ("step", "held_out"))
        plot.curve(
            values, steps=steps, label="held-out data,\naveraged weights", ax=drawn.axes[0],
            title="if the held-out loss rises, the model overfits",
        )  # fmt: skip
    return drawn


def run_page(text: str, history: History) -> str:
    """Return the HTML that shows a run in a notebook: a line of text and the loss curve."""
    return page(text, losses(history.rows), "the loss over the steps")


@contextmanager
def live(
    callbacks: Callbacks, history: History, steps: int, *, show: bool | None
) -> Iterator[None]:
    """Show the run below a notebook cell during the block; outside notebooks do nothing.

    Args:
        callbacks: The callbacks of the run; a callback that draws the curve is added.
        history: The rows of its log.
        steps: The number of steps of the whole run.
        show: False shows nothing.
    """
    if show is False or not in_notebook():
        yield
        return
    callbacks.members.append(watcher := _Live(history, steps))
    try:
        yield
    finally:
        if watcher in callbacks.members:  # a callback that failed was removed
            callbacks.members.remove(watcher)


class _Live(Callback):
    """Draw the loss of a run, and replace the picture every few seconds and at the end."""

    def __init__(self, history: History, steps: int) -> None:
        self._history, self._steps = history, steps
        self._notebook: Any = import_module("IPython.display")
        # display before the progress bar starts, so that the picture stands above the bar
        self._shown = self._notebook.display(self._notebook.HTML(""), display_id=True)
        self._when = time.monotonic()

    def on_log(self, row: Mapping[str, float]) -> None:
        """Draw again if the last picture is older than a few seconds."""
        if time.monotonic() - self._when > _GAP:
            self._draw()

    def on_end(self, step: int) -> None:
        """Draw the whole run."""
        self._draw()

    def _draw(self) -> None:
        if not self._history.rows:
            return
        text = described(self._history, int(self._history.rows[-1]["step"]), self._steps)
        self._shown.update(self._notebook.HTML(run_page(text, self._history)))
        self._when = time.monotonic()


def described(history: History, step: int, steps: int) -> str:
    """Describe the step and the last losses of a run."""
    known = history.latest.items()
    numbers = "".join(f", {name.replace('_', '-')} {value:.3g}" for name, value in known)
    return f"step {step:,} of {steps:,}{numbers}"
