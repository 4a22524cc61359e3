r"""Prepare the conditions of a network: classes, vectors and fields, by name.

A network receives the entries of a vector or field, and a flag for each entry, which is 1 if the
entry is known. If an entry is NaN, or the condition is not passed, entry and flag are 0. A missing
label is treated as one more class.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scoresde.checks import check_integer, check_name, check_range, quoted
from scoresde.errors import InvalidTypeError, InvalidValueError, ShapeError

if TYPE_CHECKING:
    from scoresde.nn.embedding import Embedding

__all__ = ["Network", "classes_of", "flagged", "gridded", "resized", "shapes_of", "split"]

Shape = int | tuple[int, ...]


class Network(nn.Module):
    r"""Store the constructor's arguments and the conditions of a network `net(x, c, **condition)`.

    This is the base class of `UNet`, `DiT` and `MLP`. The number c of each sample is the noise
    level; a `ScoreModel` passes $\tfrac14 \log(\sigma / \alpha)$.

    Attributes:
        embedding: The embedding of c and of the labels.
        outer: The names of the attributes whose weights act directly on the data or the conditions.
            With Muon, Adam updates these weights.
    """

    outer = ("embedding", "stem", "joined", "head")

    embedding: Embedding
    _config: dict[str, Any]
    _shapes: dict[str, Shape]

    @property
    def config(self) -> dict[str, Any]:
        """Return the constructor's arguments, which JSON can hold, for `type(net)(**config)`."""
        return copy.deepcopy(self._config)

    def declared(self, event_shape: Sequence[int]) -> dict[str, Shape]:
        """Return the conditions that the network takes for events of shape `event_shape`.

        Returns:
            A mapping from names to the number of classes, or to the shape of the condition of one
            sample.
        """
        classes: dict[str, Shape] = {**self.embedding.classes}
        return classes | {
            name: (shape, *event_shape[1:]) if isinstance(shape, int) else shape
            for name, shape in self._shapes.items()
        }

    def grown(self, num_classes: int | Mapping[str, int]) -> Self:
        """Return a copy with more classes and the same output for the old classes.

        A new class starts with the embedding of the missing label; the classes of a new name start
        with an embedding of 0.

        Args:
            num_classes: The new numbers of classes, as in the constructor; names that are left out
                keep their numbers.

        Raises:
            InvalidValueError: The network has more classes already, or a vector or field with the
                same name; or a number or name is not valid.
        """
        classes = classes_of(num_classes)
        _check_apart(classes, self._shapes)
        net = copy.deepcopy(self)
        net.embedding.grow(classes)
        net._config["num_classes"] = _plain(net.embedding.classes)
        return net

    def _declare(self, condition: object, **config: Any) -> None:
        """Store the arguments of the constructor, and check those which all networks have."""
        check_range("dropout", config["dropout"], "[0, 1]")
        classes, self._shapes = classes_of(config["num_classes"]), shapes_of(condition)
        _check_apart(classes, self._shapes)
        self._config = config | {"num_classes": _plain(classes)}
        if self._shapes:  # files of networks without conditions do not have this key
            self._config["condition"] = {
                name: shape if isinstance(shape, int) else list(shape)
                for name, shape in self._shapes.items()
            }

    def _check_names(self, condition: Mapping[str, Tensor | None]) -> None:
        for name, value in condition.items():
            if name in self.embedding.classes or name in self._shapes or value is None:
                continue
            known = [*self.embedding.classes, *self._shapes]
            if known:
                check_name("condition", name, known)
            raise InvalidValueError(
                f"got a {name}, but this network was built without conditions; pass num_classes= "
                f"or condition= when you build it, or leave the {name} out"
            )


def classes_of(num_classes: object) -> dict[str, int]:
    """Return the numbers of classes by name, sorted.

    A single number is the number of classes of the condition `label`.
    """
    if num_classes is None:
        return {}
    given: Mapping[Any, Any] = (
        num_classes if isinstance(num_classes, Mapping) else {"label": num_classes}
    )
    return {name: check_integer(_called(name), given[name], 1) for name in _names(given)}


def shapes_of(condition: object) -> dict[str, Shape]:
    """Return the shapes of vectors and fields by name, sorted.

    Raises:
        InvalidTypeError, InvalidValueError: A name is not a Python identifier, or a shape is not
            made of positive integers.
    """
    if condition is None:
        return {}
    if not isinstance(condition, Mapping):
        raise InvalidTypeError(
            "condition= maps names to shapes, such as {'y': (8,)}, got " + quoted(condition)
        )
    shapes: dict[str, Shape] = {}
    for name in _names(condition):
        given = condition[name]
        sides = given if isinstance(given, list | tuple) else (given,)
        if not sides:
            raise InvalidValueError(f"condition {name} has the shape (); write (1,) for a number")
        sides = tuple(check_integer(f"the shape of condition {name}", n, 1) for n in sides)
        shapes[name] = sides if isinstance(given, list | tuple) else sides[0]
    return shapes


def flagged(name: str, value: Tensor | None, like: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Replace missing entries of a condition by zeros, and append the flags along axis 1.

    Args:
        name: The name of the condition.
        value: `(B, *shape)`, with NaN for missing entries; None if all entries are missing.
        like: The state `(B, *)`, which has the batch size and the dtype of the result.
        shape: The shape of the condition of one sample, `(k, *)`; a side of 0 stands for any size.

    Returns:
        `(B, 2 k, *)`; if `value` is None, all sides after the channels are 1.

    Raises:
        InvalidTypeError: The condition is not floating point.
        ShapeError: The condition has another shape.
    """
    n = like.shape[0]
    if value is None:
        return like.new_zeros(n, 2 * shape[0], *(1 for _ in shape[1:]))
    if not value.is_floating_point():
        raise InvalidTypeError(
            f"condition {name} must be floating point, got {value.dtype}; convert it by .float()"
        )
    fits = value.ndim == 1 + len(shape) and value.shape[0] == n
    if not fits or any(m not in (k, 0) for m, k in zip(shape, value.shape[1:], strict=True)):
        sides = ", ".join("L" if m == 0 else str(m) for m in shape)
        raise ShapeError(
            f"condition {name} must have the shape ({n}, {sides}), got {tuple(value.shape)}"
        )
    value = value.to(like.dtype)
    missing = value.isnan()
    return torch.cat([value.masked_fill(missing, 0), (~missing).to(value)], dim=1)


def split(
    shapes: Mapping[str, Shape], spatial: int
) -> tuple[dict[str, int], dict[str, tuple[int, ...]]]:
    """Split shapes into lengths of vectors and shapes of fields, where a side of 0 is any size.

    Raises:
        InvalidValueError: A shape is that of neither.
    """
    vectors, fields = {}, {}
    for name, shape in shapes.items():
        if isinstance(shape, int):
            fields[name] = (shape, *(0,) * spatial)
        elif len(shape) == 1:
            vectors[name] = shape[0]
        elif len(shape) == spatial + 1:
            fields[name] = shape
        else:
            raise InvalidValueError(
                f"condition {name} has the shape {shape}, which is neither a vector (n,) nor a "
                f"field (k{', L' * spatial}); flatten it, or build with spatial={len(shape) - 1}"
            )
    return vectors, fields


def resized(field: Tensor, size: Sequence[int]) -> Tensor:
    """Resample a field `(B, k, *)` to the grid of the state.

    The values of a coarser field are repeated; the values of a finer field are averaged over cells.
    """
    if field.shape[2:] == size:
        return field
    if all(n == 1 for n in field.shape[2:]):
        return field.expand(*field.shape[:2], *size)
    return F.interpolate(field, tuple(size), mode="area")


def gridded(
    fields: Mapping[str, tuple[int, ...]], condition: Mapping[str, Tensor | None], like: Tensor
) -> Tensor:
    """Return all fields and their flags on the grid of the state, `(B, twice the channels, *)`."""
    parts = [
        resized(flagged(name, condition.get(name), like, shape), like.shape[2:])
        for name, shape in fields.items()
    ]
    return torch.cat(parts, dim=1)


def _check_apart(classes: Mapping[str, int], shapes: Mapping[str, Shape]) -> None:
    if both := classes.keys() & shapes.keys():
        raise InvalidValueError(
            f"{', '.join(sorted(both))} is in num_classes= and in condition=; name it in only one "
            "of the two"
        )


def _called(name: str) -> str:
    return "num_classes" if name == "label" else f"num_classes of {name}"


def _names(named: Mapping[Any, Any]) -> list[str]:
    """Return sorted names, so that a network does not depend on the order of conditions."""
    for name in named:
        if not isinstance(name, str) or not name.isidentifier() or name == "self":
            raise InvalidValueError(
                "a condition is passed as a keyword argument, so its name cannot be "
                f"{quoted(name)}; give it a name of letters"
            )
    return sorted(named)


def _plain(classes: Mapping[str, int]) -> int | dict[str, int] | None:
    """Return the numbers of classes in the form of files: one number if there is only `label`."""
    if set(classes) <= {"label"}:
        return classes.get("label")
    return dict(classes)
