"""What a calibration found: a table, JSON, a picture, and a verdict."""

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
from scoresde.result import Result

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Calibration", "Quantity"]

SHARES = (0.5, 0.9)


@dataclass(frozen=True)
class Quantity:
    """Describe where the truth lies among the draws in one number of theirs.

    Attributes:
        name: Which number: an entry, a projection, the distance or the log-likelihood.
        coverage: How often the central intervals of 50 and 90 % of the draws held the truth.
        errors: By how many standard errors that is off.
        place: The mean place of the truth in (0, 1), 1/2 where the draws are right.
        counts: How many of the places are at most .01, .02, ..., .99.
        p: For each test its p-value: "ranks" of the whole distribution of the places, "spread" of
            the sum of the squares of their normal deviates, "50 %" and "90 %" of the coverage.
    """

    name: str
    coverage: tuple[float, float]
    errors: tuple[float, float]
    place: float
    counts: tuple[int, ...]
    p: Mapping[str, float]

    @property
    def fault(self) -> str:
        """Name in words what is wrong with the draws, if anything is."""
        if max(self.errors) < -3 or min(self.errors) > 3:
            width = "narrow" if self.errors[1] < 0 else "wide"
            return f"too {width} (intervals of 90 % hold {100 * self.coverage[1]:.0f} %)"
        return f"too {'high' if self.place < 0.5 else 'low'}"

    @classmethod
    def of(cls, name: str, u: Tensor) -> Quantity:
        """Return what the places `(N,)` of the truths say."""
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
    """Tell whether draws are of the posterior, and how much they know.

    Attributes:
        quantities: What was looked at.
        n: Data sets.
        draws: Draws for each.
        level: The probability that draws of the posterior raise an alarm.
        energy: The energy score of the draws in units of the prior's spread: the less, the sharper.
        skill: 1 less the ratio of that to the score of draws from the prior: 0 knows nothing.
        log_density: The expected log-density of the truth, where it was asked for.
        first: What a first run found that raised an alarm, after which this one has four times as
            many data sets.
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
    def alarms(self) -> dict[str, float]:
        """The tests that failed, with their p-values adjusted for the number of tests (Holm)."""
        names = [f"{q.name}, {test}" for q in self.quantities for test in q.p]
        raw = torch.tensor([p for q in self.quantities for p in q.p.values()], dtype=torch.float64)
        found = dict(zip(names, holm(raw).tolist(), strict=True))
        worst = sorted(found, key=lambda name: found[name])
        return {name: found[name] for name in worst if found[name] < self.level}

    @property
    def passed(self) -> bool:
        """Return whether no test failed."""
        return not self.alarms

    def verdict(self) -> str:
        """Return one or two sentences: whether the draws are calibrated, and how sharp they are."""
        tests = sum(len(q.p) for q in self.quantities)
        alarms = self.alarms
        if not alarms:
            said = f"Calibrated: none of {tests} tests fails at {self.level:.2g} in all."
        else:
            failed = list(dict.fromkeys(name.rpartition(", ")[0] for name in alarms))
            own = {q.name: q for q in self.quantities}
            worst = ", ".join(f"{name} {own[name].fault}" for name in failed[:3])
            more = f" and {len(failed) - 3} more" if len(failed) > 3 else ""
            said = f"Not calibrated: {worst}{more}; {len(alarms)} of {tests} tests fail."
        side = "below" if self.skill.value >= 0 else "above"
        return (
            f"{said} Their energy score is {abs(self.skill.value):.0%} {side} that of draws from "
            "the prior, which ignore the data."
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
        return "\n".join([top, *lines, "; ".join(known), self.verdict()])

    def _entries(self) -> dict[str, Any]:
        own = {"alarms": self.alarms, "passed": self.passed, "verdict": self.verdict()}
        first = None if self.first is None else self.first.as_json()
        return {**asdict(self), "first": first, **own}

    def plot(self) -> Figure:
        """Draw the places of the truth against uniform ones, and the coverage."""
        from scoresde.metrics.calibration.picture import picture

        return picture(self)
