"""What `evaluate` finds: a table, a JSON file, a picture."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from scoresde.checks import check_name
from scoresde.metrics.resampling import Estimate
from scoresde.result import Result

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Sheet

__all__ = ["FIGURES", "OWN", "Comparison", "Evaluation", "Figure"]


class Figure(NamedTuple):
    """Hold what a figure means: where it is good, and what it can be.

    Attributes:
        good: Where it is good.
        low: The least that it can be on average.
        high: The largest.
        square: Whether it estimates the square of a distance.
        share: Whether it is a share of the samples, or of as many data.
    """

    good: str
    low: float = float("-inf")
    high: float = float("inf")
    square: bool = False
    share: bool = False


OWN = "the samples themselves"
"""What the features are where there is no map."""

# Numbers in a sample up to which a cubic kernel of it is a sound one.
_FEW = 16

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
"""The figures of the metrics here, by name."""


class Comparison(NamedTuple):
    """One figure: of the samples, of other real data against the same, and the difference.

    The reference data are the same on both sides, half by half too, so that the difference is known
    better than either, and the bias of a figure mostly leaves it.
    """

    samples: Estimate
    floor: Estimate
    gap: Estimate

    @property
    def differs(self) -> bool:
        """Return whether there is an interval of the difference, to one side of 0."""
        return self.gap.low < self.gap.high and (self.gap.low > 0 or self.gap.high < 0)


@dataclass(frozen=True, repr=False)
class Evaluation(Result, Mapping[str, Comparison]):
    """Describe how far samples are from data: for each figure a `Comparison`, by name.

    Attributes:
        figures: The comparisons.
        n: How many samples, as many reference data, and as many others for the floor.
        size: The number of features.
        features: What they are.
        seed: The seed of the split of the data and of the random halves.
        resamples: How many halves.
        level: The probability that the intervals are to have.
    """

    figures: Mapping[str, Comparison]
    n: int
    size: int
    features: str
    seed: int
    resamples: int
    level: float

    def __getitem__(self, name: str) -> Comparison:
        check_name("figure", name, self.figures)
        return self.figures[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.figures)

    def __len__(self) -> int:
        return len(self.figures)

    def __str__(self) -> str:
        head = (
            f"{self.n} samples, and {self.n} real ones as the floor, against {self.n} other real "
            f"ones\nin {self.size} features ({self.features}); intervals of {self.level:.0%} from "
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
                "* 0 is outside of the interval, as it is once in "
                f"{1 / (1 - self.level):.0f} times by chance"
            ]
            if self.resamples and any(row.differs for _, row in self.items())
            else []
        )
        return "\n".join([head, "", *lines, *foot, *self._remarks()])

    def _remarks(self) -> list[str]:
        """Return what a newcomer may take amiss in the table."""
        said = []
        squares = [row for name, row in self.items() if name in FIGURES and FIGURES[name].square]
        if any(min(row.samples.value, row.floor.value) < 0 for row in squares):
            said.append(
                "squares of distances are estimated without bias, so that those near 0 may be "
                "negative"
            )
        if "kid" in self and self.features == OWN and self.size > _FEW:
            said.append(
                "kid is meant for the features of a network; of raw samples in many dimensions it "
                "depends on the largest numbers, and mmd says more"
            )
        return said

    def _cell(self, estimate: Estimate) -> str:
        return str(estimate) if self.resamples else f"{estimate.value:.3g}"

    def _entries(self) -> dict[str, Any]:
        own = {name: value for name, value in vars(self).items() if name != "figures"}
        figures = {
            name: {part: value._asdict() for part, value in row._asdict().items()}
            for name, row in self.items()
        }
        return {**own, "figures": figures}

    def plot(self) -> Sheet:
        """Draw each figure with its interval, beside the floor."""
        from scoresde.metrics.picture import picture

        return picture(self)
