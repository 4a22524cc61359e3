r"""Define the reverse-time SDE, through which samplers and likelihoods call a score.

$$ dx = \big[f x - \tfrac12 (1 + \eta^2) g^2 \nabla \log p_t(x)\big] dt + \eta\, g\, d\bar w $$

has the forward marginals: $\eta = 1$ is Anderson's reverse SDE (1982), $\eta = 0$ the
probability-flow ODE (Song et al. 2021, eqs. 6 and 13, arXiv:2011.13456).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn

from scoresde.checks import check_dense, check_range, door
from scoresde.errors import InvalidTypeError, ScoreSDEError, ShapeError
from scoresde.precision import in_user_settings
from scoresde.sde.condition import Condition
from scoresde.sde.coordinates import ratio
from scoresde.sde.cpu_times import batch_time
from scoresde.sde.moments import Moments
from scoresde.sde.process import SDE
from scoresde.sde.raised import changed_in_place, explained
from scoresde.sde.score import Score, ask, facts
from scoresde.sde.shapes import check_times, expand
from scoresde.sde.watch import Watch, not_finite

__all__ = ["ReverseSDE", "check_output", "report"]

# The reverse SDE whose score is being evaluated; it receives the values given to `report`.
_current: ContextVar[ReverseSDE | None] = ContextVar("current", default=None)


def check_output(what: str, out: Any, x: Tensor) -> Tensor:
    """Return the output of a score or a network; raise unless it has the shape of the input.

    Args:
        what: The name in messages: "score", "network" or "denoiser".
        out: The output.
        x: The states `(B, *)` that were its input.

    Raises:
        InvalidTypeError: The output is not a dense floating-point tensor.
        DeviceError: It is on the meta device.
        ShapeError: It has another shape than `x`.
    """
    if not isinstance(out, Tensor):
        raise InvalidTypeError(
            f"the {what} must return a tensor, got {type(out).__name__}; "
            "wrap it, for example `lambda x, t: model(x, t).sample`"
        )
    if not out.is_floating_point():
        remedy = "take its .real" if out.is_complex() else "do not round or cast it to integers"
        raise InvalidTypeError(f"the {what} must be floating point, got {out.dtype}; {remedy}")
    if not x.is_meta:  # the meta device computes shapes without numbers
        check_dense(f"the value of the {what}", out)
    if out.shape != x.shape:
        raise ShapeError(
            f"the {what} must return the shape of its input, expected {tuple(x.shape)}, got "
            f"{tuple(out.shape)}; remove extra outputs such as a learned variance, and do not rely "
            "on broadcasting"
        )
    return out


class ReverseSDE:
    """Reverse an SDE in time by a score.

    Args:
        sde: The forward process.
        score: A score `(x, t)` or `(x, t, condition)`.
        moments: The data's moments, where known.
        condition: The condition of the samples, passed to the score.
        check_finite: Raise an error if the score returns a NaN or an infinity.
        watch: Records which values are not finite; reading the record (`settle`) raises the error.
        withheld: The names of conditions that only the sampler uses; the score does not get them.
        evaluate: A function `(function, x, t)` through which `function(x, t)` is called.

    Attributes:
        nfe: The number of evaluations of the score for one sample.
        passes: The number of network passes in these evaluations.
        info: The numbers `(B,)` that the score and the sampler reported for each sample, by name.

    Examples:
        >>> from scoresde.sde import VPSDE
        >>> rsde = ReverseSDE(VPSDE(), lambda x, t: -x)  # standard normal data
        >>> x = torch.ones(4, 2)
        >>> flow = rsde.drift(x, t=0.5, eta=0.0)
        >>> print(torch.allclose(flow, torch.zeros(4, 2), atol=1e-5), rsde.nfe)
        True 1
    """

    @door
    def __init__(
        self,
        sde: SDE,
        score: Score,
        *,
        moments: Moments | None = None,
        condition: Condition | None = None,
        check_finite: bool = True,
        watch: Watch | None = None,
        withheld: Sequence[str] = (),
        evaluate: Callable[..., Any] = in_user_settings,
    ) -> None:
        self.sde = sde
        self.moments = moments
        self.condition = condition
        self.check_finite = check_finite
        self.watch = watch
        self.withheld = tuple(withheld)
        self.evaluate = evaluate
        self.nfe = 0
        self.passes = 0
        self.info: dict[str, Tensor] = {}
        self._score = score
        self._cost = facts(score).passes or 1
        self._given = condition.without(*withheld) if condition and withheld else condition
        self._original: tuple[ReverseSDE, int] | None = None  # and the number of copies (`repeat`)

    def score(self, x: Tensor, t: Tensor | float) -> Tensor:
        r"""Return $\nabla \log p_t(x)$ of shape `(B, *)`: one evaluation, counted in `nfe`.

        Args:
            x: States `(B, *)`.
            t: Time `()` or `(B,)`; the score receives `(B,)` in the dtype of `x`, at least float32.

        Raises:
            ShapeError: The score returned another shape, or `t` is neither `()` nor `(B,)`.
            InvalidTypeError: The score returned no tensor, or `x` is not floating-point.
            InvalidValueError: `t` is outside [0, T], or the score changed its input in place.
            NonFiniteError: The score returned a NaN or an infinity, and `check_finite` is True. A
                `watch` only records values on a device; a later call or `settle` raises the error.
        """
        value: Tensor = self._evaluate(
            "score", lambda x, t: ask(self._score, x, t, self._given), x, t, x
        )
        return value

    def denoise(self, x: Tensor, t: Tensor | float) -> Tensor:
        r"""Return $E[x_0 | x_t] = (x + \sigma_t^2 \nabla\log p_t(x)) / \alpha_t$ by one evaluation.

        Tweedie's formula (Efron 2011, doi:10.1198/jasa.2011.tm11181).
        """
        alpha, sigma = self.sde.at(t, x)
        # sigma^2 may overflow in half precision where sigma does not
        return (x + sigma * (sigma * self.score(x, t))) / alpha

    def drift(self, x: Tensor, t: Tensor | float, eta: float = 1.0) -> Tensor:
        r"""Return $f x - \tfrac12 (1 + \eta^2) g^2 \nabla\log p_t(x)$, like `x`; one evaluation.

        Raises:
            InvalidValueError: `eta` is negative or not finite.
        """
        check_range("eta", eta, "[0, inf)")
        g = expand(self.sde.diffusion(t), x)
        return self.sde.drift(x, t) - 0.5 * (1 + eta**2) * g**2 * self.score(x, t)

    def diffusion(self, t: Tensor | float, eta: float = 1.0) -> Tensor:
        r"""Return $\eta\, g(t)$, of the shape of `t`, in float64; `eta` as in `drift`."""
        check_range("eta", eta, "[0, inf)")
        return eta * self.sde.diffusion(t)

    def method(self, name: str) -> Callable[[Tensor, Tensor | float], Tensor] | None:
        r"""Return a method of the score, such as `log_prob`, if it certainly agrees with the score.

        It does if one class defines both the call (`forward` of a module) and the method, neither
        is replaced on the instance, and no hook is attached. A subclass that overrides one of the
        two, a proxy and a wrapper get None.

        Args:
            name: A method of `(x, t)` or `(x, t, condition)`, which returns `(B,)`, or a tuple of
                tensors `(B,)` and `(B, *)`.

        Returns:
            A function of states `(B, *)` and a time `()` or `(B,)`, whose calls count as
            evaluations; or None.
        """
        known = self.attribute(name)
        if known is None:
            return None

        def call(x: Tensor, t: Tensor) -> Any:
            return known(x, t, self._given) if self._given else known(x, t)

        return lambda x, t: self._evaluate(name, call, x, t, None)

    def attribute(self, name: str) -> Any | None:
        """Return an attribute of the score, or None if it may disagree with it (see `method`)."""
        return getattr(self._score, name) if _belongs(self._score, name) else None

    def repeat(self, k: int) -> ReverseSDE:
        """Return the reverse SDE of `k` copies of each sample, in consecutive rows.

        One evaluation of all copies adds `k` to `nfe` of this object. Of the numbers that the `k`
        copies of a sample `report`, the largest is kept for the sample.
        """
        return self._derived(self._score, k)

    def under(self, score: Score, withheld: Sequence[str] = ()) -> ReverseSDE:
        """Return the reverse SDE with another score, whose evaluations are also counted here.

        Args:
            score: The score.
            withheld: The names of further conditions that this score does not get.
        """
        return self._derived(score, 1, withheld)

    def _derived(self, score: Score, k: int, withheld: Sequence[str] = ()) -> ReverseSDE:
        given = self.condition
        if given is not None and k > 1:
            n = len(next(iter(given.values())))
            given = given.rows(torch.arange(n).repeat_interleave(k))
        found = ReverseSDE(
            self.sde, score, moments=self.moments, condition=given,
            check_finite=self.check_finite, watch=self.watch,
            withheld=(*self.withheld, *withheld), evaluate=self.evaluate,
        )  # fmt: skip
        found._original = self, k
        return found

    def _count(self, nfe: int, passes: int) -> None:
        self.nfe += nfe
        self.passes += passes
        if self._original is not None:
            original, k = self._original
            original._count(k * nfe, k * passes)

    def settle(self) -> None:
        """Raise NonFiniteError if there is a watch that recorded a value that is not finite."""
        if self.watch is not None:
            self.watch.settle()

    def report(self, name: str, values: Tensor) -> None:
        """Keep in `info`, by name, the largest number reported for each sample, `(B,)`."""
        known = self.info.get(name)
        self.info[name] = values if known is None else torch.maximum(known, values)
        if self._original is not None:
            original, k = self._original
            original.report(name, values.reshape(-1, k).amax(1))

    def _evaluate(
        self,
        what: str,
        function: Callable[[Tensor, Tensor], Tensor],
        x: Tensor,
        t: Tensor | float,
        like: Tensor | None,
    ) -> Any:
        """Evaluate a function at `x` and `t`, count the evaluation, and check the result.

        The result must have the shape of `like`. If `like` is None, the result is as in `method`.
        """
        time = self.sde.cpu_time(t)
        check_times(time, x)
        if x.shape[0] == 0:
            return torch.zeros_like(x.new_zeros(0) if like is None else like)
        given = {"x": x, **(self.condition or {})}
        versions = {name: v._version for name, v in given.items() if not v.is_inference()}
        before = _current.set(self)
        try:
            # a new tensor of times for each evaluation, since a network may change it in place
            out: Any = self.evaluate(function, x, batch_time(time, x, t))
        except ScoreSDEError:
            raise
        except RuntimeError as error:
            if (said := explained(error, x)) is not None:
                raise said from error
            raise
        finally:
            _current.reset(before)
        cost = self._cost
        self._count(1, cost(ratio(self.sde, time)) if callable(cost) else cost)
        for name, version in versions.items():
            if given[name]._version != version:
                raise changed_in_place(name)
        if like is not None:
            return self._checked(what, out, like, x, time)
        numbers = x.new_zeros(len(x))
        if not isinstance(out, tuple):
            return self._checked(what, out, numbers, x, time)
        likes = (x if getattr(part, "shape", None) == x.shape else numbers for part in out)
        return tuple(self._checked(what, *pair, x, time) for pair in zip(out, likes, strict=True))

    def _checked(self, what: str, out: Any, like: Tensor, x: Tensor, time: Tensor) -> Tensor:
        """Return a value at `x` and `time`; raise if it is not finite or not shaped as `like`."""
        # cast before the check, since the value may overflow in the dtype of x
        value = check_output(what, out, like).to(x.dtype)
        if self.check_finite and self.watch is not None and value.device.type != "cpu":
            self.watch.note(what, value, self.nfe, time)
        elif self.check_finite and not _all_finite(value):
            bad = (~value.isfinite()).reshape(len(x), -1).any(1).nonzero().flatten().tolist()
            finite = "although its input was" if x.isfinite().all() else "and its input was not"
            raise not_finite(what, self.nfe, time, bad, f", {finite} finite")
        return value


def report(name: str, values: Tensor) -> None:
    """Report a number for each sample from inside a score; it appears in `Samples.info`.

    `info` holds the largest number reported in a run. Outside of a run nothing happens.

    Args:
        name: The name of the number.
        values: One number for each sample, `(B,)`.
    """
    rsde = _current.get()
    if rsde is not None:
        rsde.report(name, values)


def _belongs(score: object, name: str) -> bool:
    """Return True if one class defines both the method and the call, and neither is replaced."""
    kind, called = type(score), "__call__"
    if isinstance(score, nn.Module):
        called = "forward"
        if score._forward_hooks or score._forward_pre_hooks:
            return False
        if kind.__call__ is not nn.Module.__call__:
            return False
    owner = next((base for base in kind.__mro__ if name in vars(base)), None)
    caller = next((base for base in kind.__mro__ if called in vars(base)), None)
    attributes = getattr(score, "__dict__", {})
    return owner is not None and owner is caller and not {name, called} & attributes.keys()


def _all_finite(x: Tensor) -> bool:
    """Return True if no entry is NaN or infinite.

    A finite sum proves it at a fraction of the cost. If the sum is not finite, it may have
    overflowed, so each entry is checked.
    """
    return math.isfinite(x.detach().sum()) or bool(x.isfinite().all())
