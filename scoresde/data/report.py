"""Collect the faults and remarks that a check of data finds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from torch import Tensor

from scoresde.errors import DataError, ScoreSDEError
from scoresde.result import page

if TYPE_CHECKING:
    from scoresde.data.samples import Data

__all__ = ["NAMED", "Faults", "Finding", "Report", "faults_of", "some"]

NAMED = 20  # at most this many files or samples are named for one fault


class Faults:
    """Collect errors, and raise them together.

    Examples:
        >>> faults = Faults()
        >>> for text in ("one", "two"):
        ...     with faults.gathered():
        ...         raise DataError(text)
        >>> faults.raise_all()
        Traceback (most recent call last):
            ...
        scoresde.errors.DataError: 2 faults: (1) one; (2) two
    """

    def __init__(self) -> None:
        self._errors: list[ScoreSDEError] = []

    @contextmanager
    def gathered(self) -> Iterator[None]:
        """Collect the error that the block raises, if any."""
        try:
            yield
        except ScoreSDEError as error:
            if str(error) not in map(str, self._errors):
                self._errors.append(error)

    @property
    def any(self) -> bool:
        """Return True if there is an error."""
        return bool(self._errors)

    def raise_all(self) -> None:
        """Raise the collected errors, if any.

        Raises:
            ScoreSDEError: The error, if there is one. If there are several, a DataError that lists
                all errors.
        """
        if len(self._errors) > 1:
            faults = tuple(text for error in self._errors for text in faults_of(error))
            listed = "; ".join(f"({i}) {text}" for i, text in enumerate(faults, 1))
            whole = DataError(f"{len(faults)} faults: {listed}")
            whole.faults = faults
            raise whole
        if self._errors:
            raise self._errors[0]


def faults_of(error: Exception) -> tuple[str, ...]:
    """Return the faults that an error lists, each a sentence."""
    return getattr(error, "faults", ()) or (str(error),)


class Finding(str):
    """Hold a sentence about data and its topic.

    Attributes:
        topic: The topic in a word or two.
        where: The names of the columns, files or samples that the sentence is about.
    """

    topic: str
    where: tuple[str, ...]

    def __new__(cls, text: str, topic: str = "", where: Iterable[str] = ()) -> Self:
        """Make a sentence with a topic."""
        made = super().__new__(cls, text)
        made.topic, made.where = topic, tuple(where)
        return made


@dataclass(repr=False)
class Report:
    """Hold the results of a check of data.

    Attributes:
        facts: The number of samples, the shape, the units and so on, as text by name.
        problems: Sentences about faults with which a training would fail.
        remarks: Sentences about possible mistakes, each a `Finding`; a training would not fail.
        data: The usable samples, or None.
        samples: Up to 64 usable samples, spread over the data, in model units, or None.
    """

    facts: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    remarks: list[Finding] = field(default_factory=list)
    data: Data | None = field(default=None, repr=False)
    samples: Tensor | None = None

    def remark(self, topic: str, text: str, where: Iterable[str] = ()) -> None:
        """Add a remark."""
        self.remarks.append(Finding(text, topic, where))

    @property
    def columns(self) -> tuple[str, ...]:
        """Return the names of the entries of a sample, if any."""
        return () if self.data is None else self.data.columns

    @property
    def ok(self) -> bool:
        """Return True if there are no problems."""
        return not self.problems

    def __repr__(self) -> str:
        found = {"problem": len(self.problems), "remark": len(self.remarks)}
        return f"Report({', '.join(f'{n} {what}' + 's' * (n != 1) for what, n in found.items())})"

    def _repr_html_(self) -> str:
        return page(str(self), None)

    def __str__(self) -> str:
        lines = [f"{name:14}{value}" for name, value in self.facts.items()]
        lines += [f"{'problem':14}{text}" for text in self.problems]
        lines += [f"{'remark':14}{text}" for text in self.remarks]
        return "\n".join(lines)


def some(names: Iterable[str], n: int | None = None, *, most: int = NAMED) -> str:
    """List up to `most` of `n` names, separated by commas, and the number of the other names."""
    listed = list(names)
    rest = (len(listed) if n is None else n) - most
    more = f", and {rest} more" if rest > 0 else ""
    return ", ".join(listed[:most]) + more
