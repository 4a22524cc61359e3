"""Draw a calibration: the distribution of the ranks, and the coverage of intervals."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

import numpy as np

from scoresde import plot
from scoresde.metrics.calibration.uniformity import POINTS, band
from scoresde.plot import paper

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from scoresde.metrics.calibration.result import Calibration

__all__ = ["picture"]


# The line styles if there are few quantities, and the labels of the two colours if there are many.
_DASHES = ("-", "--", "-.", ":", (0, (6, 2, 1, 2, 1, 2)), (0, (1, 4)))
_SORTS = {False: "quantities that pass", True: "quantities that fail a test"}


def picture(found: Calibration) -> Figure:
    """Return two panels: the ranks of the true values, and the coverage of intervals."""
    drawn = plot.figure((11, 5.2))
    places, coverage = drawn.subplots(1, 2, width_ratios=(3, 2))
    paper.dress((places, coverage))
    failed = {name.rpartition(", ")[0] for name in found.alarms}
    n = found.n
    low, high = band(n, found.level / len(found.quantities))
    places.fill_between(
        POINTS, low / n - POINTS, high / n - POINTS, color="0.85", linewidth=0,
        label=f"band that no curve leaves in {1 - found.level:.0%}\nof studies with right draws",
    )  # fmt: skip
    ends = np.array([0.0, *POINTS, 1.0])
    few = len(found.quantities) <= len(_DASHES)
    # with many quantities only the two colours have labels; the other panel names the quantities
    named = set()
    for i, quantity in enumerate(found.quantities):
        gap = np.array([0.0, *(np.array(quantity.counts) / n - POINTS), 0.0])
        bad = quantity.name in failed
        label = paper.plain(quantity.name) if few else None if bad in named else _SORTS[bad]
        places.plot(
            ends, gap, color=paper.RED if bad else paper.BLUE, alpha=0.9 if bad or few else 0.5,
            linewidth=1, label=label, linestyle=_DASHES[i] if few else "-",
        )  # fmt: skip
        named.add(bad)
    places.axhline(0, color=paper.INK, linewidth=0.8)
    places.set(
        xlabel="rank of the true value among its draws",
        ylabel="distribution function minus that of uniform ranks",
    )
    paper.legend(places, bbox_to_anchor=(0, -0.13), ncols=3)

    rows = range(len(found.quantities))
    for share, i in ((0.5, 0), (0.9, 1)):
        reach = 3.5 * (share * (1 - share) / n) ** 0.5
        coverage.axvspan(share - reach, share + reach, color="0.85", linewidth=0)
        colours = [paper.RED if q.name in failed else paper.BLUE for q in found.quantities]
        coverage.scatter([q.coverage[i] for q in found.quantities], rows, c=colours, s=18)
    coverage.set_yticks(rows, [paper.plain(q.name) for q in found.quantities], fontsize="small")
    coverage.set(
        ylim=(len(rows) - 0.5, -0.5),
        xlabel="share of true values in intervals\nof 50 and 90 % (shade: 3.5 standard errors)",
    )
    for axes in (places, coverage):
        axes.grid(alpha=0.3, color=paper.GREY)
    title = "\n".join(textwrap.wrap(found.verdict(), 110))
    drawn.suptitle(title, fontsize="medium", color=paper.INK)
    return drawn
