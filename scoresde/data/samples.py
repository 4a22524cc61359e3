"""Hold samples, their conditions, and their transform to model units."""

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
from scoresde.data.frames import check_order
from scoresde.data.given import as_names, as_samples, is_store
from scoresde.data.stores import Part, Store, store_of
from scoresde.data.survey import Survey, changes_in, check_levels, moments_in, survey
from scoresde.errors import InvalidTypeError, InvalidValueError
from scoresde.sde import Classes, Condition, Field, class_name
from scoresde.units import Identity, Standardize, Transform, describe

__all__ = ["Data"]


class Data:
    """Hold samples and their conditions, in memory or in files.

    Args:
        x: Finite floats or bytes `(N, *event)` in the user's units, as a tensor, an array, a list
            or a store; another `Data`; or any source that `load` takes.
        transform: The map from the user's units to model units, the numbers that a model learns; by
            default the identity. Bytes need a transform, such as `BYTES`.
        columns: The names of the entries of a sample `(d,)`, such as the columns of a table.
        kinds: The kind of each condition by name, `Classes(n)` or `Field(shape)`; by default
            integers are labels (n is the largest label plus 1), and floats are vectors or fields.
        conditions: The conditions by name, each a tensor, an array, a list or a store with one row
            for each sample: labels `(N,)` or text, with -1 for missing labels; or floats `(N, *)`,
            with NaN for missing numbers. Floats `(N,)` are vectors of one entry. None is ignored.

    Attributes:
        raw: The samples in the user's units.
        transform: The map from raw numbers to model units.
        conditions: The conditions by name, sorted.
        kinds: The kinds of the conditions, by name.
        columns: The names of the entries of a sample, if samples are rows of a table.
        source: The name or the path of the loaded source, if any.
        called: The name of the array with the samples, by default "x".
        lines: `(N,)`, the line numbers of the samples in a text file, or None.

    Raises:
        DataError: There are no samples, a number is not finite, or a label is out of range.
        InvalidTypeError: Samples, conditions or transform have a wrong type.
        InvalidValueError: A condition has the name of an argument.
        ShapeError: `x` has no event dimension, or a condition does not have a row for each sample.
        UnknownNameError: A name in `kinds` is not a condition.

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
        check_order({"x": x, **conditions})
        if not (isinstance(x, Data | Tensor | np.ndarray | list | tuple) or is_store(x)):
            from scoresde.data.sources import find  # imported here, since it imports this module

            x = find(x)
        if isinstance(source := x, Data):
            transform = source.transform if transform is None else transform
            kept = {name: kind for name, kind in source.kinds.items() if name not in conditions}
            kinds = {**kept, **(kinds or {})}
            conditions = {**source.conditions, **conditions}
            x, columns, self.lines = source.raw, columns or source.columns, source.lines
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
        """Return the known names of classes and of entries of vectors, by condition."""
        return {name: kind.names for name, kind in self.kinds.items() if kind.names}

    @property
    def event_shape(self) -> tuple[int, ...]:
        """Return the shape of one sample."""
        return tuple(self.raw.shape[1:])

    @property
    def store(self) -> Store:
        """Return the store of the raw samples."""
        return store_of(self.raw)

    @property
    def x(self) -> Tensor:
        """Return all samples in model units, `(N, *event)`, as floats in memory."""
        return self.batch(slice(None))

    def batch(self, index: Tensor | slice) -> Tensor:
        """Return the samples of an index or a slice in model units, `(B, *event)`.

        Raises:
            DataError: A sample cannot be read; the message names it.
            InvalidValueError: A number is out of range.
        """
        return self.transform.forward(self._read(self.raw, index))

    @property
    def label(self) -> Tensor | None:
        """Return the condition "label", or the only condition with classes, or None."""
        found = self.conditions.get(class_name(self.kinds) or "")
        return found if isinstance(found, Tensor) and self.classes is not None else None

    @property
    def classes(self) -> int | None:
        """Return the number of classes of `label`, or None."""
        kind = self.kinds.get(class_name(self.kinds) or "")
        return kind.n if isinstance(kind, Classes) else None

    def condition(self, index: Tensor | slice) -> Condition | None:
        """Return the conditions of the samples that `batch` returns for this index, or None.

        Labels are integers `(B,)`, other conditions are float32 `(B, *)`.

        Raises:
            DataError, InvalidValueError: As for `batch`.
        """
        rows = {name: self._read(kept, index) for name, kept in self.conditions.items()}
        label = {name for name, kind in self.kinds.items() if isinstance(kind, Classes)}
        rows = {name: row if name in label else row.float() for name, row in rows.items()}
        return Condition(rows) if rows else None

    def __getitem__(self, index: Tensor | slice | Sequence[int]) -> Data:
        """Return some samples as a `Data`, without a copy, with the same transform and kinds."""
        try:
            rows = torch.arange(len(self))[index]
        except (IndexError, TypeError) as error:
            raise InvalidValueError(_no_such(len(self), error)) from error
        if rows.ndim != 1:
            raise InvalidTypeError(
                f"data must be indexed by a slice or a list of numbers, got {index!r}; data[[0]] "
                "is a Data of one sample, and data.batch(torch.tensor([0])) its numbers"
            )
        conditions = {
            name: kept[rows] if isinstance(kept, Tensor) else Part(kept, rows)
            for name, kept in self.conditions.items()
        }
        lines = None if self.lines is None else self.lines[rows]
        return self._with(raw=Part(self.store, rows), conditions=conditions, lines=lines)

    def place(self, i: int) -> str:
        """Return the name of sample i: its line in a text file, or its number."""
        return str(i) if self.lines is None else f"line {int(self.lines[i])}"

    def _read(self, kept: Tensor | Store, index: Tensor | slice) -> Tensor:
        try:
            return store_of(kept).read(index)
        except IndexError as error:
            raise InvalidValueError(_no_such(len(self), error)) from error

    def _with(self, **changed: Any) -> Data:
        """Return a copy with changed attributes, without the cached surveys of what has changed."""
        data = copy.copy(self)
        old = {{"raw": "survey", "conditions": "surveys"}.get(name) for name in changed}
        data.__dict__ = {k: v for k, v in vars(self).items() if k not in old} | changed
        return data

    def kept(self, store: Store, **changed: Any) -> Data:
        """Return a copy with another store for the samples, which must hold the same numbers."""
        return self._with(raw=store, **changed)

    def only(self, names: Collection[str]) -> Data:
        """Return the same samples with only these conditions."""
        kept = {
            which: {name: v for name, v in getattr(self, which).items() if name in names}
            for which in ("conditions", "kinds")
        }
        return self._with(**kept)

    def without(self, *names: str) -> Data:
        """Return the same samples without these conditions.

        Raises:
            UnknownNameError: There is no such condition.
        """
        for name in names:
            check_known(name, self.conditions)
        return self.only(self.conditions.keys() - set(names))

    def as_kinds(self, known: Mapping[str, Kind]) -> Data:
        """Return the same samples with labels and vectors in the order of a model, by their names.

        Args:
            known: The conditions of the model, `facts(model).conditions`. A condition does not
                change if the data or the model have no names for it.

        Raises:
            InvalidValueError: The model does not have a class of the data, or has other columns.
        """
        conditions, kinds = renumbered(self.conditions, self.kinds, known)
        return self._with(conditions=conditions, kinds=kinds)

    def standardized(self) -> Data:
        """Return the same samples, with dimensions or channels scaled to mean 0 and variance 1."""
        return self._with(transform=Standardize.of(self.survey.mean, self.survey.var))

    def units_of(self, transform: Transform) -> Data:
        """Return the same raw samples with a model's transform, unless it is the identity.

        Raises:
            InvalidValueError: The samples are outside the range of a transform of integers.
        """
        if transform in (Identity(), self.transform):
            return self
        if transform.levels is not None:
            check_levels(self.survey, transform)
        return self._with(transform=transform)

    def read_all(self) -> None:
        """Read once all samples and conditions that are not in memory.

        Raises:
            DataError: A sample or a condition cannot be read or is not finite; the message names
                it.
        """
        if not isinstance(self.raw, Tensor):
            _ = self.survey
        if any(not isinstance(kept, Tensor) for kept in self.conditions.values()):
            _ = self.surveys

    @cached_property
    def survey(self) -> Survey:
        """Return moments, range and checksum of the raw samples, computed in one pass."""
        return survey(self.store)

    @cached_property
    def surveys(self) -> dict[str, Survey]:
        """Return moments, range and checksum of each condition; missing numbers are left out."""
        return {name: surveyed(name, kept) for name, kept in self.conditions.items()}

    def condition_moments(self) -> dict[str, ConditionMoments]:
        """Return the mean and the standard deviation of every vector and field, by name.

        A vector has moments for each entry, a field for each channel. Missing numbers are left out.

        Raises:
            DataError: A number is infinite, or the differences of the numbers are too small for
                float32.
        """
        return {
            name: moments_of(name, self.surveys[name])
            for name, kind in self.kinds.items()
            if isinstance(kind, Field)
        }

    def changed(self, turn: int) -> str:
        """Return a sentence if a part of the data has changed since their survey, or "".

        Turns 0, 1, ... compare the checksums of one part after another, of at least 16 MiB or all.

        Raises:
            DataError: The data can no longer be read.
        """
        conditions = [
            (f"conditions {name!r} of the ", store_of(kept), self.surveys[name])
            for name, kept in self.conditions.items()
        ]
        return changes_in([("", self.store, self.survey), *conditions], turn)

    def moments(self) -> tuple[Tensor, float]:
        """Return the mean sample `(*event)`, float64, and the mean variance of a dimension.

        Both are in model units: `ScoreModel(..., moments=Moments(*data.moments()))`.

        Raises:
            DataError: The moments overflow or underflow in float32.
        """
        return moments_in(self.survey, self.transform)

    def split(self, fraction: float, *, seed: int = 0) -> tuple[Data, Data]:
        """Divide the data at random into two parts; the second has the share `fraction`, rounded.

        Raises:
            InvalidValueError: `fraction` is outside (0, 1), or one part would be empty.
        """
        held = round(len(self) * fraction) if 0 < fraction < 1 else 0
        if not 0 < held < len(self):
            raise InvalidValueError(
                f"cannot hold out the fraction {fraction} of {len(self)} samples, since each part "
                "needs at least 1"
            )
        index = order(len(self), seed=seed, epoch=0)
        return self[index[held:]], self[index[:held]]

    def fingerprint(self) -> str:
        """Return a SHA-256 of samples, transform and conditions, which identifies the data set.

        It depends only on the numbers, not on paths, dates or formats.
        """
        digest = hashlib.sha256(f"{self.survey.sha256} {self.transform}".encode())
        for name in self.conditions:
            digest.update(f"{name!r} {self.surveys[name].sha256}".encode())
        return digest.hexdigest()


def _no_such(n: int, error: Exception) -> str:
    return f"the indices of the {n} samples are 0 to {n - 1}: {error}"
