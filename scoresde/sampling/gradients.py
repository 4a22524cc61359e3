"""Differentiate samples without storing the activations of networks.

The backward pass evaluates the networks of a run again, one after another (Chen et al. 2016,
*Training deep nets with sublinear memory cost*, arXiv:1604.06174). So a run stores only a few
states of each step.
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
    """Signal that a score computes a gradient itself, so that its activations must be stored."""


def checkpointed(score: Score) -> Callable[..., Any]:
    """Return a function that evaluates a score without storing its activations.

    A score that computes gradients itself, such as a posterior, is evaluated in the ordinary way.

    Args:
        score: The score. Its networks are set to evaluation mode in the backward pass too.
    """
    nested, thread = False, threading.get_ident()

    def evaluate(function: Callable[[Tensor, Tensor], Any], x: Tensor, t: Tensor) -> Any:
        nonlocal nested
        # the context holds the user's current autocast setting, for the backward pass
        asked, first = contextvars.copy_context(), True

        def again(x: Tensor, t: Tensor) -> Any:
            nonlocal first
            if first:
                first = False
                return in_user_settings(function, x, t)
            if running:
                raise _Nested
            # this may run in a thread of autograd
            with in_evaluation(layers_of(score), thread):
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
            "torch.inference_mode does not record gradients; leave this mode, or leave grad=True "
            "out"
        )
    if not sampler.differentiable:
        raise InvalidTypeError(
            f"{quoted(sampler)} is not differentiable; with grad=True take another method, such as "
            "'dopri5', 'heun' or 'ancestral'"
        )
