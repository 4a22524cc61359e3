r"""Scores made of other functions: a bound condition, a denoiser, another SDE's score."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from torch import Tensor

from scoresde.checks import lacks
from scoresde.errors import InvalidTypeError, InvalidValueError
from scoresde.score.store import sde_fields
from scoresde.sde import SDE, ScoreFunction, expand

if TYPE_CHECKING:
    from scoresde.score.model import ScoreModel

__all__ = ["Bridge", "Conditional", "DenoiserScore", "check_problem", "from_denoiser"]


class Conditional:
    """A score model with its condition bound: a score of `(x, t)` alone.

    It has a `denoise` or a `log_prob` of `(x, t)` where the model has one.

    Args:
        model: A score that takes `condition`.
        condition: A tensor `(B, ...)` for each name, one row for each sample.
    """

    def __init__(self, model: Any, condition: Mapping[str, Tensor]) -> None:
        self.model = model
        self.condition = condition
        for name in ("denoise", "log_prob"):
            if hasattr(model, name):
                setattr(self, name, _bound(getattr(model, name), condition))

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        """The score `(B, *)`."""
        score: Tensor = self.model(x, t, self.condition)
        return score


def _bound(
    function: Callable[..., Tensor], condition: Mapping[str, Tensor]
) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda x, t: function(x, t, condition)


class DenoiserScore:
    r"""A denoiser as a score: $\nabla\log p_t(x) = (\alpha D(x, t) - x) / \sigma^2$.

    Vincent (2011); Efron (2011), Tweedie's formula.
    """

    def __init__(self, denoiser: ScoreFunction, sde: SDE) -> None:
        self.model = self.denoise = denoiser
        self.sde = sde

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        """The score `(B, *)`."""
        time = self.sde._times(t)
        alpha, sigma = expand(self.sde.alpha(time), x), expand(self.sde.sigma(time), x)
        # half precision holds sigma, and not its square
        return (alpha * self.denoise(x, t) - x) / sigma / sigma


def from_denoiser(denoiser: ScoreFunction, sde: SDE) -> DenoiserScore:
    r"""The score of a denoiser `D(x, t)` $= E[x_0 | x_t]$, under `sde`.

    Args:
        denoiser: A callable; `x` and its result are `(B, *)`, `t` is `(B,)`.
        sde: The process whose noise it removes.
    """
    return DenoiserScore(denoiser, sde)


class Bridge:
    r"""A score of one SDE as a score of another: the same noise level, rescaled.

    If $\sigma'_u / \alpha'_u = \sigma_t / \alpha_t$, then $y = x\,\alpha'_u / \alpha_t$ has the law
    $p'_u$, so $\nabla\log p_t(x) = \frac{\alpha'_u}{\alpha_t} \nabla\log p'_u(y)$ (Karras et al.
    2022, eq. 20, arXiv:2206.00364). The model's noise levels must cover those it is asked for.

    Args:
        model: A score that knows its own SDE.
        sde: The SDE to sample with.
    """

    def __init__(self, model: ScoreModel, sde: SDE) -> None:
        self.model = model
        self.sde = sde
        self.event_shape = model.event_shape
        self.data = model.data
        self.steps = model.steps

    def __call__(
        self, x: Tensor, t: Tensor, condition: Mapping[str, Tensor] | None = None
    ) -> Tensor:
        """The score `(B, *)`; the arguments are those of a `ScoreModel`."""
        ratio, u = self._matched(t)
        score: Tensor = self.model(expand(ratio, x) * x, u, condition)
        return expand(ratio, x) * score

    def denoise(
        self, x: Tensor, t: Tensor, condition: Mapping[str, Tensor] | None = None
    ) -> Tensor:
        """$E[x_0 | x_t]$ of shape `(B, *)`."""
        ratio, u = self._matched(t)
        return self.model.denoise(expand(ratio, x) * x, u, condition)

    def _matched(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """The ratio of the signal scales, and the time of the model's own SDE."""
        own, time = self.model.sde, self.sde._times(t)
        u = own.time(self.sde.log_snr(time))
        # t may have been rounded to float32
        room = 1e-6 * own.T
        if not ((u >= own.eps - room) & (u <= own.T + room)).all():
            raise InvalidValueError(
                f"t = {time} of {type(self.sde).__name__} has a noise level outside "
                f"[eps, T] = [{own.eps}, {own.T}] of the model's {type(own).__name__}; "
                "give the SDE an eps and a T within the model's noise levels"
            )
        u = u.clamp(own.eps, own.T)
        return own.alpha(u) / self.sde.alpha(time), u


def check_problem(model: Any, sde: SDE) -> None:
    """A problem is a model and an SDE; of a model's own only `levels` and `eps` may differ.

    Raises:
        InvalidTypeError: The model cannot be called, or the SDE is none.
        InvalidValueError: The two differ in more than that.
    """
    if not callable(model):
        raise InvalidTypeError(f"the model must be a callable (x, t) -> score, got {model!r}")
    if lacks(sde, "transition"):
        raise InvalidTypeError(f"the second argument is an SDE such as `VESDE()`, got {sde!r}")
    own = getattr(model, "sde", None)
    if own is None or own == sde:
        return
    has_levels = type(own) is type(sde) and "levels" in sde_fields(own)
    if has_levels and replace(sde, levels=own.levels, eps=own.eps) == own:
        return
    raise InvalidValueError(
        f"this score belongs to {own}, not to {sde}; "
        "sample with `model.sde`, or with `Bridge(model, sde)` as the model"
    )
