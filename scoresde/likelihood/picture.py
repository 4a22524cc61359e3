"""Draw log-densities in ascending order, and the parts of their uncertainty."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from scoresde.errors import ShapeError
from scoresde.likelihood.result import part_label
from scoresde.plot import paper

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from scoresde.likelihood.result import LogProb

__all__ = ["picture"]


def picture(found: LogProb) -> Figure:
    """Return a figure of log-densities; a second panel shows the parts of their error, if any."""
    if len(found.value) == 0:
        raise ShapeError("there is no log-density to show; give at least one sample")
    known = {
        name: part[part.isfinite()] for name, part in found.parts.items() if part.isfinite().any()
    }
    count = 2 if known else 1
    drawn, (values, *rest) = paper.sheet(None, (5.4 * count, 4), 1, count)
    order = found.value.argsort()
    error = found.error[order].nan_to_num(0.0, posinf=0.0)
    values.errorbar(
        torch.arange(1, len(order) + 1), found.value[order], yerr=error, fmt=".", markersize=4,
        color=paper.BLUE, ecolor=paper.GREY, elinewidth=0.8,
    )  # fmt: skip
    mean, spread = found.mean()[0], sum(found.spread())
    label = f"mean {mean:.4g} ± {spread:.2g} nats, 95 %" if len(order) > 1 else f"{mean:.4g} nats"
    values.axhline(mean, color=paper.RED, linewidth=1, label=label)
    values.set(
        xlabel="samples, from the smallest density to the largest",
        ylabel="log-density in nats, ± 95 %",
    )
    values.set_xlim(0.5, len(order) + 0.5)
    if len(order) > 1:
        values.locator_params(axis="x", integer=True)
    else:
        values.set_xticks([1])
    values.grid(alpha=0.3, color=paper.GREY)
    values.legend(fontsize="small", labelcolor=paper.INK, frameon=False, loc="lower right")
    for panel in rest:
        names = list(known)
        for at, part in enumerate(known.values(), 1):
            low, lower, middle, upper, high = part.quantile(torch.linspace(0, 1, 5).to(part))
            panel.plot([low, high], [at, at], color=paper.GREY, linewidth=1.5)
            panel.fill_between([lower, upper], at - 0.12, at + 0.12, color=paper.BLUE, alpha=0.6)
            panel.plot(middle, at, "o", color=paper.RED, markersize=5)
        panel.set_yticks(range(1, len(names) + 1), [part_label(name) for name in names])
        panel.set_ylim(0.4, len(names) + 0.6)
        panel.set_title("half-widths: range, middle half, median", fontsize="small")
        panel.set_xlabel("nats")
        panel.ticklabel_format(axis="x", scilimits=(-2, 4))
        panel.locator_params(axis="x", nbins=5)
        panel.grid(alpha=0.3, color=paper.GREY)
    title = str(found).partition("\n")[0]
    drawn.suptitle(title, fontsize="medium", color=paper.INK)
    return drawn
