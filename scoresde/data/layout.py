r"""Permute the axes of samples, so that channels come before the axes of space or time.

A layout is a word with one letter for each axis of a sample as the user gives it, such as "HWC". C
stands for channels, all other letters for space or time. Without a C, a channel axis of length 1 is
added.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from scoresde.data.stores import Store, is_random
from scoresde.errors import InvalidValueError, ShapeError

if TYPE_CHECKING:
    from scoresde.data.samples import Data

__all__ = ["Laid", "check_layout", "doubt", "is_smooth", "laid_as"]

_LETTERS = "CTDHW"
_SPACE = {1: "T", 2: "HW", 3: "DHW"}
# A warning is given if a series has more than _FEW channels, and fewer than _FLAT steps for each.
_FEW, _FLAT = 4, 8
# Vectors with at least _LONG entries are taken for signals if the mean square of the differences
# between neighbours is below the share _ALIKE of the mean square for any two entries.
_LONG, _ALIKE = 32, 0.25


def check_layout(layout: str | None) -> None:
    """Raise InvalidValueError unless a layout consists of different letters among C, T, D, H, W."""
    if layout is None:
        return
    if not layout or len(set(layout)) != len(layout) or set(layout) - set(_LETTERS):
        raise InvalidValueError(
            f"layout={layout!r} is not a layout; write a letter for each axis of a sample, C for "
            "channels, T for time, D, H and W for space: 'T', 'TC', 'HW', 'HWC', 'CDHW' ..."
        )


@dataclass(frozen=True)
class Laid:
    """Store samples with their channels moved to the first axis.

    Args:
        store: The samples with their original axes.
        layout: The letters of the original axes.

    Raises:
        ShapeError: The samples have more or fewer axes.
    """

    store: Store
    layout: str

    def __post_init__(self) -> None:
        event = tuple(self.store.shape[1:])
        if len(event) != len(self.layout):
            raise ShapeError(
                f"layout={self.layout!r} has {len(self.layout)} axes, but a sample has the shape "
                f"{event}; write one letter for each axis"
            )

    @property
    def shape(self) -> tuple[int, ...]:
        """Return `(N, C, *)`."""
        n, *event = self.store.shape
        sides = [event[i] for i in self._order()]
        return (n, *sides) if "C" in self.layout else (n, 1, *sides)

    @property
    def random(self) -> bool:
        """Return True if reading the same row again gives a different sample."""
        return is_random(self.store)

    def read(self, index: Tensor | slice) -> Tensor:
        """Return a copy of these samples."""
        rows = self.store.read(index)
        rows = rows.permute(0, *(1 + i for i in self._order()))
        return (rows if "C" in self.layout else rows[:, None]).contiguous()

    def _order(self) -> list[int]:
        return sorted(range(len(self.layout)), key=lambda i: (self.layout[i] != "C", i))


def laid_as(data: Data, event_shape: tuple[int, ...]) -> Data:
    """Move the channels of samples first if samples then have a model's event shape.

    Grey images `(H, W)` become `(1, H, W)`, and `(H, W, C)` becomes `(C, H, W)`. Other data are
    returned unchanged.
    """
    event, space = data.event_shape, _SPACE.get(len(event_shape) - 1)
    if space is None or event == event_shape:
        return data
    if (1, *event) == event_shape:
        return data.kept(Laid(data.store, space))
    last = (event[-1], *event[:-1]) == event_shape
    return data.kept(Laid(data.store, f"{space}C")) if last else data


def doubt(shape: Sequence[int]) -> str:
    """Return a sentence if the axes may be in another order, or "".

    Args:
        shape: The shape of one sample, `(C, *)`.
    """
    read = "x".join(map(str, shape))
    if len(shape) == 2:
        first, last = shape
        if first <= _FEW or first * _FLAT <= last:
            return ""
        return (
            f"samples of {read} are read as {first} channels of {last} steps each (layout='CT'); "
            f"for grey images write layout='HW', for {first} steps of {last} numbers each "
            "layout='TC'"
        )
    if len(shape) in (3, 4) and shape[0] > _FEW:
        sides, space = ("HW", "pixels") if len(shape) == 3 else ("DHW", "voxels")
        text = f"samples of {read} are read as {shape[0]} channels of "
        text += f"{'x'.join(map(str, shape[1:]))} {space} (layout='C{sides}')"
        if shape[-1] <= _FEW:
            return f"{text}; for {shape[-1]} channels, which come last, write layout='{sides}C'"
        if len(shape) == 3 and shape[0] * _FLAT > min(shape[1:]):
            return f"{text}; for volumes of one channel write layout='DHW'"
    return ""


def is_smooth(x: Tensor) -> bool:
    """Return True if samples `(N, d)` look like signals: long, and with similar neighbours.

    The mean square of the differences of neighbours is divided by the mean square for any two
    entries (von Neumann 1941). The ratio is about 1 if the entries have no order.

    Examples:
        >>> import torch
        >>> x = torch.randn(50, 100, generator=torch.Generator().manual_seed(0))
        >>> is_smooth(x), is_smooth(x.cumsum(1))
        (False, True)
    """
    if x.ndim != 2 or x.shape[1] < _LONG:
        return False
    apart = x.double().diff(dim=1).square().mean(1) / (2 * x.double().var(1))
    return bool(apart.median() < _ALIKE)
