"""Define the figure that the pictures are drawn into."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure

from scoresde.plot.paper import encoded

__all__ = ["Sheet"]


class Sheet(Figure):
    """Define a figure that a notebook shows as a PNG, and whose layout is computed twice."""

    def _repr_png_(self) -> bytes:
        return encoded(self, "png")

    def draw(self, renderer: Any) -> None:
        """Draw the figure, after the layout engine has run once.

        matplotlib then runs it again. Panels of fixed aspect are in place only after two runs.
        """
        if (engine := self.get_layout_engine()) is not None:
            engine.execute(self)
        super().draw(renderer)

    def __repr__(self) -> str:
        count = len(self.axes)
        return f"<Figure of {count} {'panel' if count == 1 else 'panels'}>"
