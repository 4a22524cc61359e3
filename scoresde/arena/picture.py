"""Draw a comparison: errors against evaluations, a panel for each problem."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from scoresde import plot

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from scoresde.arena.results import Results

__all__ = ["picture"]


def picture(results: Results, metric: str | None, against: Collection[str]) -> Figure:
    """Return the figure; the arguments and errors are those of `Results.plot`."""
    chosen = results.metric_or_first(metric)
    groups = {name: [name] for name in results.samplers if name not in against}
    for name in against:
        groups.setdefault(f"best of {name.partition(':')[0]}", []).append(name)
    panels = {}
    for problem in results.problems:
        panel = {}
        for label, names in groups.items():
            best = [results.best(names, problem, budget, chosen) for budget in results.budgets]
            # keep each run once, even if it is the best at two budgets
            rows = dict.fromkeys(row for row in best if row is not None)
            panel[label] = [(float(r.nfe), r.value, r.low, r.high) for r in rows]
        panels[problem] = panel
    error = "distance to the flow map / std" if chosen == "flow" else f"error by {chosen}"
    return plot.pareto(panels, y=error)
