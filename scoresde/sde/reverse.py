r"""The reverse-time SDE: the one door between samplers and a score.

$$ dx = \big[f x - \tfrac12 (1 + \eta^2) g^2 \nabla \log p_t(x)\big] dt + \eta\, g\, d\bar w $$

has the marginals of the forward process for every $\eta \ge 0$: $\eta = 1$ is Anderson's reverse
SDE (1982), $\eta = 0$ the probability-flow ODE (Song et al. 2021, eqs. 6 and 13, arXiv:2011.13456).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from scoresde.errors import (
    DeviceError,
    InvalidTypeError,
    InvalidValueError,
    NonFiniteError,
    ShapeError,
)
from scoresde.sde.base import SDE
from scoresde.sde.moments import Moments
from scoresde.sde.shapes import expand

__all__ = ["ReverseSDE", "ScoreFunction", "as_score"]

ScoreFunction = Callable[[Tensor, Tensor], Tensor]
"""A score or a denoiser of `(x, t)`, `(B, *)` and `(B,)`; its value has the shape of `x`."""

# What torch says of a network and its input in different dtypes.
_MIXED = ("same dtype", "scalar type", "mixed dtype", "bias type", "weight type")


def as_score(out: Any, x: Tensor) -> Tensor:
    """What a score returned for the states `x` `(B, *)`, once it is seen to be of their shape.

    Raises:
        InvalidTypeError: It is no tensor, or one of complex numbers.
        ShapeError: It has another shape.
    """
    if not isinstance(out, Tensor):
        raise InvalidTypeError(
            f"the score must return a tensor, got {type(out).__name__}; "
            "wrap it, for example `lambda x, t: model(x, t).sample`"
        )
    if out.is_complex():
        raise InvalidTypeError(f"the score must be real, got {out.dtype}; take its .real")
    if out.shape != x.shape:
        raise ShapeError(
            f"the score must return the shape of its input, expected {tuple(x.shape)}, "
            f"got {tuple(out.shape)}; drop extra outputs such as a learned variance, and "
            "broadcast nothing"
        )
    return out


class ReverseSDE:
    """An SDE, reversed under a score. It has no kernel and no prior; those are the SDE's.

    Args:
        sde: The forward process.
        score: A callable `(x, t) -> score`, with `x` and its result `(B, *)` and `t` `(B,)`.
        data: The data's moments, where known.
        check_finite: Whether a NaN or an infinity from the score is an error.
    """

    def __init__(
        self,
        sde: SDE,
        score: ScoreFunction,
        *,
        data: Moments | None = None,
        check_finite: bool = True,
    ) -> None:
        if not callable(score):
            raise InvalidTypeError(f"a score is a callable (x, t) -> score, got {score!r}")
        self.sde = sde
        self.data = data
        self.check_finite = check_finite
        self.nfe = 0
        self._score = score
        self._denoise: ScoreFunction | None = getattr(score, "denoise", None)
        self._log_prob: ScoreFunction | None = getattr(score, "log_prob", None)

    def score(self, x: Tensor, t: Tensor | float) -> Tensor:
        r"""$\nabla \log p_t(x)$ of shape `(B, *)`: one evaluation, counted in `nfe`.

        Args:
            x: States `(B, *)`.
            t: Time `()` or `(B,)`, handed on as `(B,)` in the dtype of `x`.

        Raises:
            ShapeError: The score returned another shape, or `t` has one.
            InvalidTypeError: It returned no tensor, or `x` is not floating-point.
            InvalidValueError: `t` is outside [0, T], or the score changed `x` in place.
            NonFiniteError: It returned a NaN or an infinity, and `check_finite` holds.
        """
        return self._evaluate(self._score, x, t)

    def denoise(self, x: Tensor, t: Tensor | float) -> Tensor:
        r"""$E[x_0 | x_t] = (x + \sigma_t^2 \nabla\log p_t(x)) / \alpha_t$, by one evaluation.

        A score with a `denoise` of its own is asked for that, which does not cancel at large noise.
        """
        if self._denoise is not None:
            return self._evaluate(self._denoise, x, t)
        score = self.score(x, t)
        time = self.sde._times(t)
        sigma, alpha = expand(self.sde.sigma(time), x), expand(self.sde.alpha(time), x)
        # half precision holds sigma, and not its square
        return (x + sigma * (sigma * score)) / alpha

    def log_density(self, x: Tensor, t: Tensor | float) -> Tensor:
        r"""$\log p_t(x)$ up to a constant in x, `(B,)`, by the score's own `log_prob(x, t)`.

        One evaluation, with the arguments and errors of `score`. Exact targets and energies have a
        density, a network that says a vector field has none.

        Raises:
            InvalidTypeError: The score has no density.
        """
        if self._log_prob is None:
            raise InvalidTypeError(
                "a density is needed, but this score has no log_prob(x, t); use an EnergyScore or "
                "an exact target, or a method without acceptance such as Langevin()"
            )
        return self._evaluate(self._log_prob, x, t, numbers=True)

    def drift(self, x: Tensor, t: Tensor | float, eta: float = 1.0) -> Tensor:
        r"""$f x - \tfrac12 (1 + \eta^2) g^2 \nabla\log p_t(x)$, like `x`; one evaluation."""
        g = expand(self.sde.diffusion(t), x)
        return self.sde.drift(x, t) - 0.5 * (1 + eta**2) * g**2 * self.score(x, t)

    def diffusion(self, t: Tensor | float, eta: float = 1.0) -> Tensor:
        r"""$\eta\, g(t)$, of the shape of `t`, in float64."""
        return eta * self.sde.diffusion(t)

    def _evaluate(
        self, function: ScoreFunction, x: Tensor, t: Tensor | float, *, numbers: bool = False
    ) -> Tensor:
        """A function's value at `x` and `t`: like `x`, or one number for each sample, `(B,)`."""
        time = self.sde._times(t)
        expand(time, x)  # x and the shape of t are checked before the network sees them
        like = x.new_zeros(len(x)) if numbers else x
        if x.shape[0] == 0:
            return torch.zeros_like(like)
        # half precision cannot tell the times of a fine grid apart
        dtype = torch.promote_types(x.dtype, torch.float32)
        version = None if x.is_inference() else x._version
        try:
            # a copy of the time, which a network may scale in place
            out: Any = function(x, time.to(x.device, dtype).expand(x.shape[0]).clone())
        except RuntimeError as error:
            if "same device" in str(error):
                raise DeviceError(
                    f"the state is on {x.device} and the score on another device; "
                    "move the model, or give device="
                ) from error
            if any(words in str(error) for words in _MIXED):
                raise InvalidTypeError(
                    f"the state is {x.dtype} and the score's weights are not ({error}); cast what "
                    "it is given to theirs, for example `lambda x, t: model(x.float(), t.float())`"
                ) from error
            raise
        self.nfe += 1
        if version is not None and x._version != version:
            raise InvalidValueError(
                "the score changed its input x in place, with which the sampler goes on; let it "
                "work on x.clone()"
            )
        # in the dtype of x, where it may still overflow
        value = as_score(out, like).to(x.dtype)
        if self.check_finite and not _all_finite(value):
            bad = (~value.isfinite()).reshape(len(x), -1).any(1).nonzero().flatten().tolist()
            where = "although its input was finite" if x.isfinite().all() else "as did its input"
            raise NonFiniteError(
                f"the score returned NaN or infinity at evaluation {self.nfe}, "
                f"t = {time.flatten()[0].item():.6g}, in samples {bad[:8]}, {where}; "
                "try more steps, a smaller corrector step, or float32"
            )
        return value


def _all_finite(x: Tensor) -> bool:
    """Whether no entry is NaN or infinite.

    A finite sum has finite terms and costs a hundredth of a look at each; a sum may overflow.
    """
    return math.isfinite(x.detach().sum()) or bool(x.isfinite().all())
