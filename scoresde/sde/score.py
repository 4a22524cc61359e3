r"""Scores: anything that returns $\nabla\log p_t(x)$, and what it knows besides.

A score is called as `score(x, t)` or `score(x, t, condition)`. What it knows of itself is one
attribute, `facts`; a score made of another holds that as its `score` and has the facts of it.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from scoresde.checks import outside, quoted
from scoresde.errors import InvalidTypeError, InvalidValueError
from scoresde.sde.condition import Classes, Condition, Field
from scoresde.sde.moments import Moments
from scoresde.units import Transform

if TYPE_CHECKING:
    from scoresde.sde.process import SDE

__all__ = ["Facts", "Score", "ask", "facts", "passes_of", "process_of", "warn_between"]

# Where torch and this package keep the score inside another: compiled modules, DataParallel, ours.
_INSIDE = ("score", "_orig_mod", "module")
# Scores within scores that are looked through; an object may have every attribute.
_DEPTH = 64


class Score(Protocol):
    r"""Describe a score: a callable that returns $\nabla\log p_t(x)$.

    That is all that is asked of it. It may take a condition as its third argument, and may know
    `facts` about itself.

    Examples:
        >>> score: Score = lambda x, t: -x  # of standard normal data under a VP SDE
    """

    def __call__(self, x: Tensor, t: Tensor, /) -> Tensor:
        """Return the score `(B, *)` of states `x` `(B, *)` at times `t` `(B,)`."""
        ...


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Hold what a score knows of itself; None is what nobody knows.

    Attributes:
        sde: The process it is the score of.
        event_shape: The shape of one sample, without the batch.
        moments: Mean and variance of the data.
        steps: The number of sampling steps that suits it.
        pilot: What `scoresde.pilot` measured of it.
        transform: The map from the user's numbers to those of the score.
        passes: Network passes that one call costs; classifier-free guidance takes 2. Where that
            depends on the noise, a function that returns them for sigma / alpha of shape `(B,)`.
        conditions: The names and kinds of the conditions it takes; empty where it takes none.
        columns: The names of the entries of a sample, where that is a row of a table.
        density: False where it is surely the score of no density, as under guidance.

    Examples:
        >>> known = Facts(event_shape=(2,), conditions={"label": Classes(10)})
        >>> print(known.event_shape, known.sde)
        (2,) None
    """

    sde: SDE | None = None
    event_shape: tuple[int, ...] | None = None
    moments: Moments | None = None
    steps: int | None = None
    pilot: Any = None
    transform: Transform | None = None
    passes: int | Callable[[Tensor], int] | None = None
    conditions: Mapping[str, Classes | Field] | None = None
    columns: tuple[str, ...] | None = None
    density: bool | None = None


def facts(score: object) -> Facts:
    """Return what a score knows of itself.

    That is its attribute `facts`, or else the facts of the score inside it: its `score`, the module
    inside `torch.compile(...)`, or that of `torch.nn.DataParallel`. Other attributes are not read.

    Args:
        score: Any score.

    Raises:
        InvalidValueError: Its own property `facts` fails for want of an attribute, or it is made of
            itself.

    Examples:
        >>> import scoresde
        >>> known = facts(scoresde.load("mnist"))
        >>> known.event_shape, known.conditions
        ((1, 28, 28), {'label': Classes(n=10)})
        >>> facts(lambda x, t: -x) == Facts()
        True
    """
    for _ in range(_DEPTH):
        try:
            known = getattr(score, "facts", None)
        except RecursionError as error:
            raise _endless() from error
        if isinstance(known, Facts):
            return known
        if known is None:
            _check_property(score)
        inside = (getattr(score, name, None) for name in _INSIDE)
        score = next((part for part in inside if callable(part) and part is not score), None)
        if score is None:
            break
    return Facts()


def passes_of(score: object, ratio: Tensor) -> int:
    """Return the network passes that one call of a score costs; 1 where nobody knows.

    Args:
        score: Any score.
        ratio: sigma / alpha at the times of the call, `()` or `(B,)`.
    """
    passes = facts(score).passes
    return passes(ratio) if callable(passes) else passes or 1


def _check_property(score: object) -> None:
    """Raise where a property `facts` failed, which Python would take for a missing attribute."""
    own = getattr(type(score), "facts", None)
    if not isinstance(own, property):
        return
    try:
        own.__get__(score)
    except AttributeError as error:
        raise InvalidValueError(
            f"the property facts of {type(score).__name__} fails, so that what the score knows "
            f"would be lost: {error}"
        ) from error


def ask(score: Any, x: Tensor, t: Tensor, condition: Mapping[str, Tensor] | None = None) -> Tensor:
    """Return `score(x, t)`, or `score(x, t, condition)` with the conditions that it takes.

    Args:
        score: Any score.
        x: States `(B, *)`.
        t: Times `(B,)`.
        condition: Those names are left out that the score is known not to take.

    Raises:
        InvalidTypeError: The score takes no such arguments.
        InvalidValueError: It is made of itself.
    """
    own = None if condition is None else Condition(condition).only(facts(score).conditions)
    arguments = (x, t) if own is None else (x, t, own)
    try:
        value: Tensor = score(*arguments)
    except TypeError as error:
        _check_call(score, arguments, error)
        raise
    except RecursionError as error:
        raise _endless() from error
    return value


def _endless() -> InvalidValueError:
    return InvalidValueError(
        "the score holds itself, or too many scores within scores; let each hold another one"
    )


def _check_call(score: Any, arguments: tuple[Any, ...], error: TypeError) -> None:
    """Raise InvalidTypeError if a score failed since it does not take such arguments."""
    # that of a module's call takes anything
    called = getattr(score, "forward", score)
    try:
        inspect.signature(called).bind(*arguments)
    except ValueError:  # it has no signature to look at
        return
    except TypeError:
        given = "(x, t)" if len(arguments) == 2 else "(x, t, condition), by position,"
        raise InvalidTypeError(
            f"a score is called as {given} and this one cannot be: {error}"
        ) from error


def process_of(score: object, sde: SDE | None) -> SDE:
    """Return the SDE under which a score is used: `sde`, or the score's own where it is None.

    Raises:
        InvalidValueError: Neither is known, or the score belongs to another process than `sde`.

    Warns:
        UserWarning: The score belongs to levels of this process, and not to all of its times.
    """
    own = facts(score).sde
    if sde is None:
        if own is None:
            raise InvalidValueError("this score knows no SDE of its own; give one, such as VESDE()")
        return own
    if own is None or own.same_process(sde):
        if own is not None and own is not sde:
            warn_between(own, None if sde.levels is None else sde.times())
        return sde
    raise InvalidValueError(
        f"this score belongs to {quoted(own)}, not to {quoted(sde)}; leave the SDE out, or sample "
        "Rescheduled(score, sde)"
    )


def warn_between(own: SDE, times: Tensor | None) -> None:
    """Warn where a score of levels will be asked at other times than those.

    Args:
        own: The process of the score.
        times: The times at which it will be asked; None is any.
    """
    if own.levels is None:
        return
    if times is not None:
        nearest = own.times().flip(0)[own.index(times)]
        if torch.allclose(nearest, times, rtol=0.0, atol=1e-6 * own.T):
            return
    warnings.warn(
        f"the score belongs to {own.levels} levels, between which nobody taught it anything, and "
        "will be asked there; use it with its own SDE, or be sure that it knows all times",
        UserWarning,
        stacklevel=outside(),
    )
