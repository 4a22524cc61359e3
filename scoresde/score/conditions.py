"""Find the conditions that a network takes, and standardise them for it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from scoresde.checks import check_name, quoted
from scoresde.errors import CheckpointError, InvalidTypeError, InvalidValueError, ShapeError
from scoresde.pretrained.rebuild import LARGEST
from scoresde.pretrained.store import net_config
from scoresde.score.precise import Precise
from scoresde.sde import Classes, Field

__all__ = ["ConditionUnits", "kinds_of", "read_kind", "units_of", "written"]

# The prefix of the names of the tensors of `ConditionUnits` in a file.
_STORED = "condition_units."


def kinds_of(
    net: nn.Module, event_shape: tuple[int, ...], names: Mapping[str, tuple[str, ...]]
) -> dict[str, Classes | Field] | None:
    """Return the conditions that a network takes, by name, or None if it declares none.

    A network declares its conditions in one of two ways. It may have a method
    `declared(event_shape)`, which returns for each name a number of classes or the shape of a
    tensor, as the networks of `scoresde.nn` do. Or it may have a JSON `config` with the number of
    classes of `label` under `num_classes`.

    Args:
        net: The network.
        event_shape: The shape of one sample.
        names: For each condition, the names of its classes, or of its entries if it is a vector.
    """
    declared: Any = getattr(net, "declared", None)
    if callable(declared):
        found: Mapping[str, int | tuple[int, ...]] = declared(event_shape)
    elif (config := net_config(net)) is not None:
        classes = config.get("num_classes")
        found = {"label": classes} if isinstance(classes, int) else {}
    else:
        return None
    return {
        name: Classes(kind, names.get(name, ()))
        if isinstance(kind, int)
        else Field(tuple(kind), names.get(name, ()))
        for name, kind in found.items()
    }


def written(kind: Classes | Field) -> int | list[int]:
    """Return a kind of condition as JSON: the number of classes, or a shape."""
    return kind.n if isinstance(kind, Classes) else list(kind.shape)


def read_kind(value: Any) -> Classes | Field:
    """Return the kind of condition that `written` returned as JSON.

    Raises:
        CheckpointError: The shape or the number of classes is too large.
        ScoreSDEError, TypeError: The value is neither a number of classes nor a shape.
    """
    if (value if isinstance(value, int) else math.prod(value)) > LARGEST:
        raise CheckpointError(f"it takes conditions of more than {LARGEST:,} numbers or classes")
    return Classes(value) if isinstance(value, int) else Field(tuple(value))


def units_of(tensors: Mapping[str, Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
    """Return the mean and std of each standardised condition, from the tensors of a file."""
    mean = f"{_STORED}mean_"
    names = [name.removeprefix(mean) for name in tensors if name.startswith(mean)]
    return {name: (tensors[mean + name], tensors[f"{_STORED}std_{name}"]) for name in names}


class ConditionUnits(Precise):
    r"""Shift and scale vector and field conditions to mean 0 and variance 1.

    Args:
        moments: The mean and the standard deviation of each condition by name, as
            `Data.condition_moments()` returns them. They are numbers, or tensors that broadcast to
            the condition's shape.
        kinds: The conditions that the network takes, or None if unknown.

    Raises:
        UnknownNameError: The network takes no condition of that name.
        InvalidTypeError, InvalidValueError, ShapeError: The moments of a condition are invalid.
    """

    def __init__(
        self, moments: Mapping[str, Any], kinds: Mapping[str, Classes | Field] | None
    ) -> None:
        super().__init__()
        self.names = sorted(moments)
        for name in self.names:
            if kinds is not None:
                check_name("condition", name, kinds)
            self._keep(name, moments[name], None if kinds is None else kinds[name])

    def _keep(self, name: str, pair: Any, kind: Classes | Field | None) -> None:
        if isinstance(kind, Classes):
            raise InvalidValueError(
                f"condition {name!r} is a label, which has no mean; leave it out"
            )
        try:
            mean, std = (torch.as_tensor(part, dtype=torch.float32).clone() for part in pair)
        except (TypeError, ValueError, RuntimeError) as error:
            raise InvalidTypeError(
                f"the moments of condition {name!r} must be a mean and a standard deviation, got "
                f"{quoted(pair)}"
            ) from error
        if not (mean.isfinite().all() and std.isfinite().all() and (std > 0).all()):
            raise InvalidValueError(
                f"condition {name!r} must have a finite mean and a standard deviation above 0; use "
                "1 where the condition does not vary"
            )
        for part in (mean, std):
            if kind is not None and not _broadcasts(part.shape, kind.shape):
                raise ShapeError(
                    f"the moments of condition {name!r} must be numbers or broadcast to its shape "
                    f"{kind.shape}, got {tuple(part.shape)}"
                )
        self.register_buffer(f"mean_{name}", mean)
        self.register_buffer(f"std_{name}", std)

    def moments(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Return the mean and standard deviation of each condition, by name."""
        return {name: (self._at("mean", name), self._at("std", name)) for name in self.names}

    def forward(
        self, condition: Mapping[str, Tensor] | None, dtype: torch.dtype
    ) -> dict[str, Tensor]:
        """Return the standardised conditions; cast floats to the dtype of the network."""
        found = dict(condition or {})
        for name, value in found.items():
            if name in self.names:
                wide = value.to(torch.promote_types(value.dtype, torch.float32))
                value = (wide - self._at("mean", name)) / self._at("std", name)
            found[name] = value.to(dtype) if value.is_floating_point() else value
        return found

    def _at(self, what: str, name: str) -> Tensor:
        value: Tensor = getattr(self, f"{what}_{name}")
        return value


def _broadcasts(shape: tuple[int, ...], to: tuple[int, ...]) -> bool:
    sides = zip(reversed(shape), reversed(to), strict=False)
    return len(shape) <= len(to) and all(n in (1, m) for n, m in sides)
