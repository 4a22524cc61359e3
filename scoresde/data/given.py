"""Convert the samples and conditions of the user to CPU tensors."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TypeGuard

import numpy as np
import torch
from torch import Tensor

from scoresde.checks import check_dense, check_unmasked, quoted
from scoresde.data import stores
from scoresde.data.stores import Store, narrow
from scoresde.errors import DataError, InvalidTypeError, ShapeError
from scoresde.units import Identity, Transform

__all__ = ["as_names", "as_samples", "as_tensor", "is_store"]

_DTYPES = (torch.uint8, torch.float32, torch.float64)


def as_samples(x: object, transform: Transform) -> Tensor | Store:
    """Check samples, and return them as a detached tensor; return a store unchanged.

    Raises:
        DataError: There are no samples, or some hold a NaN or an infinity.
        InvalidTypeError: The samples are neither floats nor bytes.
        ShapeError: The samples have no event dimension.
    """
    if is_store(x):
        _check_shape(tuple(x.shape))
        return x
    x = as_tensor("the samples", x)
    check_dense("x", x)
    x = x.detach()
    _check_dtype(x, transform)
    _check_shape(tuple(x.shape))
    _check_finite(x)
    return x


def as_names(names: Sequence[str], shape: tuple[int, ...]) -> tuple[str, ...]:
    """Check the names of the entries of samples, which may be missing, and return them.

    Raises:
        InvalidTypeError: The names are not text.
        ShapeError: The number of names is not the number of entries, or the samples are not
            vectors.
    """
    if isinstance(names, str) or not all(isinstance(name, str) for name in names):
        raise InvalidTypeError(f"columns= takes a list of names, got {quoted(names)}")
    if names and (len(names),) != shape:
        raise ShapeError(
            f"{len(names)} columns are named, but samples have the shape {shape}; columns= needs "
            "one name for each entry of a vector"
        )
    return tuple(names)


def is_store(given: object) -> TypeGuard[Store]:
    """Return True for a `Store` that is not a tensor."""
    return not isinstance(given, Tensor) and isinstance(given, Store)


def as_tensor(what: str, given: object) -> Tensor:
    """Convert a tensor, an array or a list to a tensor.

    Raises:
        InvalidTypeError: `given` holds no numbers, or numbers of a type that torch does not have.
        DataError: `given` is an array mapped from a file that is too large to be copied.
    """
    if isinstance(given, Tensor):
        return given
    check_unmasked(what, given)
    if isinstance(given, np.memmap):  # reading from a truncated mapped file would kill the process
        if given.nbytes > stores.IN_MEMORY:
            raise DataError(
                f"{what}, an array, is mapped from {given.filename}, and too large to be copied; "
                "pass the path of a .npy file instead, which is read when needed"
            )
        given = np.array(given)
    try:
        x = np.asarray(given)
        if x.dtype.kind not in "fiubc":
            raise TypeError
        if x.dtype == np.float64 and x.size and isinstance(given, list | tuple):
            x = narrow(x)
        x = np.ascontiguousarray(x.astype(x.dtype.newbyteorder("="), copy=False)).reshape(x.shape)
        # torch warns about read-only arrays, but nothing is written here
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
            return torch.from_numpy(x)
    except (TypeError, ValueError) as error:
        kind = f"an array of {given.dtype}" if isinstance(given, np.ndarray) else quoted(given)
        message = f"{what} must be numbers in rows of the same shape, got {kind}"
        raise InvalidTypeError(message) from error


def _check_dtype(x: Tensor, transform: Transform) -> None:
    if x.dtype not in _DTYPES or (x.dtype == torch.uint8 and transform == Identity()):
        raise InvalidTypeError(
            f"x must be float32 or float64, got {x.dtype}; convert it with x.float(), or "
            "8-bit images with x.float() / 127.5 - 1, or keep them: Data(x, transform=BYTES)"
        )


def _check_shape(shape: tuple[int, ...]) -> None:
    if len(shape) < 2:
        raise ShapeError(
            f"samples must have shape (N, *event), got {shape}; single numbers become vectors of "
            "one entry by `x[:, None]`"
        )
    if 0 in shape:
        raise DataError(f"there are no samples: shape {shape}")


def _check_finite(x: Tensor) -> None:
    if not bool(torch.isfinite(x).all()):
        bad = (~torch.isfinite(x)).flatten(1).any(1)
        cure = (
            "remove them with `x[x.flatten(1).isfinite().all(1)]`"
            if x.isinf().any()
            else "leave them out by missing='drop' of `scoresde.data.load`, or fill them in"
        )
        raise DataError(
            f"{int(bad.sum())} of {len(x)} samples hold a NaN or an infinity, the first is number "
            f"{int(bad.nonzero()[0, 0])}; {cure}"
        )
