r"""Samples in memory, with their labels and the declared transform of their numbers."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from scoresde.data.batches import order
from scoresde.errors import DataError, InvalidTypeError, InvalidValueError, ShapeError

__all__ = ["Data", "Range", "to_uint8"]


@dataclass(frozen=True)
class Range:
    r"""The affine map of the raw numbers `[low, high]` onto [-1, 1].

    $$ x = (r - \text{low}) / h - 1, \qquad h = (\text{high} - \text{low}) / 2 $$

    Args:
        low: becomes -1.
        high: becomes 1; 255 for bytes, so that $x = r / 127.5 - 1$.
    """

    low: float
    high: float

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise InvalidValueError(f"need low < high, got low = {self.low}, high = {self.high}")

    def forward(self, raw: Tensor) -> Tensor:
        """Raw numbers, any shape and dtype, to float32 in [-1, 1]."""
        return (raw.float() - self.low) / ((self.high - self.low) / 2) - 1

    def inverse(self, x: Tensor) -> Tensor:
        """Back to the raw units, as floats."""
        return (x + 1) * ((self.high - self.low) / 2) + self.low


@dataclass(frozen=True, eq=False)
class Data:
    """Samples in memory.

    Args:
        x: `(N, *event)`, float32 or float64, finite.
        label: `(N,)`, integers in [0, classes), or None.
        transform: what made `x` of the raw numbers; None where they are used as they came.
        classes: how many there are; by default the largest label plus one.

    Raises:
        DataError: no samples, a NaN or infinity, or labels that do not fit.
        InvalidTypeError: `x` or `label` has an impossible dtype.
        ShapeError: `x` has no event dimension, or there are more or fewer labels than samples.
    """

    x: Tensor
    label: Tensor | None = None
    transform: Range | None = None
    classes: int | None = None

    def __post_init__(self) -> None:
        _check_samples(self.x)
        if self.label is not None:
            label = _checked_labels(self.label, len(self.x), self.classes)
            object.__setattr__(self, "label", label)
            object.__setattr__(self, "classes", self.classes or int(label.max()) + 1)

    def __len__(self) -> int:
        return len(self.x)

    @property
    def event_shape(self) -> tuple[int, ...]:
        """The shape of one sample."""
        return tuple(self.x.shape[1:])

    def __getitem__(self, index: Tensor | slice) -> Data:
        """The samples of `index`, with the same transform and number of classes."""
        label = None if self.label is None else self.label[index]
        return replace(self, x=self.x[index], label=label)

    def unlabelled(self) -> Data:
        """The same samples without labels, for an unconditional model."""
        return Data(self.x, transform=self.transform)

    def moments(self) -> tuple[Tensor, float]:
        """The mean sample, float64 `(*event)`, and the mean variance about it, per dimension.

        `Moments(*data.moments())` is what `ScoreModel(data=...)` takes.
        """
        mean = self.x.mean(0, dtype=torch.float64)
        var = (self.x - mean.to(self.x.dtype)).square_().mean(dtype=torch.float64)
        return mean, float(var)

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
        """A SHA-256 of samples and labels, to tell one data set from another."""
        digest = hashlib.sha256(str(self.x.shape).encode())
        for part in (self.x, self.label):
            if part is not None:
                digest.update(part.contiguous().view(-1).view(torch.uint8).numpy().data)
        return digest.hexdigest()


def to_uint8(x: Tensor) -> Tensor:
    """Images in [-1, 1] as bytes, rounded, and clipped where they leave the range."""
    return ((x.float() + 1) * 127.5).round_().clamp_(0, 255).to(torch.uint8)


def _check_samples(x: Tensor) -> None:
    if x.dtype not in (torch.float32, torch.float64):
        hint = (
            "; scale bytes with `x.float() / 127.5 - 1`"
            if x.dtype == torch.uint8
            else "; convert them with `x.float()`"
        )
        raise InvalidTypeError(f"samples must be float32 or float64, got {x.dtype}{hint}")
    if x.ndim < 2:
        raise ShapeError(
            f"samples must have shape (N, *event), got {tuple(x.shape)}; "
            "numbers become events of one dimension with `x[:, None]`"
        )
    if x.numel() == 0:
        raise DataError(f"there are no samples: shape {tuple(x.shape)}")
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
