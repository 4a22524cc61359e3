r"""Which axis of a sample is which: channels come first, the axes of space and time after them.

A layout is a word with one letter for each axis of a sample as it is given, such as "HWC": C is
that of the channels, all others are space or time. Without a C there is one channel.
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

__all__ = ["Laid", "check_layout", "doubt", "laid_as"]

_LETTERS = "CTDHW"
_SPACE = {1: "T", 2: "HW", 3: "DHW"}
_FEW, _FLAT = 4, 8  # channels that nobody wonders about; sides to a channel of a long series


def check_layout(layout: str | None) -> None:
    """Raise InvalidValueError unless a layout is letters for different axes."""
    if layout is None:
        return
    if not layout or len(set(layout)) != len(layout) or set(layout) - set(_LETTERS):
        raise InvalidValueError(
            f"layout={layout!r} is none; write a letter for each axis of a sample, C for channels, "
            "T for time, D, H and W for space: 'TC', 'HW', 'HWC', 'CDHW' ..."
        )


@dataclass(frozen=True)
class Laid:
    """Samples with their channels first.

    Args:
        store: The samples as they are given.
        layout: What their axes are.

    Raises:
        ShapeError: They have more or fewer axes.
    """

    store: Store
    layout: str

    def __post_init__(self) -> None:
        event = tuple(self.store.shape[1:])
        if len(event) != len(self.layout):
            raise ShapeError(
                f"layout={self.layout!r} has {len(self.layout)} axes, and a sample has the shape "
                f"{event}; write one letter for each"
            )

    @property
    def shape(self) -> tuple[int, ...]:
        """Return `(N, C, *)`."""
        n, *event = self.store.shape
        sides = [event[i] for i in self._order()]
        return (n, *sides) if "C" in self.layout else (n, 1, *sides)

    @property
    def random(self) -> bool:
        """Return whether they are others whenever they are read."""
        return is_random(self.store)

    def read(self, index: Tensor | slice) -> Tensor:
        """Return these samples, in memory of their own."""
        rows = self.store.read(index)
        rows = rows.permute(0, *(1 + i for i in self._order()))
        return (rows if "C" in self.layout else rows[:, None]).contiguous()

    def _order(self) -> list[int]:
        return sorted(range(len(self.layout)), key=lambda i: (self.layout[i] != "C", i))


def laid_as(data: Data, event_shape: tuple[int, ...]) -> Data:
    """Return data with their channels first, where only so they have the shape of a model.

    Grey images `(H, W)` become `(1, H, W)`, and `(H, W, C)` becomes `(C, H, W)`.
    """
    own, space = data.event_shape, _SPACE.get(len(event_shape) - 1)
    if space is None or own == event_shape:
        return data
    if (1, *own) == event_shape:
        return data.kept(Laid(data.store, space))
    last = (own[-1], *own[:-1]) == event_shape
    return data.kept(Laid(data.store, f"{space}C")) if last else data


def doubt(shape: Sequence[int]) -> str:
    """Return how samples of a shape are read, where something else may be meant; or nothing.

    Args:
        shape: Of one sample, `(C, *)`.
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
        told = f"samples of {read} are read as {shape[0]} channels of "
        told += f"{'x'.join(map(str, shape[1:]))} {space} (layout='C{sides}')"
        if shape[-1] <= _FEW:
            return f"{told}; for {shape[-1]} channels, which come last, write layout='{sides}C'"
        if len(shape) == 3 and shape[0] * _FLAT > min(shape[1:]):
            return f"{told}; for volumes of one channel write layout='DHW'"
    return ""
