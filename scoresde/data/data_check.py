r"""Check data for faults that would break a training run, and for possible mistakes.

All samples are read. The checks look for damaged files, mixed sizes and modes, copies,
constant samples, NaN and infinities, unused labels, constant conditions, and scales that do not
suit the noise.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from scoresde.data.column_check import describe_columns
from scoresde.data.condition_check import describe_conditions
from scoresde.data.folder_check import usable_of
from scoresde.data.images import Size, check_size
from scoresde.data.layout import check_layout
from scoresde.data.named import is_name
from scoresde.data.report import Report, faults_of, some
from scoresde.data.samples import Data
from scoresde.data.sources import by_name, doubt_of, find, standardized
from scoresde.data.stores import pieces
from scoresde.data.table_files import read_csv
from scoresde.data.wanted import TABLES, Wanted
from scoresde.errors import (
    DataError,
    InvalidTypeError,
    InvalidValueError,
    ScoreSDEError,
    ShapeError,
)
from scoresde.sde.words import event_in_words
from scoresde.units import Identity, in_words

if TYPE_CHECKING:
    from scoresde.sde import SDE

__all__ = ["check", "describe_noise", "describe_sides", "remarks"]

_SHOWN = 64  # the number of samples in the picture
# The largest noise is compared with this quantile of the distances between samples, since the
# largest distance is that to an outlier.
_NEAR = 0.95
_PADDED = 1.25  # padding is reported if it multiplies the number of pixels by more than this
_FLAT = 5  # samples with fewer numbers are not reported as constant, which may be chance
_QUICK = 2**25  # this many numbers can be read in about a second


def check(
    source: str | os.PathLike[str] | Tensor | np.ndarray[Any, Any] | object,
    *,
    condition: Mapping[str, Any] | str | Sequence[str] | None = None,
    sample: str | Sequence[str] | None = None,
    split: str | None = None,
    size: Size = None,
    layout: str | None = None,
    missing: Literal["raise", "drop"] = "raise",
    standardize: bool = False,
    on_bad_image: Literal["raise", "skip"] = "raise",
    stride: int = 1,
    sde: SDE | None = None,
) -> Report:
    """Check data for faults that would break a training run, and for possible mistakes.

    The command `scoresde data check` also compares the data with the noise and the network that
    `scoresde.suggest` chooses for them.

    Args:
        source: A source as for `load`, or loaded data.
        condition: The conditions. All arguments from here to `on_bad_image` are as in `load`.
        sample: The array, or the columns, with the samples.
        split: The name of the part of a data set.
        size: The size to which images are resized.
        layout: The order of the axes of a sample.
        missing: `"drop"` leaves out samples with a NaN.
        standardize: Shift and scale floats.
        on_bad_image: `"skip"` leaves out damaged images, up to a tenth of a folder.
        stride: The number that should divide the sides of images, `patch * 2 ** (resolutions - 1)`
            for a U-Net. Other sides are padded; this is reported if it adds more than a
            quarter to the number of pixels.
        sde: The SDE whose noise is compared with the data, if any.

    Returns:
        The report. Faults of the data are in the report and do not raise errors.

    Raises:
        InvalidValueError, UnknownNameError, MissingExtraError: An argument is wrong, as for `load`.
    """
    check_size(size)
    if stride < 1:
        raise InvalidValueError(f"the stride must be at least 1, got {stride}")
    report = Report()
    options: dict[str, Any] = dict(
        sample=sample, layout=layout, missing=missing, split=split, skip=on_bad_image == "skip"
    )
    data = _opened(report, source, by_name(condition) or {}, size, options)
    if data is None:
        return report
    _describe(report, data)
    if commas := _commas_in(source):
        report.facts["commas"] = f"read as decimal commas: {some(commas)}"
    good = _samples(report, data)
    describe_sides(report, data.event_shape, stride)
    if good is None:
        return report
    try:
        if standardize:
            good = standardized(good, source)
        _units(report, good)
        describe_columns(report, good)
    except DataError as error:
        report.problems.append(str(error))
        return report
    report.data = good
    report.samples = good.batch(_spread(len(good)))
    if sde is not None:
        describe_noise(report, sde)
    else:
        _scale(report, good)
    return report


def remarks(data: Data, sde: SDE | None = None) -> list[str]:
    """Return the remarks of `check`, for the start of a training.

    Copies and constant samples are searched only among data of up to 2^25 numbers.

    Args:
        data: Loaded data.
        sde: The SDE whose noise is compared with the data, if any.
    """
    report = Report()
    try:
        describe_conditions(report, data)
        if len(data) * math.prod(data.event_shape) <= _QUICK:
            _samples(report, data)
        _units(report, data)
        describe_columns(report, data)
        if sde is not None:
            report.data, report.samples = data, data.batch(_spread(len(data)))
            describe_noise(report, sde)
    except DataError:  # the training will raise this error
        return []
    return list(report.remarks)


def _spread(n: int) -> Tensor:
    """Return up to 64 indices, spread over all samples."""
    return torch.linspace(0, n - 1, min(_SHOWN, n)).round().long()


def _is_folder(source: str | os.PathLike[str]) -> bool:
    return (
        not is_name(source)
        and not os.fspath(source).startswith("hf:")
        and Path(source).expanduser().is_dir()
    )


def _commas_in(source: object) -> tuple[str, ...]:
    """Return the columns of a text table whose commas are read as decimal commas."""
    if not isinstance(source, str | os.PathLike):
        return ()
    path = Path(source).expanduser()
    return read_csv(path).commas if TABLES.get(path.suffix) is read_csv else ()


def _opened(
    report: Report,
    source: object,
    condition: Mapping[str, Any],
    size: Size,
    options: Mapping[str, Any],
) -> Data | None:
    check_layout(options["layout"])

    def opened(known: Mapping[str, Any], report: Report) -> Data | None:
        if isinstance(source, str | os.PathLike) and _is_folder(source):
            wanted = Wanted(known, layout=options["layout"])
            folder = Path(source).expanduser()
            return usable_of(report, folder, size, wanted, skip=options["skip"])
        return find(source, condition=known, size=size, **options)

    faults = (DataError, InvalidTypeError, ShapeError)
    try:
        return opened(condition, report)
    except faults as error:
        report.problems += faults_of(error)
    if not condition:
        return None
    # a condition may be wrong, so check the samples and each condition separately
    try:
        data = opened({}, report)
    except faults:
        return None
    before, report.problems = report.problems, []
    for name, rows in condition.items():
        try:
            opened({name: rows}, Report())
        except faults as error:
            report.problems += faults_of(error)
    report.problems += [text for text in before if text not in report.problems]
    return data


def _describe(report: Report, data: Data) -> None:
    report.facts["samples"] = f"{len(data):,} of shape {data.event_shape}"
    report.facts["each"] = event_in_words(data.event_shape, data.columns)
    if data.kinds:
        report.facts["learnt"] = f"p({data.called} | {', '.join(data.kinds)})"
    if doubt := doubt_of(data):
        report.remark("layout", doubt)
    first = data.raw[:1] if isinstance(data.raw, Tensor) else data.store.read(slice(0, 1))
    count, wide = len(data) * math.prod(data.event_shape), max(4, first.element_size())
    sizes = _size(count * first.element_size()), _size(count * wide)
    report.facts["memory"] = f"{sizes[0]} as they are, {sizes[1]} as floats"
    describe_conditions(report, data)


def _samples(report: Report, data: Data) -> Data | None:
    """Return the samples without NaN and infinity; report the others, copies, constant samples."""
    finite, constant = [], []
    first: dict[bytes, int] = {}
    copies = []
    try:
        for rows, raw in pieces(data.store):
            flat = raw.flatten(1)
            finite.append(flat.isfinite().all(1))
            same = (flat == flat[:, :1]).all(1) & (flat.shape[1] >= _FLAT)
            constant += (rows.start + same.nonzero().flatten()).tolist()
            for i, row in enumerate(flat.contiguous().numpy(), rows.start):
                number = first.setdefault(hashlib.blake2b(row, digest_size=16).digest(), i)
                if number != i:
                    copies.append(f"{data.place(i)} (of {data.place(number)})")
    except ScoreSDEError as error:
        report.problems.append(str(error))
        return None
    fine = torch.cat(finite)
    if not fine.all():
        bad = [data.place(i) for i in (~fine).nonzero().flatten().tolist()]
        what = "1 sample holds" if len(bad) == 1 else f"{len(bad)} samples hold"
        report.problems.append(f"{what} a NaN or an infinity: {some(bad)}")
    if copies:
        what = "1 sample is a copy of another" if len(copies) == 1 else (
            f"{len(copies)} samples are copies of others"
        )  # fmt: skip
        report.remark("copies", f"{what}: {some(copies)}", copies)
    if constant:
        which = [*map(data.place, constant)]
        what = "1 sample is" if len(constant) == 1 else f"{len(constant)} samples are"
        report.remark("constant samples", f"{what} constant: {some(which)}", which)
    if not fine.any():
        return None
    return data if fine.all() else data[fine.nonzero().flatten()]


def _units(report: Report, data: Data) -> None:
    found = data.survey
    report.facts["numbers"] = f"from {found.low:.6g} to {found.high:.6g}"
    report.facts["units"] = in_words(data.transform)
    mean, var = data.moments()
    rms = math.sqrt(float(mean.square().mean()) + var)
    report.facts["moments"] = (
        f"mean {float(mean.mean()):.4g}, std {math.sqrt(var):.4g}, RMS {rms:.4g} in model units"
        + (", of all columns together" if len(data.columns) > 1 else "")
    )
    if var == 0:
        report.problems.append("all samples are equal, so there is nothing to learn")


def _scale(report: Report, data: Data) -> None:
    """Report data whose scale does not suit the default noise scales."""
    mean, var = data.moments()
    rms = math.sqrt(float(mean.square().mean()) + var)
    if data.transform == Identity() and not 0.1 <= rms <= 10:
        report.remark(
            "units",
            f"the numbers have an RMS of {rms:.4g}, but the noise scales of VESDE() and VPSDE() "
            "suit an RMS of about 1; take the noise scales of scoresde.suggest(data), or "
            "standardize=True, which shifts and scales the numbers",
        )


def describe_sides(report: Report, event_shape: tuple[int, ...], stride: int) -> None:
    """Report sides that a U-Net pads to a multiple of `stride`, if the padding is large."""
    sides = event_shape[1:]
    padded = [-(-n // stride) * stride for n in sides]
    if math.prod(padded) > _PADDED * math.prod(sides):
        report.remark(
            "sides",
            f"the U-Net pads {'x'.join(map(str, sides))} to {'x'.join(map(str, padded))}, "
            f"multiples of {stride}, which costs time; use fewer resolutions (channels=) or a "
            "smaller patch=",
        )


def describe_noise(report: Report, sde: SDE) -> None:
    """Report a smallest noise that is too large for the data, or a largest noise too small.

    The largest noise should be the largest distance between samples, outliers aside (Song & Ermon
    2020, technique 1, arXiv:2006.09011).
    """
    data, samples = report.data, report.samples
    if data is None or samples is None:
        return
    low, high = (
        float(sde.sigma(torch.tensor(t, dtype=torch.float64)))
        / float(sde.alpha(torch.tensor(t, dtype=torch.float64)))
        for t in (sde.eps, sde.T)
    )
    std = math.sqrt(data.moments()[1])
    apart = torch.pdist(samples.flatten(1).double()) if len(data) > 1 else torch.zeros(1)
    far, usual = float(apart.max()), float(apart.quantile(_NEAR))
    report.facts["noise"] = (
        f"sigma / alpha from {low:.4g} to {high:.4g}; {len(samples)} samples lie up to "
        f"{far:.4g} apart"
    )
    if std and low > std / 5:
        report.remark(
            "noise",
            f"the smallest noise, {low:.4g}, is too large for data with a std of {std:.4g}; "
            "standardize the data, or choose a smaller sigma_min or eps",
        )
    if high < usual:
        report.remark(
            "noise",
            f"the largest noise, {high:.4g}, is smaller than {usual:.4g}, the 95 % quantile of "
            "the distances between samples; choose a larger sigma_max, or standardize",
        )


def _size(n: int) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if n < 1000:
            return f"{n:.3g} {unit}"
        n /= 1000  # type: ignore[assignment]
    return f"{n:.3g} TB"
