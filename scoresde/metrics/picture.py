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
    "small": "smaller is better", "large": "larger is better", "at the floor": "best at the floor",
}  # fmt: skip

# Letters per inch, and the height of a line in inches.
_LETTERS, _LINE = 12, 0.17


def picture(found: Evaluation, name: str = "") -> Figure:
    """Return a figure with a panel for each value, with bars for samples and floor."""
    panels: dict[str, dict[str, tuple[float, float, float]]] = {}
    for figure, row in found.items():
        good = f", {_GOOD[FIGURES[figure].good]}" if figure in FIGURES else ""
        panels[f"{figure}{good}"] = {"samples": row.samples, "floor": row.floor}
    drawn = plot.bars(panels)
    wide, high = drawn.get_size_inches()
    above = f"{found.n:,} samples against {found.n:,} real data; floor: real data against real data"
    said = [name, above, found.verdict() if found.resamples else ""]
    title = [line for text in said for line in textwrap.wrap(text, round(_LETTERS * wide))]
    drawn.suptitle("\n".join(title), fontsize="medium", color="#222222")
    note: list[str] = []
    if found.resamples:
        text = (
            f"Lines are {found.level:.0%} intervals for the expectation of the figure, limited to "
            "possible values."
        )
        if any(bar[0] < 0 for part in panels.values() for bar in part.values()):
            text += " Distances are estimated without bias, so an estimate near 0 may be negative."
        note = textwrap.wrap(text, round(_LETTERS * wide))
        drawn.supxlabel("\n".join(note), fontsize="small", color="#222222")
    drawn.set_size_inches(wide, high + _LINE * max(0, len(title) + len(note) - 4))
    return drawn
