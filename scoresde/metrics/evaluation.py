"""Hold the result of `evaluate`, and show it as a table, a JSON file, a picture and a verdict."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from scoresde.checks import check_name
from scoresde.metrics.interval import outside, student
from scoresde.metrics.resampling import Estimate
from scoresde.result import Result

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Sheet

__all__ = ["COARSE", "ENOUGH", "FIGURES", "OWN", "Comparison", "Evaluation", "Figure"]


class Figure(NamedTuple):
    """Describe a figure (a number that a metric returns): its good and its possible values.

    Attributes:
        good: Which values are good: "small", "large" or "at the floor".
        low: The smallest possible expectation.
        high: The largest possible expectation.
        square: True if the value estimates the square of a distance.
        share: True if the value is a share of the samples or of the reference data.
    """

    good: str
    low: float = float("-inf")
    high: float = float("inf")
    square: bool = False
    share: bool = False


OWN = "the samples themselves"
"""The name of the features without a feature map."""

# kid of raw samples is useful only if a sample has at most this many numbers.
_FEW = 16

# With fewer than ENOUGH samples the verdict says that there are few. With fewer than COARSE only
# gross faults are found.
ENOUGH, COARSE = 500, 100

_SQUARE = Figure("small", low=0, square=True)

FIGURES: Mapping[str, Figure] = {
    "frechet": _SQUARE,
    "frechet_limit": _SQUARE,
    "mmd": _SQUARE,
    "kid": _SQUARE,
    "energy": _SQUARE,
    "sliced": _SQUARE,
    "precision": Figure("large", 0, 1, share=True),
    "recall": Figure("large", 0, 1, share=True),
    "density": Figure("large", low=0),
    "coverage": Figure("large", 0, 1, share=True),
    "copied": Figure("at the floor", 0, 1, share=True),
    "nearer": Figure("at the floor", 0, 1),
}
"""The figures of the metrics of this package, by name."""


class Comparison(NamedTuple):
    """Hold a figure for the samples, the same figure for the floor, and the difference.

    For the floor, real data take the place of the samples. Samples and floor are compared with the
    same reference data, and with the same halves of these data. So the difference is more precise
    than either value, and most of the bias cancels.
    """

    samples: Estimate
    floor: Estimate
    gap: Estimate

    def __str__(self) -> str:
        return f"{self.samples}, for real data {self.floor}"

    @property
    def differs(self) -> bool:
        """Return True if the interval of the difference excludes 0."""
        return self.gap.low < self.gap.high and (self.gap.low > 0 or self.gap.high < 0)


def _worse(name: str, row: Comparison) -> bool:
    """Return True if the value of the samples is worse than that of the floor.

    If the good value is "at the floor", all values above and below the floor are worse.
    """
    good = FIGURES[name].good if name in FIGURES else "at the floor"
    above = row.gap.value > 0
    return above if good == "small" else not above if good == "large" else True


def _widths(gap: Estimate) -> float:
    """Return the absolute difference divided by the half-width of its interval."""
    return abs(gap.value) / abs(gap.value - (gap.low if gap.value > 0 else gap.high))


@dataclass(frozen=True, repr=False)
class Evaluation(Result, Mapping[str, Comparison]):
    """Hold the figures of samples compared with data, by name.

    Attributes:
        figures: The comparisons.
        n: The number of samples, of reference data, and of data in the floor.
        size: The number of features.
        features: The name of the features.
        seed: The seed for the split of the data and for the random halves.
        resamples: The number of random halves.
        level: The confidence of the intervals.
        spread: The variance of the features of the reference data, averaged over features.
        left_out: The default metrics that were left out because they need more samples.
        units: "model" if the data have a transform, after which they are compared, else "data".
    """

    figures: Mapping[str, Comparison]
    n: int
    size: int
    features: str
    seed: int
    resamples: int
    level: float
    spread: float | None = None
    left_out: tuple[str, ...] = ()
    units: str = "data"

    def __getitem__(self, name: str) -> Comparison:
        check_name("figure", name, self.figures)
        return self.figures[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.figures)

    def __len__(self) -> int:
        return len(self.figures)

    def __str__(self) -> str:
        head = (
            f"{self.n} samples, and {self.n} real data as the floor, against {self.n} other real "
            f"data\nin {self.size} features ({self.features}); intervals of {self.level:.0%} from "
            f"{self.resamples} random halves"
        )
        if not self.resamples:
            head = head.rpartition(";")[0]
        table = [["", "good", "samples", "floor", "difference"]]
        for name, row in self.items():
            good = FIGURES[name].good if name in FIGURES else ""
            mark = " *" if row.differs and self.resamples else ""
            table.append([name, good, *map(self._cell, row[:2]), self._cell(row.gap) + mark])
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        lines = ["  ".join(map(str.ljust, line, widths)).rstrip() for line in table]
        foot = (
            [
                "* the interval of the difference excludes 0, which happens by chance once in "
                f"{1 / (1 - self.level):.0f} times"
            ]
            if self.resamples and any(row.differs for _, row in self.items())
            else []
        )
        said = [self.verdict()] if self.resamples else []
        return "\n".join([head, "", *lines, *foot, *self._remarks(), *said])

    def verdict(self) -> str:
        """Say in a sentence which figures distinguish the samples from data.

        A figure distinguishes them if the interval of its difference from the floor excludes 0.
        """
        different = {name: row for name, row in self.items() if row.differs}
        count = (
            f"none of the {len(self)} figures distinguishes" if len(self) > 1 else "no figure tells"
        )
        few = (
            f" So few samples, {self.n:,}, show coarse differences only; more held-out data show "
            "finer ones."
            if self.n < ENOUGH
            else ""
        )
        worse = [name for name, row in different.items() if _worse(name, row)]
        parts = ", ".join(
            f"{name} {self[name].samples.value:.3g} for {self[name].floor.value:.3g}"
            for name in (worse or list(different))[:4]
        )
        are = f"{len(worse)} of {len(self)} figures {'is' if len(worse) == 1 else 'are'}"
        chance = self._by_chance(worse)
        if worse and chance <= 1 - self.level:
            return f"Not yet like real data: {are} worse than for real data ({parts}).{few}"
        by_chance = f"{are} worse ({parts}), which happens by chance in {chance:.0%} of such tables"
        if self.n < COARSE:
            seen = f"; {by_chance}" if worse else ""
            return (
                f"Undecided: {self.n} samples against {self.n} show only the largest errors of a "
                f"model{seen}. Take more samples, and compare with new data, or hold out more data "
                "in the training."
            )
        if worse:
            return f"No clear difference from real data: {by_chance}.{few}"
        if different:
            return f"Good: no figure is worse than for real data (better: {parts}).{few}"
        return f"Good: {count} the samples from real data.{few}"

    def _by_chance(self, worse: Sequence[str]) -> float:
        """Return an upper bound of the p-value of a table in which these figures are worse.

        The bound is the smaller of two numbers: the probability that as many independent figures
        are worse by chance, and the smallest p-value times the number of figures (Bonferroni).
        """
        n, miss = len(self), 1 - self.level
        stars = sum(
            math.comb(n, k) * miss**k * self.level ** (n - k) for k in range(len(worse), n + 1)
        )
        freedom = 1 / (1 / max(self.resamples - 1, 1) + 7 / self.n)
        t = student(self.level, freedom)
        clearest = max((t * _widths(self[name].gap) for name in worse), default=0.0)
        return min(stars, n * outside(clearest, freedom))

    def _remarks(self) -> list[str]:
        """Return remarks that prevent misreading the table."""
        remarks = []
        if self.left_out:
            why = "is left out, since it needs more samples"
            if len(self.left_out) > 1:
                why = "are left out, since they need more samples"
            remarks.append(f"{' and '.join(self.left_out)} {why}")
        squares = [row for name, row in self.items() if name in FIGURES and FIGURES[name].square]
        if {"frechet", "sliced"} & {*self} and self.spread is not None and self.features == OWN:
            of = {"data": "data, whose", "model": "model, in which the data's"}[self.units]
            remarks.append(
                f"frechet and sliced are in squared units of the {of} mean variance is "
                f"{self.spread:.3g}"
            )
        if any(min(row.samples.value, row.floor.value) < 0 for row in squares):
            remarks.append(
                "squared distances are estimated without bias, so that values near 0 may be "
                "negative"
            )
        if "kid" in self and self.features == OWN and self.size > _FEW:
            remarks.append(
                "kid is meant for the features of a network; on raw samples in many dimensions it "
                "depends on the largest numbers, and mmd is more informative"
            )
        return remarks

    def _cell(self, estimate: Estimate) -> str:
        return str(estimate) if self.resamples else f"{estimate.value:.3g}"

    def _entries(self) -> dict[str, Any]:
        entries = {name: value for name, value in vars(self).items() if name != "figures"}
        figures = {
            name: {part: value._asdict() for part, value in row._asdict().items()}
            for name, row in self.items()
        }
        return {**entries, "figures": figures, "verdict": self.verdict()}

    def plot(self, name: str = "") -> Sheet:
        """Draw each value with its interval, beside the floor.

        Args:
            name: The name of the model, for the title.
        """
        from scoresde.metrics.picture import picture

        return picture(self, name)
