r"""Compute moments, range and checksum of all samples in one pass.

The means $\mu$ and the sums of squares $M$ about the means of two pieces, with $n_a$ and $n_b$
samples, are combined by

$$ \mu = \mu_a + \delta\,\frac{n_b}{n}, \qquad
   M = M_a + M_b + \delta^2\,\frac{n_a n_b}{n}, \qquad \delta = \mu_b - \mu_a, $$

which is precise for large means too (Chan, Golub & LeVeque 1983).
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from scoresde.data.stores import PIECE, Store, is_random, parts_of, pieces
from scoresde.errors import DataError, InvalidValueError
from scoresde.units import Transform

__all__ = [
    "Survey",
    "changes_in",
    "check_levels",
    "content_of",
    "differing",
    "moments_in",
    "survey",
]


@dataclass(frozen=True)
class Survey:
    """Hold the moments, the range and the checksum of raw samples.

    Attributes:
        mean: The mean sample, float64 `(*event)`.
        var: The variance of every dimension, float64 `(*event)`; 0 exactly where all numbers are
            equal.
        low: The smallest number.
        high: The largest number.
        sha256: The checksum of the shape and of all numbers in order. If the numbers differ at each
            reading, only the shape is used.
        sums: The checksum of each piece; empty if samples differ at each reading.
        n: For each dimension the number of samples in which it is not missing, float64 `(*event)`.
    """

    mean: Tensor
    var: Tensor
    low: float
    high: float
    sha256: str
    sums: tuple[int, ...]
    n: Tensor


def survey(store: Store, *, what: str = "", missing: bool = False) -> Survey:
    """Read all samples once, and return their survey.

    Args:
        store: The samples.
        what: The name of a condition, for errors; empty for the samples.
        missing: Leave NaN out of the moments, instead of raising an error.

    Raises:
        DataError: A sample cannot be read, or holds a NaN or an infinity, or the variance overflows
            or underflows.
    """
    digest = hashlib.sha256(str(store.shape).encode())
    mean = torch.zeros(store.shape[1:], dtype=torch.float64)
    origin, spread, count = mean, torch.zeros_like(mean), torch.zeros_like(mean)
    varies = torch.zeros_like(mean, dtype=torch.bool)
    low, high = torch.inf, -torch.inf
    sums = []
    for rows, raw in pieces(store):
        if not is_random(store):
            content = content_of(raw)
            digest.update(content)
            sums.append(zlib.crc32(content))
        x = raw.cpu().double()
        known = ~x.isnan() if missing else torch.ones((), dtype=torch.bool)
        least, most = _filled(x, known, torch.inf).amin(), _filled(x, known, -torch.inf).amax()
        bad = known & ~x.isfinite() if missing else ~(least.isfinite() & most.isfinite())
        if bad.any():
            bad = known & ~x.isfinite()
            raise DataError(_not_finite(what, rows.start + int(bad.flatten(1).any(1).nonzero()[0])))
        low, high = min(low, float(least)), max(high, float(most))
        # subtract the first sample, so that the variance of a constant column is exactly 0, and the
        # variance of a narrow column is precise
        first = x.gather(0, known.byte().argmax(0, keepdim=True))[0] if missing else x[0]
        origin = first.nan_to_num().where(count == 0, origin)
        x = _filled(x - origin, known, 0)
        varies |= (x != 0).any(0)
        new = known.expand_as(x).sum(0, dtype=torch.float64) if missing else torch.tensor(len(x))
        centre = x.sum(0) / new.clamp_min(1)
        delta, total = centre - mean, (count + new).clamp_min(1)
        spread += _filled(x - centre, known, 0).square_().sum(0) + delta**2 * (count * new / total)
        mean += delta * (new / total)
        count += new
    for how, lost in (
        ("far apart", ~(mean.isfinite() & spread.isfinite())),
        ("near to each other", varies & (spread == 0)),
    ):
        if lost.any():
            raise DataError(
                f"the numbers {f'of {what} ' if what else ''}lie in [{low:.4g}, {high:.4g}], so "
                f"{how} that their squares overflow or underflow float64; scale them"
            )
    var = spread / count.clamp_min(1)
    return Survey(origin + mean, var, low, high, digest.hexdigest(), tuple(sums), count)


def differing(store: Store, found: Survey, turn: int) -> slice | None:
    """Return the rows of a piece whose checksum differs from the checksum in the survey, or None.

    Turns 0, 1, ... compare one part after another, each of at least 16 MiB or all samples.

    Raises:
        DataError: Samples can no longer be read.
    """
    if not found.sums:
        return None
    parts = parts_of(store.shape)
    first = store.read(parts[0])
    count = -(-PIECE // max(1, first.numel() * first.element_size()))
    for i in range(turn * count, turn * count + min(count, len(parts))):
        part = parts[i % len(parts)]
        if zlib.crc32(content_of(store.read(part))) != found.sums[i % len(parts)]:
            return part
    return None


def changes_in(watched: Iterable[tuple[str, Store, Survey]], turn: int) -> str:
    """Return a sentence about samples that have changed since their survey, or ""."""
    for what, store, found in watched:
        if part := differing(store, found, turn):
            return (
                f"some of the {what}samples {part.start} to {part.stop - 1} have changed since the "
                "data were loaded"
            )
    return ""


def moments_in(found: Survey, transform: Transform) -> tuple[Tensor, float]:
    """Return the mean sample and the mean variance of a dimension, after a transform.

    Raises:
        DataError: The moments over- or underflow in float32.
    """
    raw = torch.stack([found.mean, found.mean + found.var.sqrt()])
    # the transform is affine, so the new std is the transform of mean + std minus that of the mean
    mean, above = transform.forward(raw)
    var = float((above - mean).square().mean())
    largest, known = max(var, float(mean.abs().max())), torch.finfo(torch.float32)
    if largest > known.max or 0 < var < known.tiny:
        raise DataError(
            f"in model units the data have a variance of {var:.4g} and means up to "
            f"{float(mean.abs().max()):.4g}, which float32 cannot hold; standardize the data, or "
            "scale them"
        )
    return mean, var


def check_levels(found: Survey, transform: Transform) -> None:
    """Raise InvalidValueError unless the numbers are in the range of a model's transform."""
    raw = torch.tensor([[found.low], [found.high]], dtype=torch.float64)
    if transform.forward(raw).abs().max() > 1:
        raise InvalidValueError(
            f"the model was trained on data with the transform {transform}, but these numbers lie "
            f"in [{found.low:.6g}, {found.high:.6g}]; give data in its units"
        )


def _filled(x: Tensor, known: Tensor, value: float) -> Tensor:
    """Return x with missing numbers replaced by a value."""
    return x.where(known, value) if known.ndim else x


def _not_finite(what: str, number: int) -> str:
    if what:
        return f"{what} of sample {number} is infinite; write NaN for missing values"
    return f"sample {number} holds a NaN or an infinity; `scoresde data check` counts all of them"


def content_of(raw: Tensor) -> memoryview:
    """Return the memory of samples as bytes, in order."""
    content: memoryview = raw.cpu().contiguous().view(-1).view(torch.uint8).numpy().data
    return content
