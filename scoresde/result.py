"""Define the base class of results, which can be shown as a table, a picture and a JSON file."""

from __future__ import annotations

import abc
import base64
import html
import io
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scoresde import checkpoint

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Result", "page"]


class Result(abc.ABC):
    """Hold the numbers of a result; `print` shows a table, `plot` draws, `to_json` writes a file.

    A notebook shows the table and the picture.
    """

    @abc.abstractmethod
    def _entries(self) -> Mapping[str, Any]:
        """Return all numbers by name, as nested mappings, sequences and strings."""

    @abc.abstractmethod
    def plot(self) -> Figure:
        """Return a matplotlib figure of the result, which `scoresde.plot.save` writes."""

    def as_json(self) -> dict[str, Any]:
        """Return all numbers as JSON values; NaN and infinities become None."""
        return {name: _finite(value) for name, value in self._entries().items()}

    def to_json(self, path: str | os.PathLike[str]) -> Path:
        """Write `as_json()` to a file, and return its path.

        Raises:
            CheckpointError: The file cannot be written.
        """
        checkpoint.write_json(path, self.as_json())
        return Path(path)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self).partition(chr(10))[0]})"

    def _repr_html_(self) -> str:
        """Return the table and the picture as HTML, for a notebook."""
        return page(str(self), self.plot())


def page(text: str, picture: Figure | None, alt: str = "") -> str:
    """Return a text and a picture as self-contained HTML.

    Args:
        text: The text, which is escaped.
        picture: A figure, or None.
        alt: A description of the picture for screen readers; by default the titles and labels of
            its panels.
    """
    words = f'<pre style="line-height: 1.2">{html.escape(text)}</pre>'
    if picture is None:
        return words
    buffer = io.BytesIO()
    picture.savefig(buffer, format="png", facecolor=picture.get_facecolor())
    image = base64.b64encode(buffer.getvalue()).decode()
    return (
        f'{words}<img style="max-width: 100%" alt="{html.escape(alt or _seen(picture))}" '
        f'src="data:image/png;base64,{image}">'
    )


def _seen(picture: Figure) -> str:
    """Describe a picture by the title of each panel, or by the labels of its axes."""
    panels = []
    for axes in picture.axes:
        over = " over ".join(filter(None, (axes.get_ylabel(), axes.get_xlabel())))
        panels.append(": ".join(filter(None, (axes.get_title(), over))))
    return "picture of " + ("; ".join(dict.fromkeys(filter(None, panels))) or "the numbers above")


def _finite(value: Any) -> Any:
    """Return a value with NaN and infinities replaced by None, for JSON."""
    if isinstance(value, Mapping):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
