r"""Samples with their labels and the declared transform of their numbers."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from torch import Tensor

from scoresde.checks import check_dense, check_fields
from scoresde.data.batches import order
from scoresde.data.stores import PIECE, Memory, Part, Store, parts_of
from scoresde.data.survey import Survey, content_of, survey
from scoresde.errors import DataError, InvalidTypeError, InvalidValueError, ShapeError
from scoresde.units import Identity, Standardize, Transform, describe

__all__ = ["Data"]

_DTYPES = (torch.uint8, torch.float32, torch.float64)


@dataclass(frozen=True, eq=False)
class Data:
    """Samples, in memory or where they are read when they are needed.

    Args:
        raw: `(N, *event)`, in the user's own units: a tensor, finite floats or bytes, or a store
            that reads such rows.
        label: `(N,)`, integers in [0, classes), or None.
        transform: What makes of them the numbers that a model learns, "model units". Bytes need
            one, such as `BYTES`.
        classes: How many there are; by default the largest label plus one.

    Raises:
        DataError: No samples, a NaN or infinity, or labels that do not fit.
        InvalidTypeError: Samples, labels or transform are of an impossible type.
        ShapeError: `raw` has no event dimension, or there are more or fewer labels than samples.
    """

    raw: Tensor | Store
    label: Tensor | None = None
    transform: Transform = field(default_factory=Identity)
    classes: int | None = None

    def __post_init__(self) -> None:
        check_fields(self)
        describe(self.transform)
        if isinstance(self.raw, Tensor):
            check_dense("x", self.raw)
            object.__setattr__(self, "raw", self.raw.detach())
            _check_dtype(self.raw, self.transform)
        _check_shape(tuple(self.raw.shape))
        if isinstance(self.raw, Tensor):
            _check_finite(self.raw)
        if self.label is not None:
            check_dense("the label", self.label)
            label = _checked_labels(self.label, len(self), self.classes)
            object.__setattr__(self, "label", label)
            object.__setattr__(self, "classes", self.classes or int(label.max()) + 1)

    def __len__(self) -> int:
        return int(self.raw.shape[0])

    @property
    def event_shape(self) -> tuple[int, ...]:
        """The shape of one sample."""
        return tuple(self.raw.shape[1:])

    @property
    def store(self) -> Store:
        """Where the raw samples lie."""
        return Memory(self.raw) if isinstance(self.raw, Tensor) else self.raw

    @property
    def x(self) -> Tensor:
        """All samples in model units, `(N, *event)`: as much memory as they take as floats."""
        return self.batch(slice(None))

    def batch(self, index: Tensor | slice) -> Tensor:
        """The samples of these numbers in model units, `(B, *event)`, float32 or float64.

        Args:
            index: Numbers from 0 to N - 1, or a slice.

        Raises:
            DataError: One cannot be read; says which.
            InvalidValueError: There is no sample of such a number.
        """
        try:
            raw = self.store.read(index)
        except IndexError as error:
            raise InvalidValueError(self._no_such(error)) from error
        return self.transform.forward(raw)

    def __getitem__(self, index: Tensor | slice | Sequence[int]) -> Data:
        """The samples of `index`, read where they are, with the same transform and classes."""
        try:
            rows = torch.arange(len(self))[index]
        except IndexError as error:
            raise InvalidValueError(self._no_such(error)) from error
        if rows.ndim != 1:
            raise InvalidTypeError(
                f"data are indexed by a slice or a list of numbers, got {index!r}; "
                "data.batch gives their tensor"
            )
        label = None if self.label is None else self.label[rows]
        return replace(self, raw=Part(self.store, rows), label=label)

    def _no_such(self, error: IndexError) -> str:
        return f"the {len(self)} samples have the numbers 0 to {len(self) - 1}: {error}"

    def unlabelled(self) -> Data:
        """The same samples without labels, for an unconditional model."""
        return replace(self, label=None, classes=None)

    def standardized(self) -> Data:
        """The same samples with the transform that gives them mean 0 and variance 1.

        One shift and one scale for each dimension of vectors, and for each channel of images.
        """
        return replace(self, transform=Standardize.of(self.survey.mean, self.survey.var))

    def units_of(self, transform: Transform) -> Data:
        """The same raw samples under the transform of a model; their own where it has none.

        Raises:
            InvalidValueError: The model's levels reach less far than the numbers.
        """
        if transform in (Identity(), self.transform):
            return self
        if transform.levels is not None:
            raw = torch.tensor([[self.survey.low], [self.survey.high]], dtype=torch.float64)
            if transform.forward(raw).abs().max() > 1:
                raise InvalidValueError(
                    f"the model learnt {transform}, but these numbers lie in "
                    f"[{self.survey.low:.6g}, {self.survey.high:.6g}]"
                )
        return replace(self, transform=transform)

    @cached_property
    def survey(self) -> Survey:
        """Moments, range and checksum of the raw samples, from one pass over all of them."""
        return survey(self.store)

    def changed(self, turn: int) -> str:
        """Compare some of the samples, 16 MiB at least, with what the survey found in them.

        Turns 0, 1, ... look at one part after another, all of them where the samples are few.

        Returns:
            What has changed, in words, or nothing.

        Raises:
            DataError: They cannot be read any more.
        """
        store, sums = self.store, self.survey.sums
        parts = parts_of(store.shape)
        first = store.read(parts[0])
        count = -(-PIECE // max(1, first.numel() * first.element_size()))
        for i in range(turn * count, turn * count + min(count, len(parts))):
            part = parts[i % len(parts)]
            if zlib.crc32(content_of(store.read(part))) != sums[i % len(parts)]:
                return (
                    f"some of the samples {part.start} to {part.stop - 1} are no longer what they "
                    "were when the data were loaded"
                )
        return ""

    def moments(self) -> tuple[Tensor, float]:
        """The mean sample, float64 `(*event)`, and the mean variance about it, per dimension.

        Both are in model units. `Moments(*data.moments())` is what `ScoreModel(moments=...)` takes.

        Raises:
            DataError: They are beyond float32, in which models have them.
        """
        raw = torch.stack([self.survey.mean, self.survey.mean + self.survey.var.sqrt()])
        mean, above = self.transform.forward(raw)  # an affine map takes deviations to deviations
        var = float((above - mean).square().mean())
        largest, known = max(var, float(mean.abs().max())), torch.finfo(torch.float32)
        if largest > known.max or 0 < var < known.tiny:
            raise DataError(
                f"the numbers that a model would see have a variance of {var:.4g} and means up to "
                f"{float(mean.abs().max()):.4g}, beyond float32, in which models have them; "
                "standardize the data, or scale them"
            )
        return mean, var

    def split(self, fraction: float, *, seed: int = 0) -> tuple[Data, Data]:
        """Two disjoint random parts; the second holds `fraction` of the samples, rounded.

        Raises:
            InvalidValueError: `fraction` is outside (0, 1), or one part would be empty.
        """
        held = round(len(self) * fraction) if 0 < fraction < 1 else 0
        if not 0 < held < len(self):
            raise InvalidValueError(
                f"cannot hold out the fraction {fraction} of {len(self)} samples; choose one in "
                "(0, 1) that leaves both parts a sample"
            )
        index = order(len(self), seed=seed, epoch=0)
        return self[index[held:]], self[index[:held]]

    def fingerprint(self) -> str:
        """A SHA-256 of samples, transform and labels, to tell one data set from another.

        It is one of the numbers themselves, not of names, dates or formats: a copied folder, or
        its images in one array, are the same data set.
        """
        digest = hashlib.sha256(f"{self.survey.sha256} {self.transform}".encode())
        if self.label is not None:
            digest.update(self.label.contiguous().view(torch.uint8).numpy().data)
        return digest.hexdigest()


def _check_dtype(x: Tensor, transform: Transform) -> None:
    if x.dtype not in _DTYPES or (x.dtype == torch.uint8 and transform == Identity()):
        raise InvalidTypeError(
            f"x must be float32 or float64, got {x.dtype}; convert it with x.float(), or "
            "8-bit images with x.float() / 127.5 - 1, or keep them: Data(x, transform=BYTES)"
        )


def _check_shape(shape: tuple[int, ...]) -> None:
    if len(shape) < 2:
        raise ShapeError(
            f"samples must have shape (N, *event), got {shape}; "
            "numbers become events of one dimension with `x[:, None]`"
        )
    if 0 in shape:
        raise DataError(f"there are no samples: shape {shape}")


def _check_finite(x: Tensor) -> None:
    if not bool(torch.isfinite(x).all()):
        bad = (~torch.isfinite(x)).flatten(1).any(1)
        raise DataError(
            f"{int(bad.sum())} of {len(x)} samples hold a NaN or an infinity, the first is number "
            f"{int(bad.nonzero()[0, 0])}; remove them with `x[x.flatten(1).isfinite().all(1)]`"
        )


def _checked_labels(label: Tensor, n: int, classes: int | None) -> Tensor:
    if label.is_floating_point() or label.is_complex() or label.dtype == torch.bool:
        raise InvalidTypeError(f"labels must be integers, got {label.dtype}")
    if label.shape != (n,):
        raise ShapeError(f"labels must have shape ({n},), one a sample; got {tuple(label.shape)}")
    label = label.long()
    low, high = int(label.min()), int(label.max())
    top = high if classes is None else classes - 1
    if low < 0 or high > top:
        raise DataError(f"labels lie in [{low}, {high}], expected [0, {top}]")
    return label
