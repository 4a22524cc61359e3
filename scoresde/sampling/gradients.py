"""Differentiate samples without keeping the activations of the networks.

In the backward pass the networks of a run are evaluated again, one after another (Chen et al. 2016,
*Training deep nets with sublinear memory cost*, arXiv:1604.06174). So a run keeps a few states of
each step, and no activations.
"""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from scoresde.checks import quoted
from scoresde.errors import InvalidTypeError, InvalidValueError
from scoresde.precision import in_user_settings
from scoresde.samplers import Sampler
from scoresde.score.inside import in_evaluation, layers_of
from scoresde.sde import Score

__all__ = ["check_differentiable", "checkpointed"]


class _Nested(Exception):  # noqa: N818
    """Signal that a score computes a gradient itself, so that its activations must be kept."""


def checkpointed(score: Score) -> Callable[..., Any]:
    """Return a function that evaluates a score without keeping its activations.

    If a score computes gradients itself, as posteriors do, it is evaluated in the ordinary way.

    Args:
        score: The score; its networks are in evaluation mode in the backward pass too.
    """
    nested, thread = False, threading.get_ident()

    def evaluate(function: Callable[[Tensor, Tensor], Any], x: Tensor, t: Tensor) -> Any:
        nonlocal nested
        # the context holds the user's present autocast setting
        asked, first = contextvars.copy_context(), True

        def again(x: Tensor, t: Tensor) -> Any:
            nonlocal first
            if first:
                first = False
                return in_user_settings(function, x, t)
            if running:
                raise _Nested
            with in_evaluation(layers_of(score), thread):  # in this thread, or in one of autograd
                return asked.copy().run(in_user_settings, function, x, t)

        if nested:
            return in_user_settings(function, x, t)
        running = True
        try:
            return checkpoint(again, x, t, use_reentrant=False, preserve_rng_state=False)
        except _Nested:
            nested = True
            return in_user_settings(function, x, t)
        finally:
            running = False

    return evaluate


def check_differentiable(sampler: Sampler) -> None:
    """Raise an error if the samples of a sampler cannot be differentiated.

    Raises:
        InvalidTypeError: The sampler is not differentiable.
        InvalidValueError: The call is in inference mode, in which torch records no gradients.
    """
    if torch.is_inference_mode_enabled():
        raise InvalidValueError(
            "no gradient is recorded under torch.inference_mode; leave that mode, or leave "
            "grad=True out"
        )
    if not sampler.differentiable:
        raise InvalidTypeError(
            f"{quoted(sampler)} is not differentiable; with grad=True take another method, such as "
            "'dopri5', 'heun' or 'ancestral'"
        )
