"""The picture of a comparison: errors against evaluations, a panel for each problem."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

from scoresde import plot
from scoresde.arena.results import Results

__all__ = ["pareto"]


def pareto(
    results: Results,
    path: str | os.PathLike[str],
    *,
    metric: str | None = None,
    against: Collection[str] = (),
) -> Path:
    """Write errors against evaluations, one panel for each problem, with their intervals.

    Args:
        results: what was found.
        path: the file, ending in `.png`.
        metric: which error; the first one that was measured by default.
        against: samplers that are not shown one by one: for each library, the part of their names
            before the colon, one curve of the best that it has at each budget.

    Returns:
        The path.

    Raises:
        UnknownNameError: The metric was not measured.
        InvalidValueError: The results are empty, or the file cannot be written.
        MissingExtraError: matplotlib is not installed.
    """
    chosen = results.metric_or_first(metric)
    groups = {name: [name] for name in results.samplers if name not in against}
    for name in against:
        groups.setdefault(f"best of {name.partition(':')[0]}", []).append(name)
    panels = {}
    for problem in results.problems:
        panel = {}
        for label, names in groups.items():
            best = [results.best(names, problem, budget, chosen) for budget in results.budgets]
            # a run that is best at two budgets is one point
            rows = dict.fromkeys(row for row in best if row is not None)
            panel[label] = [(float(r.nfe), r.value, r.low, r.high) for r in rows]
        panels[problem] = panel
    error = "distance to the flow map / std" if chosen == "flow" else f"error by {chosen}"
    return plot.pareto(panels, path, y=error)
