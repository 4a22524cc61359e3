"""A figure that a notebook shows, whether or not pyplot was ever imported."""

from __future__ import annotations

from matplotlib.figure import Figure

from scoresde.plot.paper import encoded

__all__ = ["Sheet"]


class Sheet(Figure):
    """A matplotlib figure whose picture a notebook finds by itself."""

    def _repr_png_(self) -> bytes:
        return encoded(self, "png")
