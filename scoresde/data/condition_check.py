"""Check the conditions of data."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from scoresde.data.report import NAMED, Report, some
from scoresde.data.samples import Data
from scoresde.errors import DataError
from scoresde.sde import Classes

__all__ = ["describe_conditions"]

# At most this many different integers are reported as possible classes, and the classes of more
# samples than this as possible identifiers.
_FEW = 100


def describe_conditions(report: Report, data: Data) -> None:
    """Report the kind of every condition, and its missing, unused and constant entries."""
    if data.classes is None:
        report.facts["classes"] = "none"
    for name, kind in data.kinds.items():
        if isinstance(kind, Classes):
            _classes(report, data, name, kind.n)
        else:
            _field(report, data, name)


def _classes(report: Report, data: Data, name: str, classes: int) -> None:
    label, names = data.conditions[name], data.names.get(name, ())
    assert isinstance(label, Tensor)
    known, counts = torch.unique(label[label >= 0], return_counts=True)
    gaps = classes - len(known)
    least, most = (0 if gaps else int(counts.min())), int(counts.max()) if len(counts) else 0
    what = "" if name == "label" else " class" if classes == 1 else " classes"
    count = f"{most:,}" if least == most else f"{least:,} to {most:,}"
    text = f"{classes:,}{what}, with {count} samples{'' if classes == 1 else ' each'}"
    if names:
        text += ": " + some(
            f"{names[k]} ({count:,})" for k, count in zip(known, counts, strict=True)
        )
    if missing := int((label < 0).sum()):
        text += f"; {missing / len(label):.1%} missing"
    report.facts["classes" if name == "label" else name] = text
    if gaps:
        found = set(known.tolist())
        # labels may be large numbers, such as identifiers, so do not list all numbers between them
        first = itertools.islice((str(i) for i in range(classes) if i not in found), NAMED)
        which = "" if name == "label" else f" of {name!r}"
        report.remark("conditions", f"labels{which} that no sample has: {some(first, gaps)}")
    if 2 * len(known) > len(label) > _FEW:
        report.remark(
            "conditions",
            f"the condition {name!r} has {len(known):,} classes for {len(label):,} samples, like "
            "identifiers of samples; choose other classes, or leave it out",
        )
    if len(known) < 2:
        report.remark(
            "conditions", f"the condition {name!r} is the same for all samples; leave it out"
        )


def _field(report: Report, data: Data, name: str) -> None:
    rows, shape = data.conditions[name], data.kinds[name].shape
    try:
        found = data.surveys[name]
        data.condition_moments()
    except DataError as error:
        report.problems.append(str(error))
        return
    known = found.n > 0
    share = 1 - float(found.n.sum()) / (len(data) * found.n.numel())
    what = f"a field of shape {shape}" if len(shape) > 1 else f"a vector of {shape[0]}"
    what = "a number" if shape == (1,) else what
    text = f"{what}, from {found.low:.6g} to {found.high:.6g}" if known.any() else what
    report.facts[name] = text + (f"; {share:.1%} missing" if share else "")
    if not known.all():
        report.remark("conditions", _entries(name, ~known, "is never known"))
    constant = known & (found.var == 0)
    if constant.any():
        report.remark("conditions", _entries(name, constant, "is constant"))
    if isinstance(rows, Tensor) and shape == (1,) and _are_classes(rows):
        report.remark(
            "conditions",
            f"the condition {name!r} holds only integers from 0 to {found.high:.0f}; if they are "
            "classes, give them as integers",
        )


def _entries(name: str, which: Tensor, what: str) -> str:
    if which.all():
        return f"the condition {name!r} {what}"
    if which.ndim > 1:
        return f"the condition {name!r} {what} in {int(which.sum()):,} of {which.numel():,} places"
    entries = some(map(str, which.nonzero()[:, 0].tolist()))
    return f"the condition {name!r} {what} in its entries {entries}"


def _are_classes(rows: Tensor) -> bool:
    known = rows[~rows.isnan()]
    found = torch.unique(known)
    return bool(
        1 < len(found) <= _FEW
        and len(found) < len(known)
        and found[0] == 0
        and torch.equal(found, torch.arange(len(found)).to(found))
    )
