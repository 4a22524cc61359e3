"""Samples with their conditions and the declared transform of their numbers."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scoresde.data import summary
from scoresde.data.batches import order
from scoresde.data.conditions import (
    ConditionMoments,
    Kind,
    as_conditions,
    check_known,
    moments_of,
    renumbered,
    surveyed,
)
from scoresde.data.given import as_names, as_samples, is_store
from scoresde.data.stores import Part, Store, store_of
from scoresde.data.survey import Survey, check_levels, moments_in, survey, told_of_changes
from scoresde.errors import InvalidTypeError, InvalidValueError
from scoresde.sde import Classes, Condition, Field
from scoresde.units import Identity, Standardize, Transform, describe

__all__ = ["Data"]


class Data:
    """Samples with what is known of each, in memory or where they are read when needed.

    Args:
        x: `(N, *event)`, in the user's own units: a tensor, an array or a list, finite floats or
            bytes; a store that reads such rows; data; or what `load` takes.
        transform: What makes of them the numbers that a model learns, "model units". Bytes need
            one, such as `BYTES`; by default they stay as they are.
        columns: The names of the entries of a sample `(d,)`, such as those of a table.
        kinds: By name what a condition is; by default integers are labels of as many classes as
            the largest one says, and floats a vector or a field.
        conditions: By name a tensor, an array, a list or a store with one row for each sample:
            labels `(N,)`, -1 where one is missing, or text; or floats `(N, *)`, NaN where one is
            missing, of which `(N,)` is a vector of one entry. None is no condition.

    Attributes:
        raw: The samples as they were given.
        transform: What makes of them the numbers that a model learns.
        conditions: The conditions, by name, in the order of the names.
        kinds: What they are, by name.
        columns: The names of the entries of a sample, where that is a row of a table.
        source: The name or the path of what was loaded, if any.
        called: What is sampled, "x", or the name of another array that was chosen.
        lines: `(N,)`, the lines of a text file in which the samples stand, or None.

    Raises:
        DataError: No samples, a NaN or infinity among them, an infinity among the conditions, or a
            label of no class.
        InvalidTypeError: Samples, conditions or transform are of an impossible type.
        InvalidValueError: A condition has a name that means something else.
        ShapeError: `x` has no event dimension, or a condition has more or fewer rows than samples.
        UnknownNameError: `kinds` names no condition.

    Examples:
        >>> data = Data(torch.randn(4, 2), label=[0, 2, -1, 1], y=torch.zeros(4, 3))
        >>> print(data.kinds["label"], data.kinds["y"], data.condition(slice(2)))
        Classes(n=3) Field(shape=(3,)) Condition(label: (2,), y: (2, 3))
    """

    raw: Tensor | Store
    transform: Transform
    conditions: Mapping[str, Tensor | Store]
    kinds: Mapping[str, Kind]
    columns: tuple[str, ...]
    source: str = ""
    called: str = "x"
    lines: Tensor | None = None

    def __init__(
        self,
        x: Any,
        /,
        *,
        transform: Transform | None = None,
        columns: Sequence[str] = (),
        kinds: Mapping[str, Kind] | None = None,
        **conditions: Any,
    ) -> None:
        if not (isinstance(x, Data | Tensor | np.ndarray | list | tuple) or is_store(x)):
            from scoresde.data.sources import find  # which makes data of it

            x = find(x)
        if isinstance(own := x, Data):
            transform = own.transform if transform is None else transform
            kept = {name: kind for name, kind in own.kinds.items() if name not in conditions}
            kinds = {**kept, **(kinds or {})}
            conditions = {**own.conditions, **conditions}
            x, columns, self.lines = own.raw, columns or own.columns, own.lines
        self.transform = Identity() if transform is None else transform
        describe(self.transform)
        self.raw = as_samples(x, self.transform)
        self.columns = as_names(columns, self.event_shape)
        found = as_conditions(conditions, kinds or {}, len(self))
        self.conditions = {name: given.rows for name, given in found.items()}
        self.kinds = {name: given.kind for name, given in found.items()}

    def __len__(self) -> int:
        return int(self.raw.shape[0])

    def __repr__(self) -> str:
        return summary.line(self)

    def _repr_html_(self) -> str:
        return summary.html(self)

    @property
    def names(self) -> dict[str, tuple[str, ...]]:
        """The names of the classes of a label, and of the entries of a vector, where known."""
        return {name: kind.names for name, kind in self.kinds.items() if kind.names}

    @property
    def event_shape(self) -> tuple[int, ...]:
        """Return the shape of one sample."""
        return tuple(self.raw.shape[1:])

    @property
    def store(self) -> Store:
        """Return where the raw samples lie."""
        return store_of(self.raw)

    @property
    def x(self) -> Tensor:
        """All samples in model units, `(N, *event)`: as much memory as they take as floats."""
        return self.batch(slice(None))

    def batch(self, index: Tensor | slice) -> Tensor:
        """Return the samples of an index, numbers or a slice, in model units, `(B, *event)`.

        Raises:
            DataError: One cannot be read; says which.
            InvalidValueError: There is no sample of such a number.
        """
        return self.transform.forward(self._read(self.raw, index))

    @property
    def label(self) -> Tensor | None:
        """Return the condition of the name "label", where that is one of classes."""
        found = self.conditions.get("label")
        return found if isinstance(found, Tensor) and self.classes is not None else None

    @property
    def classes(self) -> int | None:
        """Return how many classes the labels have."""
        kind = self.kinds.get("label")
        return kind.n if isinstance(kind, Classes) else None

    def condition(self, index: Tensor | slice) -> Condition | None:
        """The conditions of the samples of an index, as in `batch`; None where there are none.

        Returns:
            By name a tensor `(B, *)`: labels as integers, others as float32.

        The errors are those of `batch`.
        """
        rows = {name: self._read(kept, index) for name, kept in self.conditions.items()}
        label = {name for name, kind in self.kinds.items() if isinstance(kind, Classes)}
        rows = {name: row if name in label else row.float() for name, row in rows.items()}
        return Condition(rows) if rows else None

    def __getitem__(self, index: Tensor | slice | Sequence[int]) -> Data:
        """Return the samples of `index`, read where they are, of the same transform and kinds."""
        try:
            rows = torch.arange(len(self))[index]
        except IndexError as error:
            raise InvalidValueError(_no_such(len(self), error)) from error
        if rows.ndim != 1:
            raise InvalidTypeError(
                f"data are indexed by a slice or a list of numbers, got {index!r}; data[[0]] is "
                "the data of one sample, data.batch(torch.tensor([0])) its numbers"
            )
        conditions = {
            name: kept[rows] if isinstance(kept, Tensor) else Part(kept, rows)
            for name, kept in self.conditions.items()
        }
        lines = None if self.lines is None else self.lines[rows]
        return self._with(raw=Part(self.store, rows), conditions=conditions, lines=lines)

    def place(self, i: int) -> str:
        """Return what sample i is called: its line in a text file, or its number."""
        return str(i) if self.lines is None else f"line {int(self.lines[i])}"

    def _read(self, kept: Tensor | Store, index: Tensor | slice) -> Tensor:
        try:
            return store_of(kept).read(index)
        except IndexError as error:
            raise InvalidValueError(_no_such(len(self), error)) from error

    def _with(self, **changed: Any) -> Data:
        """Return the same data with other attributes; of other samples there is another survey."""
        data = copy.copy(self)
        found = ("survey", "surveys") if "raw" in changed else ()
        data.__dict__ = {k: v for k, v in vars(self).items() if k not in found} | changed
        return data

    def kept(self, store: Store) -> Data:
        """Return the same data, with their samples in a store that has the same ones elsewhere."""
        return self._with(raw=store)

    def only(self, names: Collection[str]) -> Data:
        """Return the same samples with the conditions of these names; `only(())` leaves out all."""
        kept = {
            which: {name: v for name, v in getattr(self, which).items() if name in names}
            for which in ("conditions", "kinds")
        }
        return self._with(**kept)

    def without(self, *names: str) -> Data:
        """Return the same samples without the conditions of these names.

        Raises:
            UnknownNameError: There is no such condition.
        """
        for name in names:
            check_known(name, self.conditions)
        return self.only(self.conditions.keys() - set(names))

    def as_kinds(self, known: Mapping[str, Kind]) -> Data:
        """Return the same samples with their labels numbered as the classes of these names are.

        Args:
            known: The conditions of a model, `facts(model).conditions`. Where a label has no names
                on one of the two sides its numbers stay.

        Raises:
            InvalidValueError: A class of the data is none of those.
        """
        conditions, kinds = renumbered(self.conditions, self.kinds, known)
        return self._with(conditions=conditions, kinds=kinds)

    def standardized(self) -> Data:
        """Return the same samples with the transform that gives them mean 0 and variance 1.

        One shift and one scale for each dimension of vectors, and for each channel of images.
        """
        return self._with(transform=Standardize.of(self.survey.mean, self.survey.var))

    def units_of(self, transform: Transform) -> Data:
        """Return the same raw samples under the transform of a model; their own where it has none.

        Raises:
            InvalidValueError: The model's levels reach less far than the numbers.
        """
        if transform in (Identity(), self.transform):
            return self
        if transform.levels is not None:
            check_levels(self.survey, transform)
        return self._with(transform=transform)

    def look(self) -> None:
        """Read everything once that is not in memory.

        Raises:
            DataError: Something cannot be read, or is not finite; says which.
        """
        if not isinstance(self.raw, Tensor):
            _ = self.survey
        if any(not isinstance(kept, Tensor) for kept in self.conditions.values()):
            _ = self.surveys

    @cached_property
    def survey(self) -> Survey:
        """Moments, range and checksum of the raw samples, from one pass over all of them."""
        return survey(self.store)

    @cached_property
    def surveys(self) -> dict[str, Survey]:
        """Return the same of each condition, by name, of the numbers that are not missing."""
        return {name: surveyed(name, kept) for name, kept in self.conditions.items()}

    def condition_moments(self) -> dict[str, ConditionMoments]:
        """Return the mean and the standard deviation of every vector and field, by name.

        They are those of what is not missing: per entry of a vector, per channel of a field.

        Raises:
            DataError: A number is infinite, or float32, in which models have them, cannot tell
                them apart.
        """
        return {
            name: moments_of(name, self.surveys[name])
            for name, kind in self.kinds.items()
            if isinstance(kind, Field)
        }

    def changed(self, turn: int) -> str:
        """Compare some of the samples, 16 MiB at least, with what the survey found in them.

        Turns 0, 1, ... look at one part after another, of conditions too. Return a sentence or "".

        Raises:
            DataError: They cannot be read any more.
        """
        conditions = [
            (f"conditions {name!r} of the ", store_of(kept), self.surveys[name])
            for name, kept in self.conditions.items()
        ]
        return told_of_changes([("", self.store, self.survey), *conditions], turn)

    def moments(self) -> tuple[Tensor, float]:
        """The mean sample, float64 `(*event)`, and the mean variance about it, per dimension.

        Both are in model units. `Moments(*data.moments())` is what `ScoreModel(moments=...)` takes.

        Raises:
            DataError: They are beyond float32, in which models have them.
        """
        return moments_in(self.survey, self.transform)

    def split(self, fraction: float, *, seed: int = 0) -> tuple[Data, Data]:
        """Return two disjoint random parts; the second holds `fraction` of the samples, rounded.

        Raises:
            InvalidValueError: `fraction` is outside (0, 1), or one part would be empty.
        """
        held = round(len(self) * fraction) if 0 < fraction < 1 else 0
        if not 0 < held < len(self):
            raise InvalidValueError(
                f"cannot hold out the fraction {fraction} of {len(self)} samples; each part needs 1"
            )
        index = order(len(self), seed=seed, epoch=0)
        return self[index[held:]], self[index[:held]]

    def fingerprint(self) -> str:
        """Return a SHA-256 of samples, transform and conditions, to tell one data set from another.

        It is one of the numbers, not of paths, dates or formats: a copied folder is the same.
        """
        digest = hashlib.sha256(f"{self.survey.sha256} {self.transform}".encode())
        for name in self.conditions:
            digest.update(f"{name!r} {self.surveys[name].sha256}".encode())
        return digest.hexdigest()


def _no_such(n: int, error: IndexError) -> str:
    return f"the {n} samples have the numbers 0 to {n - 1}: {error}"
