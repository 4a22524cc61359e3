"""A figure that a notebook shows, whether or not pyplot was ever imported."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure

from scoresde.plot.paper import encoded

__all__ = ["Sheet"]


class Sheet(Figure):
    """A matplotlib figure whose picture a notebook finds by itself."""

    def _repr_png_(self) -> bytes:
        return encoded(self, "png")

    def draw(self, renderer: Any) -> None:
        """Draw, with a layout that knows where the panels of a fixed aspect come to lie."""
        if (engine := self.get_layout_engine()) is not None:
            engine.execute(self)
        super().draw(renderer)

    def __repr__(self) -> str:
        count = len(self.axes)
        return f"<Figure of {count} {'panel' if count == 1 else 'panels'}>"
