"""What was found in a data set, in words."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Self

from torch import Tensor

from scoresde.result import page

__all__ = ["NAMED", "Finding", "Report", "some"]

NAMED = 20  # files or samples that are named of those with the same fault


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
        samples: Up to 64 of them, spread over the data, in model units; None where none is usable.
    """

    facts: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    samples: Tensor | None = None

    def remark(self, topic: str, text: str, where: Iterable[str] = ()) -> None:
        """Add a remark."""
        self.remarks.append(Finding(text, topic, where))

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
