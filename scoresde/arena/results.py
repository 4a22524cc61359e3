"""Hold the results of a comparison as rows, and make tables, ratios and pictures of the rows."""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Collection, Iterator
from dataclasses import asdict, astuple, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scoresde import checkpoint
from scoresde.checks import check_integer, check_name, check_range
from scoresde.errors import CheckpointError, InvalidValueError
from scoresde.result import Result

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Ratio", "Results", "Row"]


@dataclass(frozen=True)
class Row:
    """Hold the measured error of a sampler on a problem, with its budget.

    Attributes:
        problem: The name of the problem.
        sampler: The name of the sampler.
        budget: The largest allowed number of evaluations per sample.
        nfe: The number of evaluations per sample that were made.
        metric: The kind of error, "flow" or one of `scoresde.arena.LAW`.
        value: The error.
        low: The lower end of its 95 % interval.
        high: The upper end.
        floor: The error of equally many exact samples, which is not 0 since they are finitely many.
            It is None for "flow", in which exact results have no error.
        seconds: The time of one run.
        pilot: The evaluations per sample of the sampler's pilot run, without the choice of
            settings; they are not part of `nfe`. It is 0 if there is no pilot run.
    """

    problem: str
    sampler: str
    budget: int
    nfe: int
    metric: str
    value: float
    low: float
    high: float
    floor: float | None
    seconds: float
    pilot: int = 0


@dataclass(frozen=True)
class Ratio:
    """Compare a sampler with the best of some other samplers, over all problems.

    The ratio on one problem is the error of the sampler divided by the smallest error of the other
    samplers.

    Attributes:
        sampler: The name of the sampler.
        budget: The largest allowed number of evaluations per sample.
        mean: The geometric mean of the ratios, where ratios below the argument `clip` of
            `Results.ratios` are replaced by `clip`.
        worst: The largest ratio.
        wins: The number of problems with a ratio below 1.
        problems: The number of problems.
        pilot: The evaluations per sample of the sampler's pilot run, as in `Row`.
    """

    sampler: str
    budget: int
    mean: float
    worst: float
    wins: int
    problems: int
    pilot: int


@dataclass(frozen=True, repr=False)
class Results(Result):
    """Hold the rows of a comparison.

    Args:
        rows: The rows in any order; two comparisons are joined by `Results(a.rows + b.rows)`.
    """

    rows: tuple[Row, ...]

    def __repr__(self) -> str:
        return f"Results({len(self.rows)} rows)"

    def __str__(self) -> str:
        return self.table()

    def _entries(self) -> dict[str, Any]:
        return asdict(self)

    def plot(self, metric: str | None = None, against: Collection[str] = ()) -> Figure:
        """Draw errors against evaluations, one panel for each problem, with their intervals.

        Args:
            metric: The kind of error; by default the first kind that was measured.
            against: Names `library:sampler` of other libraries. Each library has one curve, which
                shows the best of its samplers at each budget.

        Raises:
            UnknownNameError: The metric was not measured.
            InvalidValueError: The results are empty.
        """
        from scoresde.arena.picture import picture

        return picture(self, metric, against)

    def get(self, sampler: str, problem: str, budget: int, metric: str = "flow") -> Row:
        """Return the row of a sampler, problem, budget and metric.

        Raises:
            InvalidValueError: There is no such row.
        """
        for row in self.rows:
            if (row.sampler, row.problem, row.budget, row.metric) == (
                sampler, problem, budget, metric,
            ):  # fmt: skip
                return row
        raise InvalidValueError(
            f"no row for {sampler!r} on {problem!r} at {budget} evaluations by {metric!r}"
        )

    def of(self, *samplers: str) -> Results:
        """Return the results of these samplers only."""
        return Results(tuple(row for row in self.rows if row.sampler in samplers))

    def best(self, samplers: Collection[str], problem: str, budget: int, metric: str) -> Row | None:
        """Return the row with the smallest error at `budget` evaluations or fewer, or None."""
        rows = [
            row
            for row in self.rows
            if row.sampler in samplers
            and row.nfe <= budget
            and row.problem == problem
            and row.metric == metric
        ]
        return min(rows, key=lambda row: row.value, default=None)

    def ratios(
        self, against: Collection[str], metric: str | None = None, *, clip: float = 0.1
    ) -> tuple[Ratio, ...]:
        r"""Compare each sampler outside `against` with the best sampler in it, for each budget.

        With the errors $e_p$ of the sampler and $e_{q,p}$ of the samplers in `against` on P
        problems, the mean is

        $$ \Big( \prod_p \max\big(\text{clip}, e_p / \min_{q \in \text{against}} e_{q,p}\big)
           \Big)^{1 / P}. $$

        If the errors of all samplers in `against` are large on a problem, the ratio is nearly 0;
        `clip` limits its influence on the mean. If they are infinite, the problem is left out. If a
        sampler in `against` has a row with at most this budget, and the compared sampler has none,
        the ratio is infinite. A budget at which all ratios are infinite is left out.

        Args:
            against: Names of the samplers to compare with.
            metric: The kind of error; by default the first kind that was measured. No error may be
                negative; "energy" and "sliced" are unbiased estimates and may be negative.
            clip: Smaller ratios are replaced by this positive number.

        Raises:
            UnknownNameError: A name in `against` has no rows, or the metric was not measured.
            InvalidValueError: An error is negative, `clip` is not positive, or there are no rows.
        """
        check_range("clip", clip, "(0, inf)")
        known = self.samplers
        for name in against:
            check_name("sampler", name, known)
        metric = self.metric_or_first(metric)
        rows = [row for row in self.rows if row.metric == metric]
        if any(row.value < 0 for row in rows):
            raise InvalidValueError(
                f"{metric!r} has negative values, but ratios need positive values; take another "
                "metric"
            )
        found = []
        for sampler in (name for name in known if name not in against):
            for budget in self.budgets:
                values = list(self._ratios(sampler, against, budget, metric))
                if not values or all(math.isinf(value) for value in values):
                    continue
                logs = [math.log(max(clip, value)) for value in values]
                found.append(
                    Ratio(
                        sampler,
                        budget,
                        math.exp(sum(logs) / len(logs)),
                        max(values),
                        sum(value < 1 for value in values),
                        len(values),
                        max(row.pilot for row in rows if row.sampler == sampler),
                    )
                )
        return tuple(found)

    def _ratios(
        self, sampler: str, against: Collection[str], budget: int, metric: str
    ) -> Iterator[float]:
        for problem in self.problems:
            peer = self.best(against, problem, budget, metric)
            if peer is None or math.isinf(peer.value):
                continue
            ours = self.best([sampler], problem, budget, metric)
            if ours is None:
                yield math.inf
            elif ours.value == peer.value:
                yield 1.0
            else:
                yield ours.value / peer.value if peer.value > 0 else math.inf

    @property
    def samplers(self) -> tuple[str, ...]:
        """Return the names of the samplers, in the order of their first rows."""
        return tuple(dict.fromkeys(row.sampler for row in self.rows))

    @property
    def problems(self) -> tuple[str, ...]:
        """Return the names of the problems, in the order of their first rows."""
        return tuple(dict.fromkeys(row.problem for row in self.rows))

    @property
    def budgets(self) -> tuple[int, ...]:
        """Return the budgets, in rising order."""
        return tuple(sorted({row.budget for row in self.rows}))

    @property
    def metrics(self) -> tuple[str, ...]:
        """Return the names of the metrics, in the order of their first rows."""
        return tuple(dict.fromkeys(row.metric for row in self.rows))

    def table(self, metric: str | None = None, *, top: int | None = None) -> str:
        """Return text with a table for each problem and a line for each sampler, the best first.

        "+" marks the errors of runs that took more evaluations than their budget.

        Args:
            metric: The kind of error; by default all kinds that were measured.
            top: The largest number of lines, at least 1; by default all lines.
        """
        if top is not None:
            check_integer("top", top, 1)
        chosen = self.metrics if metric is None else (self.metric_or_first(metric),)
        parts = [self._block(p, m, top) for m in chosen for p in self.problems]
        return "\n\n".join(part for part in parts if part)

    def _block(self, problem: str, metric: str, top: int | None) -> str:
        cells: dict[str, dict[int, Row]] = {}
        for row in self.rows:
            if row.problem == problem and row.metric == metric:
                cells.setdefault(row.sampler, {})[row.budget] = row
        if not cells:
            return ""
        budgets = self.budgets

        def rank(name: str) -> tuple[int, float]:
            """Return the sort key: the number of budgets, then the mean log error."""
            values = [abs(row.value) for row in cells[name].values()]
            logs = [math.log(max(value, 1e-300)) for value in values]
            return -len(values), sum(logs) / len(logs)

        names = sorted(cells, key=rank)[:top]
        width = max(24, *(len(name) + 2 for name in names))
        lines = [f"{f'{problem}  {metric}':{width}}" + "".join(f"{b:>10}" for b in budgets)]
        floors = [next(iter(cells.values())).get(b) for b in budgets]
        if any(row is not None and row.floor is not None for row in floors):
            values = [None if row is None else row.floor for row in floors]
            lines.append(f"{'  exact samples':{width}}" + "".join(map(_cell, values)))
        for name in names:
            rows = [cells[name].get(b) for b in budgets]
            values = [None if row is None else row.value for row in rows]
            over = ["+" if row is not None and row.nfe > row.budget else "" for row in rows]
            line = "".join(f"{_cell(v).strip() + o:>10}" for v, o in zip(values, over, strict=True))
            lines.append(f"{'  ' + name:{width}}" + line)
        return "\n".join(lines)

    def metric_or_first(self, metric: str | None) -> str:
        """Return the metric of that name, or for None the first metric that was measured.

        Raises:
            UnknownNameError: The metric was not measured.
            InvalidValueError: The results are empty.
        """
        if metric is None:
            if not self.metrics:
                raise InvalidValueError("these results are empty; compare some samplers first")
            return self.metrics[0]
        check_name("metric", metric, self.metrics)
        return metric

    def to_csv(self, path: str | os.PathLike[str]) -> Path:
        """Write all rows to a CSV file, with a header.

        Raises:
            InvalidValueError: The file cannot be written.
        """
        text = io.StringIO(newline="")
        writer = csv.writer(text)
        writer.writerow(field.name for field in fields(Row))
        writer.writerows(astuple(row) for row in self.rows)
        try:
            checkpoint.write_bytes(path, text.getvalue().encode())
        except CheckpointError as error:
            raise InvalidValueError(f"{error}; choose another file") from error
        return Path(path)


def _cell(value: float | None) -> str:
    """Return text of ten characters: the number, or a dash for None."""
    if value is None:
        return f"{'-':>10}"
    return f"{value:>10.3g}"
