"""Samples that can be differentiated, at the memory of their states alone.

The networks of a run are evaluated again where gradients go back through them, one after another
(Chen et al. 2016, *Training deep nets with sublinear memory cost*, arXiv:1604.06174), so that a run
keeps a few states of each step and not what is inside of the networks.
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
    """A score takes a gradient of its own, for which its inside must be kept."""


def checkpointed(score: Score) -> Callable[..., Any]:
    """Return how a score is evaluated so that nothing inside of it is kept.

    A score that takes gradients itself, as posteriors do, is evaluated plainly from its first call
    on.

    Args:
        score: The score, whose networks are in evaluation mode the second time too.
    """
    nested, thread = False, threading.get_ident()

    def evaluate(function: Callable[[Tensor, Tensor], Any], x: Tensor, t: Tensor) -> Any:
        nonlocal nested
        asked, first = contextvars.copy_context(), True  # with autocast, as the user has it now

        def again(x: Tensor, t: Tensor) -> Any:
            nonlocal first
            if first:
                first = False
                return in_user_settings(function, x, t)
            if running:
                raise _Nested
            with in_evaluation(layers_of(score), thread):  # here or in a thread of torch
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
    """Raise an error if no gradient goes through a sampler, or none is recorded.

    Raises:
        InvalidTypeError: No gradient goes through the sampler.
        InvalidValueError: The call is in inference mode, in which none is recorded.
    """
    if torch.is_inference_mode_enabled():
        raise InvalidValueError(
            "no gradient is recorded under torch.inference_mode; leave it, or leave grad=True out"
        )
    if not sampler.differentiable:
        raise InvalidTypeError(
            f"no gradient goes through {quoted(sampler)}; with grad=True take another method, such "
            "as 'dopri5', 'heun' or 'ancestral'"
        )
