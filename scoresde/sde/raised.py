"""Explain errors that torch raises in a score."""

from __future__ import annotations

from torch import Tensor

from scoresde.errors import DeviceError, InvalidTypeError, InvalidValueError, ScoreSDEError

__all__ = ["changed_in_place", "explained"]

# Parts of the error messages of torch if a network and its input have different dtypes.
_MIXED_DTYPES = ("same dtype", "scalar type", "mixed dtype", "bias type", "weight type")


def changed_in_place(name: str) -> InvalidValueError:
    """Return the error for a score that changed its input `name` in place."""
    return InvalidValueError(
        f"the score changed its input {name} in place, but the sampler still needs it; let it "
        f"change a copy, {name}.clone(), instead"
    )


def explained(error: RuntimeError, x: Tensor) -> ScoreSDEError | None:
    """Return an error that says what to do; if the cause is unknown, add a note and return None.

    The note gives the shape of the states.

    Args:
        error: The error that a score raised.
        x: The states.
    """
    text = str(error)
    if "same device" in text:
        return DeviceError(
            f"the state is on {x.device} and the score on another device; move the model, or give "
            "device="
        )
    if "requires grad is being used in an in-place" in text:
        return changed_in_place("x")
    if any(part in text for part in _MIXED_DTYPES):
        return InvalidTypeError(
            f"the state is {x.dtype} and the score's weights are not ({error}); cast the inputs to "
            "the dtype of the weights, for example `lambda x, t: model(x.float(), t.float())`"
        )
    error.add_note(f"the score was called with states of shape {tuple(x.shape)}")
    return None
