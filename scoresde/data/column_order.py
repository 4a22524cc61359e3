"""Put the entries of vectors in the order of a model, by their names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from scoresde.data.stores import Store, is_random
from scoresde.errors import InvalidValueError
from scoresde.units import Standardize, Transform

if TYPE_CHECKING:
    from scoresde.data.samples import Data

__all__ = ["Reordered", "in_columns", "places_of"]


@dataclass(frozen=True)
class Reordered:
    """Store vectors with their entries in another order.

    Args:
        store: The vectors in their original order, `(N, d)`.
        places: For each entry its position in the original vectors.
    """

    store: Store
    places: Sequence[int]

    @property
    def shape(self) -> tuple[int, ...]:
        """Return `(N, d)`."""
        return tuple(self.store.shape)

    @property
    def random(self) -> bool:
        """Return True if reading the same row again gives a different sample."""
        return is_random(self.store)

    def read(self, index: Tensor | slice) -> Tensor:
        """Return a copy of these vectors."""
        return self.store.read(index)[:, list(self.places)]


def places_of(given: Sequence[str], known: Sequence[str] | None, what: str) -> list[int]:
    """Return the position in `given` of each known name, or an empty list if nothing changes.

    Nothing changes if the names are in the same order, or if one of the lists is empty.

    Raises:
        InvalidValueError: The names differ.

    Examples:
        >>> places_of(("b", "a"), ("a", "b"), "the columns")
        [1, 0]
    """
    if not given or not known or tuple(given) == tuple(known):
        return []
    if len({*given}) != len(given) or {*given} != {*known}:
        raise InvalidValueError(
            f"{what} are {', '.join(given)}, but the model or the other data have "
            f"{', '.join(known)}; give columns with the same names, in any order"
        )
    return [list(given).index(name) for name in known]


def in_columns(data: Data, names: Sequence[str] | None, transform: Transform | None = None) -> Data:
    """Return data with columns in the order of `names`, if the data have names too.

    Args:
        data: The data.
        names: The names, such as the names of a model's columns.
        transform: The transform of the model, which is already in this order.

    Raises:
        InvalidValueError: The data's columns have other names.
    """
    places = places_of(data.columns, names, "the columns of the data")
    if not places:
        return data
    old = data.transform
    if isinstance(old, Standardize) and old != transform and len(old.shift) > 1:
        shift, scale = ([part[i] for i in places] for part in (old.shift, old.scale))
        old = Standardize(tuple(shift), tuple(scale))
    columns = tuple(data.columns[i] for i in places)
    return data.kept(Reordered(data.store, places), columns=columns, transform=old)
