"""Draw an evaluation: each value with its interval, beside the floor."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from scoresde import plot
from scoresde.metrics.evaluation import FIGURES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from scoresde.metrics.evaluation import Evaluation

__all__ = ["picture"]


_GOOD = {
    "small": "less is good", "large": "more is good", "at the floor": "the floor is good",
}  # fmt: skip


def picture(found: Evaluation) -> Figure:
    """Return a figure with a panel for each value, of samples and floor."""
    panels: dict[str, dict[str, tuple[float, float, float]]] = {}
    for name, row in found.items():
        good = f", {_GOOD[FIGURES[name].good]}" if name in FIGURES else ""
        panels[f"{name}{good}"] = {"samples": row.samples, "floor": row.floor}
    title = f"{found.n:,} samples against {found.n:,} real ones; floor: real against real"
    if found.resamples:
        title += "\n" + "\n".join(textwrap.wrap(found.verdict(), 100))
    drawn = plot.bars(panels, title=title)
    if found.resamples:
        note = (
            f"Lines are intervals of {found.level:.0%} for what the figure is on average. They end "
            "where the figure cannot be, at 0 for a distance, so that a bar may end where its line "
            "does."
        )
        width = round(14 * drawn.get_size_inches()[0])
        drawn.supxlabel("\n".join(textwrap.wrap(note, width)), fontsize="small", color="#222222")
    return drawn
