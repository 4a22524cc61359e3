"""What was found in a data set, in words."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from torch import Tensor

from scoresde.errors import DataError, ScoreSDEError
from scoresde.result import page

if TYPE_CHECKING:
    from scoresde.data.samples import Data

__all__ = ["NAMED", "Faults", "Finding", "Report", "some", "told_of"]

NAMED = 20  # files or samples that are named of those with the same fault


class Faults:
    """Gather what is wrong, so that all of it is told at once.

    Examples:
        >>> faults = Faults()
        >>> for text in ("one", "two"):
        ...     with faults.gathered():
        ...         raise DataError(text)
        >>> faults.tell()
        Traceback (most recent call last):
            ...
        scoresde.data.report._SeveralError: 2 faults: (1) one; (2) two
    """

    def __init__(self) -> None:
        self._errors: list[ScoreSDEError] = []

    @contextmanager
    def gathered(self) -> Iterator[None]:
        """Keep the error that the block raises, if it does."""
        try:
            yield
        except ScoreSDEError as error:
            if str(error) not in map(str, self._errors):
                self._errors.append(error)

    @property
    def any(self) -> bool:
        """Return whether there is one."""
        return bool(self._errors)

    def tell(self) -> None:
        """Raise what was gathered, if anything was.

        Raises:
            ScoreSDEError: The one that was; or a DataError with all of them.
        """
        if len(self._errors) > 1:
            raise _SeveralError([text for error in self._errors for text in told_of(error)])
        if self._errors:
            raise self._errors[0]


class _SeveralError(DataError):
    """Several faults of data."""

    def __init__(self, faults: Sequence[str]) -> None:
        self.faults = tuple(faults)
        listed = "; ".join(f"({i}) {text}" for i, text in enumerate(faults, 1))
        super().__init__(f"{len(faults)} faults: {listed}")


def told_of(error: Exception) -> tuple[str, ...]:
    """Return the faults that an error tells, one sentence each."""
    return error.faults if isinstance(error, _SeveralError) else (str(error),)


class Finding(str):
    """A sentence on data.

    Attributes:
        topic: What it is about, in a word or two.
        where: The columns, files or samples that it is about, as they are called.
    """

    topic: str
    where: tuple[str, ...]

    def __new__(cls, text: str, topic: str = "", where: Iterable[str] = ()) -> Self:
        """Make a sentence with its topic."""
        made = super().__new__(cls, text)
        made.topic, made.where = topic, tuple(where)
        return made


@dataclass(repr=False)
class Report:
    """Hold what was found in a data set.

    Attributes:
        facts: What there is, by name.
        problems: What would end the training, or end it before it began; sentences.
        remarks: What would not, and may not be meant; sentences, each a `Finding` with its topic.
        data: The samples that are usable; None where none is.
        samples: Up to 64 of them, spread over the data, in model units; None where none is usable.
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
        """Return the names of the entries of a sample, where they have some."""
        return () if self.data is None else self.data.columns

    @property
    def ok(self) -> bool:
        """Return whether one can train on the data as they are."""
        return not self.problems

    def __repr__(self) -> str:
        return f"Report({len(self.problems)} problems, {len(self.remarks)} remarks)"

    def _repr_html_(self) -> str:
        return page(str(self), None)

    def __str__(self) -> str:
        lines = [f"{name:14}{value}" for name, value in self.facts.items()]
        lines += [f"{'problem':14}{text}" for text in self.problems]
        lines += [f"{'remark':14}{text}" for text in self.remarks]
        return "\n".join(lines)


def some(names: Iterable[str], n: int | None = None, *, most: int = NAMED) -> str:
    """Return all names up to twenty, or `most`, then how many more of the `n` there are."""
    listed = list(names)
    rest = (len(listed) if n is None else n) - most
    more = f", and {rest} more" if rest > 0 else ""
    return ", ".join(listed[:most]) + more
