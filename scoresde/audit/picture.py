r"""Draw an audit: five panels over the noise scale, with failed tests in red.

The panels show

1. the losses;
2. the calibration, Stein's identity and the slope, which are 1 for the exact score; an arrow marks
   a value outside the frame;
3. the excess loss;
4. the distance between samples of the SDE and samples of the flow;
5. the tests that failed.

If a test fails at a noise scale, the scale is shaded red, darker for a larger excess loss. A line
marks the worst noise scale.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable
from itertools import pairwise
from operator import attrgetter
from typing import TYPE_CHECKING

from scoresde import plot
from scoresde.audit.identities import ROUNDING, Estimate
from scoresde.plot import paper

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from scoresde.audit.result import Audit, Level

__all__ = ["picture"]

_BAD = paper.RED
_MODEL, _LINEAR, _LEAST, _TRAIN = paper.BLUE, paper.GREY, paper.COLOURS[3], paper.COLOURS[2]


def picture(audit: Audit) -> Figure:
    """Return a figure of five panels."""
    drawn = plot.figure((9.5, 12))
    panels = drawn.subplots(5, 1, sharex=True, height_ratios=(3, 3, 2, 2, 1.6))
    paper.dress(panels)
    losses, tests, excess, apart, failed = panels
    levels = audit.levels
    known = levels[0].fisher is not None

    _line(losses, levels, lambda a: a.linear, "a linear denoiser", _LINEAR, "--")
    _line(losses, levels, lambda a: a.loss, "the model", _MODEL)
    if known:
        _line(losses, levels, lambda a: a.floor, "the least possible", _LEAST, ":")
    if levels[0].memory is not None:
        _line(losses, levels, _of_training, "the model on\ntraining data", _TRAIN)
        _line(losses, levels, _memorised, "the least possible\non training data", _TRAIN, ":")
    top = 3 * max(max(a.loss.value, a.linear.value) for a in levels)
    least = min(a.loss.value for a in levels)
    losses.set(ylabel="held-out loss", yscale="log", ylim=(least / 3, top))

    tests.axhline(1, color=paper.INK, linewidth=0.8)
    # limit the axis, since wide intervals and large deviations would hide the other values
    sure = [e for a in levels for e in _of_one(a) if e.stderr < 0.1]
    reach = max([0.02, *(abs(end - 1) for e in sure for end in (e.low, e.high))])
    reach = 1.1 * min(reach, 0.3)
    tests.set(ylabel="1 for a perfect score", ylim=(1 - reach, 1 + reach))
    for test, name, colour in (
        ("calibration", "calibration", _MODEL),
        ("stein", "Stein", _TRAIN),
        ("slope", "slope of x0 on\nthe denoiser", _LEAST),
    ):
        read: Callable[[Level], Estimate] = attrgetter(f"findings.{test}")
        _line(tests, levels, read, name, colour)
        for a in levels:
            if abs(off := read(a).value - 1) > reach:
                at = 1 + math.copysign(0.95 * reach, off)
                tests.plot(a.ratio, at, "^" if off > 0 else "v", color=colour)

    what = "excess loss" if known else "excess loss, at least"
    _line(excess, levels, lambda a: a.excess, what, paper.COLOURS[4])
    largest = max(a.excess.value for a in levels)
    excess.set(ylabel=what)
    if known and largest > ROUNDING:
        excess.set(yscale="log", ylim=(largest / 1e4, 2 * largest))
    else:
        excess.axhline(0, color=paper.INK, linewidth=0.8)
        low, high = excess.get_ylim()
        excess.set_ylim(min(low, -ROUNDING), max(high, ROUNDING))

    x = [a.ratio for a in levels]
    apart.plot(x, [a.agreement.value for a in levels], marker=".", color=_MODEL,
               label="SDE against flow")  # fmt: skip
    apart.plot(x, [a.agreement.floor for a in levels], color=paper.INK, linestyle=":",
               label="equal distributions:\n95 % are below")  # fmt: skip
    apart.axhline(0, color=paper.INK, linewidth=0.8)
    apart.set(ylabel="distance of samples")

    faults = [name for name in levels[0].z if name != "memory" or levels[0].memory is not None]
    faults.append("SDE-ODE")
    marks = [(a.ratio, name) for a in levels for name in a.failed]
    marks += [(a.ratio, "SDE-ODE") for a in levels if a.agreement.z > a.limit]
    failed.scatter([r for r, _ in marks], [faults.index(n) for _, n in marks], marker="s", c=_BAD)
    failed.set_yticks(range(len(faults)), faults, fontsize="small")
    failed.set(ylim=(len(faults) - 0.5, -0.5), xlabel=r"$\sigma/\alpha$", xscale="log")
    failed.set_title(
        "failed tests (shaded: noise scales with a failed test, darker for a larger excess; "
        "line: the worst)",
        fontsize="small", loc="left", color=paper.INK,
    )  # fmt: skip

    edges = [(a * b) ** 0.5 for a, b in pairwise(x)]
    edges = [x[0] ** 2 / edges[0], *edges, x[-1] ** 2 / edges[-1]]
    for axes in panels:
        axes.grid(alpha=0.3, color=paper.GREY)
        paper.legend(axes)
        for i, level in enumerate(levels):
            if level.failed:
                share = min(1.0, max(0.0, level.excess.value) / max(largest, 1e-300))
                axes.axvspan(
                    edges[i + 1], edges[i], color=_BAD, alpha=0.03 + 0.25 * share, linewidth=0
                )
        if audit.worst is not None:
            axes.axvline(audit.worst.ratio, color=_BAD, linewidth=1)
    title = "\n".join(textwrap.wrap(audit.verdict(), 100))
    drawn.suptitle(title, fontsize="medium", color=paper.INK)
    return drawn


def _of_one(level: Level) -> tuple[Estimate, ...]:
    findings = level.findings
    return findings.calibration, findings.stein, findings.slope


def _of_training(level: Level) -> Estimate | None:
    return None if level.memory is None else level.memory.loss


def _memorised(level: Level) -> Estimate | None:
    return None if level.memory is None else level.memory.floor


def _line(
    axes: Axes,
    levels: tuple[Level, ...],
    read: Callable[[Level], Estimate | None],
    name: str,
    colour: str,
    dashes: str = "-",
) -> None:
    """Draw a curve over the noise scale, with its interval shaded."""
    seen = [(a.ratio, e) for a in levels if (e := read(a)) is not None]
    x = [ratio for ratio, _ in seen]
    axes.plot(x, [e.value for _, e in seen], dashes, marker=".", color=colour, label=name)
    axes.fill_between(
        x, [e.low for _, e in seen], [e.high for _, e in seen], color=colour, alpha=0.2, linewidth=0
    )
