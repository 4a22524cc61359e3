r"""Define scores, callables that return $\nabla\log p_t(x)$, and the facts that a score declares.

A score is called as `score(x, t)` or `score(x, t, condition)`. Its attribute `facts` holds what is
known about it. A score that wraps another score holds the inner score as its attribute `score`, and
by default has the facts of the inner score.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from scoresde.checks import outside, quoted
from scoresde.errors import InvalidTypeError, InvalidValueError
from scoresde.sde.condition import Classes, Condition, Field
from scoresde.sde.moments import Moments
from scoresde.units import Transform

if TYPE_CHECKING:
    from scoresde.sde.process import SDE

__all__ = [
    "Facts",
    "Score",
    "ask",
    "coefficients_of",
    "facts",
    "passes_of",
    "process_of",
    "warn_between",
]

# The attributes that hold an inner score in this package, in compiled modules and in DataParallel.
_INSIDE = ("score", "_orig_mod", "module")
# The largest number of nested scores; an object with __getattr__ may return inner scores without
# end.
_MAX_DEPTH = 64


class Score(Protocol):
    r"""Describe a score: a callable that returns $\nabla\log p_t(x)$.

    Nothing else is required. It may take a condition as its third argument, and may have an
    attribute `facts`.

    Examples:
        >>> score: Score = lambda x, t: -x  # of standard normal data under a VP SDE
    """

    def __call__(self, x: Tensor, t: Tensor, /) -> Tensor:
        """Return the score `(B, *)` of states `x` `(B, *)` at times `t` `(B,)`."""
        ...


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Hold what is known about a score; a field is None if it is unknown.

    Attributes:
        sde: The process whose score it is.
        event_shape: The shape of one sample, without the batch.
        moments: Mean and variance of the data.
        steps: The number of sampling steps that suits the score.
        pilot: The result of `scoresde.pilot` for this score, or a function `(progress, steps)` that
            measures this result at its first call, and returns it.
        transform: The map from the user's numbers to model units, the numbers of the score.
        passes: The number of network passes of one call, such as 2 for classifier-free guidance; or
            a function that returns this number for sigma / alpha, `()` or `(B,)`, if it depends on
            the noise.
        conditions: The names and kinds of the conditions that the score takes; empty if it takes
            none.
        columns: The names of the entries of a sample, if samples are rows of a table.
        density: False if the score is known not to be the gradient of a log-density, as with
            guidance.
        flow: False if the probability flow has other marginals than the reverse SDE, so that only
            samplers which add noise are right. An example is a bridge whose network does not
            receive y.

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
    flow: bool | None = None


def facts(score: object) -> Facts:
    """Return what is known about a score: its SDE, shape of a sample, moments, conditions and more.

    This is the attribute `facts` of the score. If there is none, it is the facts of the inner
    score: the attribute `score`, or the module inside `torch.compile(...)` or
    `torch.nn.DataParallel`. No other attribute is read.

    Args:
        score: Any score.

    Raises:
        InvalidValueError: The property `facts` of the score raises AttributeError, or calls itself
            without end, as in a `Wrapped` score that contains itself.

    Examples:
        >>> import scoresde
        >>> known = facts(scoresde.load("mnist"))
        >>> known.event_shape, known.conditions
        ((1, 28, 28), {'label': Classes(n=10)})
        >>> facts(lambda x, t: -x) == Facts()
        True
    """
    for _ in range(_MAX_DEPTH):
        try:
            known = getattr(score, "facts", None)
        except RecursionError as error:
            raise _contains_itself() from error
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
    """Return the number of network passes of one call of a score; 1 if unknown.

    Args:
        score: Any score.
        ratio: sigma / alpha at the times of the call, `()` or `(B,)`.
    """
    passes = facts(score).passes
    return passes(ratio) if callable(passes) else passes or 1


def coefficients_of(score: object, time: Tensor) -> tuple[object, tuple[Tensor, ...]]:
    """Return the module of a score that computes coefficients, and its coefficients at these times.

    The module has a method `coefficients`. It is the score itself, or the module inside a compiled
    module or DataParallel. If there is no such module, return None and ().

    Args:
        score: Any score.
        time: Times on the CPU, in float64.
    """
    for _ in range(_MAX_DEPTH):
        coefficients: Any = getattr(type(score), "coefficients", None)
        if isinstance(score, nn.Module) and coefficients is not None:
            return score, coefficients(score, time)
        inside = (getattr(score, name, None) for name in _INSIDE[1:])
        score = next((part for part in inside if isinstance(part, nn.Module)), None)
        if score is None:
            break
    return None, ()


def _check_property(score: object) -> None:
    """Raise if a property `facts` raised AttributeError, which looks like a missing attribute."""
    found = getattr(type(score), "facts", None)
    if not isinstance(found, property):
        return
    try:
        found.__get__(score)
    except AttributeError as error:
        raise InvalidValueError(
            f"the property facts of {type(score).__name__} fails, so its facts cannot be read: "
            f"{error}; correct the property"
        ) from error


def ask(score: Any, x: Tensor, t: Tensor, condition: Mapping[str, Tensor] | None = None) -> Tensor:
    """Return `score(x, t)`, or `score(x, t, condition)` with the conditions that it takes.

    Args:
        score: Any score.
        x: States `(B, *)`.
        t: Times `(B,)`.
        condition: Conditions by name; those that the score does not take, according to its facts,
            are left out.

    Raises:
        InvalidTypeError: The score cannot be called with these arguments.
        InvalidValueError: The score contains itself.
    """
    taken = None if condition is None else Condition(condition).only(facts(score).conditions)
    arguments = (x, t) if taken is None else (x, t, taken)
    try:
        value: Tensor = score(*arguments)
    except TypeError as error:
        _check_call(score, arguments, error)
        raise
    except RecursionError as error:
        raise _contains_itself() from error
    return value


def _contains_itself() -> InvalidValueError:
    return InvalidValueError(
        "the score contains itself, or too many nested scores; let no score hold itself"
    )


def _check_call(score: Any, arguments: tuple[Any, ...], error: TypeError) -> None:
    """Raise InvalidTypeError if a score failed because it does not take these arguments."""
    # the signature of a module's __call__ is (*args, **kwargs)
    called = getattr(score, "forward", score)
    try:
        inspect.signature(called).bind(*arguments)
    except ValueError:  # it has no signature
        return
    except TypeError:
        given = "(x, t)" if len(arguments) == 2 else "(x, t, condition)"
        raise InvalidTypeError(
            f"a score is called as {given} by position, and this one does not accept that: {error}"
        ) from error


def process_of(score: object, sde: SDE | None) -> SDE:
    """Return the SDE under which a score is used: `sde`, or the score's own if `sde` is None.

    Raises:
        InvalidValueError: Neither is given, or the score belongs to another process than `sde`.

    Warns:
        UserWarning: The score was trained only at levels, and `sde` has other times.
    """
    process = facts(score).sde
    if sde is None:
        if process is None:
            raise InvalidValueError(
                "this score has no SDE in its facts; give its SDE, such as VESDE()"
            )
        return process
    if process is None or process.same_process(sde):
        if process is not None and process is not sde:
            warn_between(process, None if sde.levels is None else sde.times())
        return sde
    raise InvalidValueError(
        f"this score belongs to {quoted(process)}, not to {quoted(sde)}; leave sde= out, or sample "
        "from Rescheduled(score, sde)"
    )


def warn_between(process: SDE, times: Tensor | None) -> None:
    """Warn if a score of an SDE with levels will be evaluated at other times.

    Args:
        process: The process of the score.
        times: The times at which it will be evaluated; None for any time.
    """
    if process.levels is None:
        return
    if times is not None:
        nearest = process.times().flip(0)[process.index(times)]
        if torch.allclose(nearest, times, rtol=0.0, atol=1e-6 * process.T):
            return
    warnings.warn(
        f"the score was trained at {process.levels} levels and will be evaluated between them; "
        "use it with its own SDE, or make sure that it is accurate between the levels",
        UserWarning,
        stacklevel=outside(),
    )
