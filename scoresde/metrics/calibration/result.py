"""Hold the result of a calibration, and show it as a table, JSON, a picture and a verdict."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from scoresde.metrics.calibration.uniformity import (
    binomial_p,
    chi_square_p,
    counts_of,
    ecdf_p,
    holm,
)
from scoresde.metrics.resampling import Estimate
from scoresde.precision import full_precision
from scoresde.result import Result

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Calibration", "Quantity"]

SHARES = (0.5, 0.9)


@dataclass(frozen=True)
class Quantity:
    """Hold the results of the tests of one quantity.

    Attributes:
        name: The name of the quantity: an entry, a projection, the distance or the log-likelihood.
        coverage: The share of true values in the central intervals of 50 and 90 % of the draws.
        errors: The deviations of `coverage` from .5 and .9, in standard errors.
        place: The mean rank of the true values, scaled to (0, 1); about 1/2 if the draws are right.
        counts: The number of scaled ranks that are at most .01, .02, ..., .99.
        p: The p-value of each test: "ranks" tests the distribution of the ranks, "spread" the sum
            of their squared normal deviates, and "50 %" and "90 %" the coverage.
    """

    name: str
    coverage: tuple[float, float]
    errors: tuple[float, float]
    place: float
    counts: tuple[int, ...]
    p: Mapping[str, float]

    @property
    def fault(self) -> str:
        """Describe the error of the draws: too narrow, too wide, too high or too low."""
        if max(self.errors) < -3 or min(self.errors) > 3:
            width = "narrow" if self.errors[1] < 0 else "wide"
            return f"too {width} (90 % intervals contain {100 * self.coverage[1]:.0f} %)"
        return f"too {'high' if self.place < 0.5 else 'low'}"

    @classmethod
    def of(cls, name: str, u: Tensor) -> Quantity:
        """Test the scaled ranks `(N,)` of the true values."""
        n, counts = len(u), counts_of(u)
        held = [int(((u - 0.5).abs() < share / 2).sum()) for share in SHARES]
        p = {"ranks": ecdf_p(counts, n), "spread": chi_square_p(u)}
        p |= {f"{100 * s:.0f} %": binomial_p(k, n, s) for s, k in zip(SHARES, held, strict=True)}
        half, ninety = (k / n for k in held)
        one, two = (
            (k / n - s) / (s * (1 - s) / n) ** 0.5 for s, k in zip(SHARES, held, strict=True)
        )
        place = float(u.double().mean())
        return cls(name, (half, ninety), (one, two), place, tuple(int(c) for c in counts), p)


@dataclass(frozen=True, repr=False)
class Calibration(Result):
    """Hold the tests of draws from a posterior, and measures of their sharpness.

    Attributes:
        quantities: The tested quantities.
        n: The number of data sets.
        draws: The number of draws for each data set.
        level: The largest probability that draws from the posterior raise an alarm in this run.
        energy: The energy score of the draws in units of the prior's standard deviation; smaller is
            better.
        skill: 1 minus the ratio of `energy` to the energy score of draws from the prior; 0 if the
            draws are no better than draws from the prior.
        log_density: The mean log-density of the true parameters, if `log_density` was given.
        first: The result of the first run, if that run raised an alarm. This object is then the
            result of the second run, with four times as many data sets.
    """

    quantities: tuple[Quantity, ...]
    n: int
    draws: int
    level: float
    energy: Estimate
    skill: Estimate
    log_density: Estimate | None = None
    first: Calibration | None = None

    @property
    @full_precision()
    def alarms(self) -> dict[str, float]:
        """Return the adjusted p-values of the failed tests by name, the smallest first (Holm)."""
        names = [f"{q.name}, {test}" for q in self.quantities for test in q.p]
        raw = torch.tensor([p for q in self.quantities for p in q.p.values()], dtype=torch.float64)
        found = dict(zip(names, holm(raw).tolist(), strict=True))
        worst = sorted(found, key=lambda name: found[name])
        return {name: found[name] for name in worst if found[name] < self.level}

    @property
    def passed(self) -> bool:
        """Return True if no test failed."""
        return not self.alarms

    def verdict(self) -> str:
        """Say in one or two sentences whether the draws are calibrated, and how sharp they are."""
        tests = sum(len(q.p) for q in self.quantities)
        alarms = self.alarms
        if not alarms:
            text = f"Calibrated: none of {tests} tests fails (level {self.level:.2g} for all)."
        else:
            failed = list(dict.fromkeys(name.rpartition(", ")[0] for name in alarms))
            by_name = {q.name: q for q in self.quantities}
            worst = ", ".join(f"{name} {by_name[name].fault}" for name in failed[:3])
            more = f" and {len(failed) - 3} more" if len(failed) > 3 else ""
            text = f"Not calibrated: {worst}{more}; {len(alarms)} of {tests} tests fail."
        side = "below" if self.skill.value >= 0 else "above"
        return (
            f"{text} The energy score of the draws is {abs(self.skill.value):.0%} {side} that of "
            "draws from the prior, which ignore the data."
        )

    def __str__(self) -> str:
        head = ["", "in 50 %", "off, s.e.", "in 90 %", "off, s.e.", "p ranks", "p spread"]
        rows = [head]
        for q in self.quantities:
            (half, ninety), (one, two) = q.coverage, q.errors
            rows.append(
                [
                    q.name, f"{half:.3f}", f"{one:+.1f}", f"{ninety:.3f}", f"{two:+.1f}",
                    f"{q.p['ranks']:.2g}", f"{q.p['spread']:.2g}",
                ]
            )  # fmt: skip
        widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
        lines = [
            "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])])
            for row in rows
        ]
        known = [f"energy score {self.energy}", f"skill over the prior {self.skill}"]
        if self.log_density is not None:
            known.append(f"log-density of the truth {self.log_density}")
        top = f"{self.n:,} data sets, {self.draws} draws each"
        foot = (
            "50 % and 90 % intervals of the draws should contain 50 % and 90 % of the true "
            "values, within 3 standard errors (s.e.);\na small p is evidence against the draws; "
            "energy score: smaller is better; skill: 0 for draws from the prior, larger is better"
        )
        return "\n".join([top, *lines, "; ".join(known), foot, self.verdict()])

    def _entries(self) -> dict[str, Any]:
        summary = {"alarms": self.alarms, "passed": self.passed, "verdict": self.verdict()}
        first = None if self.first is None else self.first.as_json()
        return {**asdict(self), "first": first, **summary}

    def plot(self) -> Figure:
        """Draw the distribution of the ranks, and the coverage of intervals."""
        from scoresde.metrics.calibration.picture import picture

        return picture(self)
