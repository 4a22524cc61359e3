"""What every result is: numbers, a table, a JSON file, a picture."""

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
    """Hold what was found: `print` shows a table, `plot` draws it, `to_json` keeps it.

    A notebook shows table and picture.
    """

    @abc.abstractmethod
    def _entries(self) -> Mapping[str, Any]:
        """Return all figures by name, in mappings, sequences, words and numbers."""

    @abc.abstractmethod
    def plot(self) -> Figure:
        """Draw it, as a figure of matplotlib, which `scoresde.plot.save` writes."""

    def as_json(self) -> dict[str, Any]:
        """Return all figures, as JSON holds them; what is unknown or infinite is None."""
        return {name: _finite(value) for name, value in self._entries().items()}

    def to_json(self, path: str | os.PathLike[str]) -> Path:
        """Write `as_json` into a file, and return its path.

        Raises:
            CheckpointError: The file cannot be written.
        """
        checkpoint.write_json(path, self.as_json())
        return Path(path)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self).partition(chr(10))[0]})"

    def _repr_html_(self) -> str:
        """Return the table and the picture as a notebook shows them."""
        return page(str(self), self.plot())


def page(text: str, picture: Figure | None) -> str:
    """Return a text and a picture as HTML that needs nothing else.

    Args:
        text: Whatever it holds is shown as it is.
        picture: A figure, or None.
    """
    words = f'<pre style="line-height: 1.2">{html.escape(text)}</pre>'
    if picture is None:
        return words
    buffer = io.BytesIO()
    picture.savefig(buffer, format="png", facecolor=picture.get_facecolor())
    image = base64.b64encode(buffer.getvalue()).decode()
    return (
        f'{words}<img style="max-width: 100%" alt="the picture of it" '
        f'src="data:image/png;base64,{image}">'
    )


def _finite(value: Any) -> Any:
    """Return what JSON can hold of a value: None in place of NaN and infinities."""
    if isinstance(value, Mapping):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
