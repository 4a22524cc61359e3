"""What of a model is written, and what is refused of one that is read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from scoresde.checks import check_floating, narrowed
from scoresde.errors import CheckpointError, NonFiniteError
from scoresde.score.pilot import Pilot

if TYPE_CHECKING:
    from scoresde.score.model import ScoreModel

__all__ = ["check_fit", "check_weights", "describing", "pilot_of", "stored"]


def stored(model: ScoreModel, dtype: torch.dtype | None) -> dict[str, Tensor]:
    """The tensors of a model, those of its network in a dtype.

    Raises:
        InvalidTypeError: The dtype is not one of floating point.
        NonFiniteError: A weight is NaN or infinite, or beyond the dtype.
    """
    tensors = dict(model.state_dict())
    if dtype is not None:
        check_floating("dtype", dtype)
        for name, value in tensors.items():
            if name.startswith("net.") and value.is_floating_point():
                tensors[name] = narrowed(f"numbers in {name}", value, dtype)
    for name, _ in model.named_parameters():
        if not tensors[name].isfinite().all():
            raise NonFiniteError(
                f"the weight {name!r} is not finite as {tensors[name].dtype}, and no such model is "
                "read back; store another one, or one of more range"
            )
    return tensors


@contextmanager
def describing(path: Path) -> Iterator[None]:
    """Within the block, where a model is made of its description, all errors name the file."""
    try:
        yield
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    except Exception as error:  # whatever a description that is none leads to
        told = f"{type(error).__name__}: {error}"[:500]
        raise CheckpointError(f"{path} describes no model of scoresde: {told}") from error


def check_fit(model: ScoreModel) -> None:
    """Refuse a transform that does not take the events, by a batch of none.

    Raises:
        ShapeError: It does not.
    """
    model.transform.inverse(torch.empty(0, *model.event_shape))


def check_weights(model: ScoreModel, path: Path) -> None:
    """Refuse weights that are not finite, and buffers that are no numbers.

    Raises:
        CheckpointError: There are some; names the first.
    """
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
    """A stored pilot.

    Raises:
        CheckpointError: It is damaged or foreign.
    """
    try:
        if any(not value.is_floating_point() for value in parts.values()):
            raise TypeError("its numbers are no floats")
        pilot = Pilot.of(parts, numbers)
        pilot.moments.check_event(torch.empty(0, *event_shape))
    except (LookupError, RuntimeError, TypeError, ValueError) as error:
        raise CheckpointError(f"its pilot is damaged or foreign: {error}") from error
    return pilot
