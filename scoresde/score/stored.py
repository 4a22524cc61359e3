"""Collect the tensors of a model for its file, and check those that are read from a file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from scoresde.checks import check_floating, narrowed
from scoresde.errors import CheckpointError, NonFiniteError, ShapeError
from scoresde.score.inside import device_of
from scoresde.score.names import names_of
from scoresde.score.pilot import Pilot
from scoresde.units import rebuild

if TYPE_CHECKING:
    from scoresde.score.saved import Saved

__all__ = ["PILOT", "as_moment", "check_weights", "describing", "restore", "stored"]

PILOT = "pilot."
"""The prefix of the names of a pilot's tensors in a file."""


def stored(model: Saved, dtype: torch.dtype | None) -> dict[str, Tensor]:
    """Return the tensors for a model's file, with the tensors of the network cast to `dtype`.

    Raises:
        DeviceError: The weights are on the meta device, which holds no numbers.
        InvalidTypeError: The dtype is not a floating-point dtype.
        NonFiniteError: A weight is NaN or infinite, or overflows the dtype.
    """
    device_of(model)  # checks it
    tensors = dict(model.state_dict())
    if dtype is not None:
        check_floating("dtype", dtype)
        for name, value in tensors.items():
            if name.startswith("net.") and value.is_floating_point():
                tensors[name] = narrowed(f"numbers in {name}", value, dtype)
    for name, _ in model.named_parameters():
        if not tensors[name].isfinite().all():
            raise NonFiniteError(
                f"the weight {name!r} is not finite as {tensors[name].dtype}, so the model could "
                "not be read back; use a dtype with a larger range, or train the model again"
            )
    return tensors


@contextmanager
def describing(path: Path) -> Iterator[None]:
    """Turn every error in the block into a CheckpointError that names the file."""
    try:
        yield
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    except Exception as error:  # the description of a file from elsewhere can raise any error
        cause = f"{type(error).__name__}: {error}"[:500]
        raise CheckpointError(f"{path} does not describe a model of scoresde: {cause}") from error


def as_moment(name: str, value: Any, event_shape: tuple[int, ...]) -> Tensor:
    """Return a mean or a variance as a float32 tensor, `()` or of the event shape.

    Raises:
        ShapeError: The value has another shape.
    """
    moment = torch.as_tensor(value, dtype=torch.float32).clone()
    if moment.ndim and moment.shape != event_shape:
        raise ShapeError(
            f"the {name} in moments= must be a number or have the event shape {event_shape}, got "
            f"{tuple(moment.shape)}"
        )
    return moment


def restore(model: Saved, config: Mapping[str, Any], tensors: dict[str, Tensor]) -> None:
    """Set a model's steps, transform, names and pilot from its file.

    Args:
        model: The model.
        config: The description in the file.
        tensors: The tensors of the file; the tensors of the pilot are removed.

    Raises:
        ShapeError: The transform or the columns do not fit the event shape.
        InvalidValueError: The number of class names is not the number of classes.
        CheckpointError: The description is damaged, or was not written by scoresde.
    """
    model.steps = config.get("steps")
    model.transform = rebuild(config.get("transform"))
    model.names, model.columns, model.whole = names_of(config)
    if "pilot" in config:
        parts = {name: tensors.pop(name) for name in list(tensors) if name.startswith(PILOT)}
        parts = {name.removeprefix(PILOT): value for name, value in parts.items()}
        model.pilot = pilot_of(parts, config["pilot"], model.event_shape)
    model.transform.inverse(torch.empty(0, *model.event_shape))
    known = model.facts
    if known.columns and (len(known.columns),) != known.event_shape:
        raise ShapeError(
            f"the file has {len(known.columns)} column names for events of shape "
            f"{known.event_shape}"
        )


def check_weights(model: Saved, path: Path) -> None:
    """Raise CheckpointError if a weight of a model is not finite, or a buffer holds a NaN."""
    bad = [name for name, value in model.named_parameters() if not value.isfinite().all()]
    bad += [name for name, value in model.named_buffers() if value.isnan().any()]
    if bad:
        raise CheckpointError(
            f"{path} holds weights that are NaN or infinite, in {len(bad)} tensors, the first is "
            f"{bad[0]}; use an earlier copy"
        )


def pilot_of(
    parts: Mapping[str, Tensor], numbers: Mapping[str, Any], event_shape: Sequence[int]
) -> Pilot:
    """Return the pilot in a model's file.

    Raises:
        CheckpointError: The pilot is damaged, or was not written by scoresde.
    """
    try:
        if any(not value.is_floating_point() for value in parts.values()):
            raise TypeError("its tensors are not floating-point")
        pilot = Pilot.of(parts, numbers)
        pilot.moments.check_event(torch.empty(0, *event_shape))
    except (AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"its pilot is damaged, or was not written by scoresde: {error}"
        ) from error
    return pilot
