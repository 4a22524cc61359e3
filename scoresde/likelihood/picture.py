"""Draw log-densities, one by one or as a histogram, and the parts of their uncertainty."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from scoresde.errors import ShapeError
from scoresde.likelihood.result import part_label
from scoresde.plot import paper

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from scoresde.likelihood.result import LogProb

__all__ = ["picture"]

# At most this many samples are drawn one by one; more samples are drawn as a histogram.
_EACH = 40


def picture(found: LogProb) -> Figure:
    """Return a figure of log-densities, with a second panel for the parts of their errors."""
    if len(found.value) == 0:
        raise ShapeError("there is no log-density to show; give at least one sample")
    known = {
        name: part[part.isfinite()] for name, part in found.parts.items() if part.isfinite().any()
    }
    count = 2 if known else 1
    drawn, (values, *rest) = paper.sheet(None, (5.4 * count, 4), 1, count)
    n, (mean, _), spread = len(found.value), found.mean(), sum(found.spread())
    label = f"mean {mean:.4g} ± {spread:.2g} nats, 95 %" if n > 1 else f"{mean:.4g} nats"
    if n <= _EACH:
        error = found.error.nan_to_num(0.0, posinf=0.0)
        values.errorbar(
            found.value, torch.arange(n), xerr=error, fmt=".", markersize=5, color=paper.BLUE,
            ecolor=paper.GREY, elinewidth=1,
        )  # fmt: skip
        values.set(ylabel="number of the sample", ylim=(n - 0.5, -0.5))
        if n > 1:
            values.locator_params(axis="y", integer=True)
        else:
            values.set_yticks([0])
    else:
        bars = min(60, max(8, round(math.sqrt(n))))
        values.hist(found.value.tolist(), bins=bars, color=paper.BLUE, alpha=0.6)
        values.set(ylabel="samples")
    if n > 1 and math.isfinite(spread):
        values.axvspan(mean - spread, mean + spread, color=paper.RED, alpha=0.15, linewidth=0)
    values.axvline(mean, color=paper.RED, linewidth=1, label=label)
    interval = "" if n > _EACH else ", ± 95 %"
    values.set_xlabel(f"log-density in nats{interval}; further right is likelier")
    values.locator_params(axis="x", nbins=6)
    values.grid(alpha=0.3, color=paper.GREY)
    values.legend(
        fontsize="small", labelcolor=paper.INK, frameon=False, loc="lower left",
        bbox_to_anchor=(0, 1), borderaxespad=0.2,
    )  # fmt: skip
    for panel in rest:
        names = list(known)
        for at, part in enumerate(known.values(), 1):
            low, lower, middle, upper, high = part.quantile(torch.linspace(0, 1, 5).to(part))
            panel.plot([low, high], [at, at], color=paper.GREY, linewidth=1.5)
            panel.fill_between([lower, upper], at - 0.12, at + 0.12, color=paper.BLUE, alpha=0.6)
            panel.plot(middle, at, "o", color=paper.RED, markersize=5)
        panel.set_yticks(range(1, len(names) + 1), [part_label(name) for name in names])
        panel.set_ylim(0.4, len(names) + 0.6)
        panel.set_title(
            "parts of the error (line: all, box: middle half, dot: median)", fontsize="small"
        )
        panel.set_xlabel("half-width of 95 % in nats")
        panel.ticklabel_format(axis="x", scilimits=(-2, 4))
        panel.locator_params(axis="x", nbins=5)
        panel.grid(alpha=0.3, color=paper.GREY)
    title = str(found).partition("\n")[0]
    drawn.suptitle(title, fontsize="medium", color=paper.INK)
    return drawn
