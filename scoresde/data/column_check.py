"""Check the columns of vectors, or the channels of other samples."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor

from scoresde.data.report import Report, some
from scoresde.data.samples import Data
from scoresde.data.stores import pieces

__all__ = ["describe_columns", "whole_columns"]

_MANY = 512  # the largest number of columns that are compared with each other
# Vectors are reported as possible signals if they have at least _LONG numbers, and neighbouring
# numbers are similar: the variance of their differences is below the share _ALIKE of its value for
# independent numbers. At most _LOOKED_AT samples are examined.
_LONG, _LOOKED_AT, _ALIKE = 16, 1000, 0.2
_APART = 4.0  # columns are reported if their standard deviations have at least this ratio


def whole_columns(data: Data) -> tuple[str, ...]:
    """Return the names of the columns that hold only integers, such as counts and ages."""
    whole = torch.ones(len(data.columns), dtype=torch.bool)
    for _, raw in pieces(data.store) if data.columns else ():
        whole &= (raw == raw.round()).all(0)
    return tuple(name for name, only in zip(data.columns, whole.tolist(), strict=True) if only)


@dataclass
class _Seen:
    """Hold masks `(C,)` of integer and binary columns, the one-hot groups and the equal pairs."""

    whole: Tensor
    binary: Tensor
    one_hot: list[tuple[int, int]]
    equal: list[tuple[int, int]]


def describe_columns(report: Report, data: Data) -> None:
    """Report columns that are constant, integer, one-hot, equal or of very different scales.

    Vectors without column names are also reported if they look like signals.

    Args:
        report: The report that receives the remarks.
        data: Finite floats; quantised data, such as bytes, are not checked.
    """
    if data.transform.levels is not None:
        return
    columns = data.survey.var.reshape(len(data.survey.var), -1)
    means = data.survey.mean.reshape(columns.shape)
    constant = (columns == 0).all(1) & (means == means[:, :1]).all(1)
    seen = _look(data, constant)
    names = _names(data)

    def remark(topic: str, which: Tensor, text: str) -> None:
        chosen = [names[i] for i in which.nonzero().flatten().tolist()]
        if chosen:
            report.remark(topic, text.format(some(chosen)), chosen)

    remark(
        "constant",
        constant,
        "the same number in every sample: {}; leave it out, since there is nothing to learn",
    )
    for first, last in seen.one_hot:
        group = names[first:last]
        report.remark(
            "one-hot",
            f"one-hot: {some(group)}, of which exactly one is 1 in every sample; a model would "
            "draw fractions, so replace them by one column of classes, and make this a condition",
            group,
        )
    hot = {i for first, last in seen.one_hot for i in range(first, last)}
    whole = seen.whole & ~constant
    whole[list(hot)] = False
    remark(
        "whole numbers",
        whole,
        "only integers: {}; a model treats them as continuous, and `scoresde sample` rounds "
        "them; if each integer stands for a class, make them a condition",
    )
    for i, j in seen.equal:
        report.remark(
            "equal", f"equal in every sample: {names[i]} and {names[j]}; leave one out",
            [names[i], names[j]],
        )  # fmt: skip
    _scales(report, data, names, constant)
    _series(report, data)


def _series(report: Report, data: Data) -> None:
    """Report vectors whose neighbouring numbers are correlated as in a signal."""
    if len(data.event_shape) > 1 or data.event_shape[0] < _LONG or data.columns:
        return
    x = data.batch(torch.arange(min(len(data), _LOOKED_AT))).double()
    spread = 2 * x.var(0, correction=0).mean()
    if spread > 0 and x.diff(dim=1).var(0, correction=0).mean() < _ALIKE * spread:
        report.remark(
            "layout",
            "neighbouring numbers of a sample are similar, as in a signal; with layout='T' a "
            "sample is a signal of one channel, and the network is convolutional",
        )


def _scales(report: Report, data: Data, names: list[str], constant: Tensor) -> None:
    known = data.survey
    mean, above = data.transform.forward(torch.stack([known.mean, known.mean + known.var.sqrt()]))
    stds = (above - mean).double().square().reshape(len(mean), -1).mean(1).sqrt()
    if len(stds) < 2 or (~constant).sum() < 2:
        return
    low = int(stds.masked_fill(constant, torch.inf).argmin())
    high = int(stds.masked_fill(constant, 0.0).argmax())
    if stds[high] > _APART * stds[low]:
        report.remark(
            "scales",
            f"the standard deviation of {names[low]} is {float(stds[low]):.3g}, but that of "
            f"{names[high]} is {float(stds[high]):.3g}; columns with a small standard deviation "
            "are hardly learnt, so standardize all columns by standardize=True",
            [names[low], names[high]],
        )


def _names(data: Data) -> list[str]:
    if data.columns:
        return [repr(name) for name in data.columns]
    what = "number" if len(data.event_shape) == 1 else "channel"
    return [f"{what} {k}" for k in range(data.event_shape[0])]


def _look(data: Data, constant: Tensor) -> _Seen:
    """Read all samples, and find integer, binary, one-hot and equal columns."""
    n = data.event_shape[0]
    whole, binary = torch.ones(n, dtype=torch.bool), torch.ones(n, dtype=torch.bool)
    vector = len(data.event_shape) == 1 and n <= _MANY
    pairs = _alike(torch.stack([data.survey.mean, data.survey.var], 1), constant) if vector else []
    hot: Tensor | None = None
    for _, raw in pieces(data.store):
        x = raw.reshape(len(raw), n, -1)
        whole &= (x == x.round()).all(2).all(0)
        binary &= ((x == 0) | (x == 1)).all(2).all(0)
        pairs = [(i, j) for i, j in pairs if torch.equal(x[:, i], x[:, j])]
        if vector:
            together = x[..., 0].double().T @ x[..., 0].double()
            hot = together if hot is None else hot + together
    groups = [] if hot is None else _groups(binary & ~constant, hot, len(data))
    return _Seen(whole, binary, groups, pairs)


def _alike(moments: Tensor, constant: Tensor) -> list[tuple[int, int]]:
    """Return the pairs of columns that may be equal, since their moments are equal."""
    places: dict[tuple[float, ...], list[int]] = {}
    for i, row in enumerate(moments.tolist()):
        if not constant[i]:
            places.setdefault(tuple(row), []).append(i)
    return [pair for same in places.values() for pair in itertools.pairwise(same)]


def _groups(binary: Tensor, together: Tensor, n: int) -> list[tuple[int, int]]:
    """Return the ranges of neighbouring columns in which every sample has exactly one 1.

    Args:
        binary: `(C,)`, True for columns of 0 and 1 only.
        together: `(C, C)`, the number of samples with 1 in both columns.
        n: The number of samples.
    """
    groups, first = [], 0
    while first < len(binary):
        last, ones = first, 0
        while last < len(binary) and binary[last] and not together[first:last, last].any():
            ones += int(together[last, last])
            last += 1
            if ones == n and last - first > 1:
                groups.append((first, last))
                break
        first = max(last, first + 1) if groups and groups[-1] == (first, last) else first + 1
    return groups
