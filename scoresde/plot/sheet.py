"""Define the figure that the pictures are drawn into."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure

from scoresde.plot.paper import encoded

__all__ = ["Sheet"]


class Sheet(Figure):
    """Show a matplotlib figure in a notebook as a PNG."""

    def _repr_png_(self) -> bytes:
        return encoded(self, "png")

    def draw(self, renderer: Any) -> None:
        """Draw the figure, after the layout engine has placed panels of fixed aspect."""
        if (engine := self.get_layout_engine()) is not None:
            engine.execute(self)
        super().draw(renderer)

    def __repr__(self) -> str:
        count = len(self.axes)
        return f"<Figure of {count} {'panel' if count == 1 else 'panels'}>"
