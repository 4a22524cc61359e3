"""Leave out samples with missing numbers, and detect 12-bit and similar data."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from scoresde.checks import check_dense, outside
from scoresde.data.samples import Data
from scoresde.data.stores import InMemory, Store, pieces, store_of
from scoresde.errors import DataError
from scoresde.units import DEEP, Range

__all__ = ["in_levels", "without_missing"]

_BITS = (8, 10, 12, 14, 16)


def without_missing(x: Tensor | Store | Data, data_of: Callable[[Any], Data]) -> Data:
    """Return data without the samples that hold a NaN, and warn about their number.

    Args:
        x: All samples.
        data_of: A function that makes a `Data` of samples, with their conditions.

    Raises:
        DataError: No sample is left, or a sample has an infinite number.
    """
    if isinstance(x, Tensor):
        check_dense("x", x)
    raw = x.raw if isinstance(x, Data) else x
    if len(raw.shape) < 2 or 0 in raw.shape:  # data_of raises an error if there are no samples
        return data_of(x)
    store = store_of(raw.detach().cpu() if isinstance(raw, Tensor) else raw)
    whole = torch.cat([~part.flatten(1).isnan().any(1) for _, part in pieces(store)])
    if whole.all():
        return data_of(x)
    if not whole.any():
        raise DataError(
            f"all {len(whole):,} samples have missing numbers, so none are left; fill them in"
        )
    data = data_of(x._with(raw=store) if isinstance(x, Data) else store)
    warnings.warn(
        f"{int((~whole).sum()):,} of {len(whole):,} samples have missing numbers and are left out",
        UserWarning,
        stacklevel=outside(),
    )
    kept = data[whole.nonzero().flatten()]
    if not isinstance(store, InMemory):
        return kept
    return Data(kept._with(raw=store.x[whole]))  # this also raises an error for infinities


def in_levels(data: Data) -> Data:
    """Return 16-bit data with the transform for the bits in use, such as 12 bits with 4096 values.

    Return other data unchanged.
    """
    if data.transform != DEEP:
        return data
    bits = next(bits for bits in _BITS if data.survey.high < 2**bits)
    return data._with(transform=Range(0, 2**bits - 1, levels=2**bits))
