r"""Make the score of a posterior from the score of a prior and a measurement.

$$ \nabla \log p_t(x_t \mid y) = \nabla \log p_t(x_t) + \nabla \log p(y \mid x_t). $$

The last term is approximated (`scoresde.guidance.approximations`).
"""

from __future__ import annotations

import contextlib
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from scoresde.attention import twice_differentiable
from scoresde.checks import as_event, bind, check_integer, check_name, door
from scoresde.errors import InvalidTypeError, InvalidValueError, ShapeError
from scoresde.guidance.approximations import (
    OF_A_FUNCTION,
    OF_LINEAR,
    Denoised,
    LogLikelihood,
    Update,
)
from scoresde.guidance.krylov import column
from scoresde.guidance.linear import Linear
from scoresde.noise import Noise
from scoresde.precision import full_precision, in_user_settings
from scoresde.score import Wrapped, device_of
from scoresde.sde import SDE, Condition, Facts, Field, Moments, Score, facts, passes_of, report

__all__ = ["Posterior", "posterior"]

# The largest number of products with A A^T for an exact draw.
_PRODUCTS = 60


class Posterior(Wrapped):
    """Evaluate the score of a posterior, with the measurement as a condition.

    Args:
        score: The score of the prior.
        likelihood: The measurement.
        method: The name of the approximation.
        name: The name of the condition.
        iterations: The number of products with the covariance.
        shape: The shape of one measurement, if known.
        moments: The moments of the data; None takes the moments in the score's facts.
    """

    def __init__(
        self,
        score: Score,
        likelihood: Linear | LogLikelihood,
        method: str,
        name: str,
        iterations: int,
        shape: tuple[int, ...] | None,
        moments: Moments | None,
    ) -> None:
        super().__init__(score)
        self.likelihood = likelihood
        self.method = method
        self.name = name
        self.iterations = iterations
        self.shape = shape
        # the shape of a measurement for each event shape
        self._shapes = dict[tuple[int, ...], tuple[int, ...]]()
        known = super().facts
        self._sde, self._moments = _sde_of(known), moments or known.moments
        self._linear = isinstance(likelihood, Linear)
        self._update = (OF_LINEAR if self._linear else OF_A_FUNCTION)[method]

    @property
    def facts(self) -> Facts:
        """Return the facts of the prior without its pilot, and with the measurement's condition."""
        known, conditions = super().facts, None
        if self.shape is not None:
            conditions = {**(known.conditions or {}), self.name: Field(self.shape)}
        return replace(known, passes=self._passes, conditions=conditions, pilot=None, density=False)

    def _passes(self, ratio: Tensor) -> int:
        """Return the network passes of a call; a backward pass counts as two."""
        backwards = 1
        if self.method == "mmps":
            backwards = self.iterations + (not self._linear)
        return passes_of(self.score, ratio) * (1 + 2 * backwards)

    def __call__(
        self, x: Tensor, t: Tensor, condition: Mapping[str, Tensor] | None = None
    ) -> Tensor:
        """Return the score `(B, *)`.

        Raises:
            InvalidValueError: There is no measurement, or the score cannot be differentiated.
            ShapeError: The measurement has another shape.
        """
        return self.twisted(x, t, condition)[1]

    # Methods that posterior samplers call through `ReverseSDE.attribute`

    @full_precision()
    def twisted(
        self, x: Tensor, t: Tensor, condition: Mapping[str, Tensor] | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        r"""Return the scores of prior and posterior and $\log p(y | x_t)$, by one evaluation.

        The log-likelihood `(B,)` omits a term that depends only on time.
        """
        y, rest = self._parted(condition, x)
        recording = torch.is_grad_enabled()
        alpha, sigma = self._sde.at(t, x)
        with torch.enable_grad(), twice_differentiable(recording):
            at = x if recording and x.requires_grad else x.detach().requires_grad_()
            score = in_user_settings(self.ask, self.score, at, t, rest)
            if not score.requires_grad:
                raise InvalidValueError(
                    "the score cannot be differentiated in x; remove no_grad and detach from it, "
                    "and do not call it in torch.inference_mode"
                )
        value = score if recording else score.detach()

        def spread(v: Tensor) -> Tensor:
            (back,) = torch.autograd.grad(
                score, at, v, retain_graph=True, create_graph=recording, materialize_grads=True
            )
            return (sigma / alpha) ** 2 * (v + sigma * (sigma * back))

        x0 = ((at if recording else x) + sigma * (sigma * value)) / alpha
        denoised = Denoised(x0, spread, self._variance(t), partial(self._spread, t))
        found: Update = self._update(self.likelihood, y, denoised, self.iterations)
        if found.residual is not None:
            report("residual", found.residual.detach())
        return value, value + alpha / sigma * (found.w / sigma), found.log_likelihood

    @property
    def prior(self) -> tuple[Score, str]:
        """Return the score of the prior, and the name of the condition that it does not take."""
        return self.score, self.name

    @full_precision()
    def log_constant(
        self, x: Tensor, t: Tensor, condition: Mapping[str, Tensor] | None = None
    ) -> Tensor:
        r"""Return the term `(B,)` that the log-likelihood of `twisted` omits."""
        if not isinstance(self.likelihood, Linear):
            return x.new_zeros(len(x))
        y, _ = self._parted(condition, x)
        var = float(self._variance(t).flatten()[0])
        return self.likelihood.log_constant(var, x[:1], ~y.isnan())

    @full_precision()
    def refreshed(
        self, x0: Tensor, rho: float, noise: Noise, condition: Mapping[str, Tensor] | None
    ) -> tuple[Tensor, Tensor]:
        r"""Draw exactly from $p(y | x)\,N(x;\, x_0, \rho^2 I)$ for a `Linear` measurement.

        A draw of $N(x_0, \rho^2 I)$ is moved by a Kalman update, with a new draw of the noise added
        to y (Papandreou & Yuille 2010, *Gaussian sampling by local perturbations*).

        Args:
            x0: The centre `(B, *)`.
            rho: The width.
            noise: The source of randomness.
            condition: The measurement.

        Returns:
            The draw `(B, *)`, and the relative residual of its linear system, `(B,)`.

        Raises:
            InvalidTypeError: The likelihood is not `Linear`.
        """
        if not isinstance(self.likelihood, Linear):
            raise InvalidTypeError(
                "exact draws need a guidance.Linear measurement; take the sampler Particles for "
                "other likelihoods"
            )
        y, _ = self._parted(condition, x0)
        x = x0 + rho * noise.normal(x0, 0.0)
        std = self.likelihood.variance(y).sqrt()
        r = self.likelihood.gap(y + std * noise.normal(y, 0.0, 1), x)
        found = self.likelihood.solved(r, lambda v: rho**2 * v, x, ~y.isnan(), _PRODUCTS)
        return x + found.w, found.residual

    def _parted(
        self, condition: Mapping[str, Tensor] | None, x: Tensor
    ) -> tuple[Tensor, Condition | None]:
        """Split the conditions into the measurement, in the dtype of `x`, and the others."""
        if condition is None or self.name not in condition:
            raise InvalidValueError(
                "a posterior needs a measurement, but none was given; give "
                f"condition={{{self.name!r}: y}}, with NaN for entries of y that were not measured"
            )
        y = condition[self.name].to(x.dtype)
        if isinstance(self.likelihood, Linear):
            event = tuple(x.shape[1:])
            if event not in self._shapes:
                self._shapes[event] = self.shape or self.likelihood.check(event, x.device)
            shape = self._shapes[event]
            if tuple(y.shape) != (len(x), *shape):
                raise ShapeError(
                    f"the measurement {self.name!r} must have the shape {(len(x), *shape)}, got "
                    f"{tuple(y.shape)}"
                )
        return y, Condition(condition).without(self.name)

    def _variance(self, t: Tensor) -> Tensor:
        r"""Return $(1/c + \alpha^2/\sigma^2)^{-1}$ with the data's mean variance $c$."""
        data = 1.0 if self._moments is None else self._moments.mean_variance()
        return data / (1 + data * self._snr(t))

    def _spread(self, t: Tensor, v: Tensor) -> Tensor:
        r"""Return $(C^{-1} + \alpha^2/\sigma^2 I)^{-1} v$ with the data's covariance $C$."""
        if self._moments is None:
            return column(self._variance(t).to(v), v) * v
        snr = column(self._snr(t), v).to(v)
        if self._moments.cov is None:
            var = torch.as_tensor(self._moments.var).to(v)
            return v * var / (1 + snr * var)
        var, axes = (part.to(v) for part in self._moments.principal())
        along = v.reshape(len(v), len(var)) @ axes
        return ((along * var / (1 + snr.reshape(-1, 1) * var)) @ axes.T).reshape(v.shape)

    def _snr(self, t: Tensor) -> Tensor:
        return self._sde.log_snr(self._sde.cpu_time(t)).exp()


@door
def posterior(
    score: Score,
    likelihood: Linear | Callable[..., Tensor],
    method: Literal["mmps", "pigdm", "dps"] = "mmps",
    name: str = "measurement",
    *,
    iterations: int = 5,
    shape: Sequence[int] | None = None,
    units: bool = False,
    moments: Moments | None = None,
) -> Wrapped:
    r"""Return the score of the posterior of $x_0$ given a measurement.

    The returned score takes the measurement y as the condition `name`, with NaN for entries that
    were not measured. The method approximates $p(y | x_t)$ from $\hat x = E[x_0 | x_t]$ and
    $V = \mathrm{Cov}[x_0 | x_t]$:

    - `"mmps"`, moment matching: $p(y | x_t) = N(A \hat x,\ A V A^T + \text{std}^2)$, with $V$ from
      the Jacobian of the score (Rozet et al. 2024, arXiv:2405.13712). For Gaussian data it is
      exact if `iterations` is at least the rank of A. A likelihood that is not `Linear` is expanded
      to second order about $\hat x$.
    - `"pigdm"`: the same with $V = v I$, $1/v = 1/c + \alpha^2/\sigma^2$, for data of variance c
      (Song et al. 2023, *Pseudoinverse-guided diffusion models for inverse problems*).
    - `"dps"`: the likelihood of $\hat x$, that is $V = 0$. Unlike in the paper, the step stops at
      the maximum of the likelihood (Chung et al. 2023, arXiv:2209.14687).

    Args:
        score: The score of the prior, differentiable in x.
        likelihood: A `Linear` measurement, or any `log_likelihood(y, x0)` with values `(B,)`. It
            must be differentiable in x0, and for `"mmps"` or `grad=True` twice differentiable.
        method: The name of the approximation of p(y | x_t).
        name: The name of the condition.
        iterations: For `"mmps"`, the number of products with $V$ by which its linear system is
            solved, at least 1, and for `Linear` at most the number of entries of y. Each product
            costs a backward pass of the network, which counts as two passes. `Samples.info` reports
            the relative residual of the system as `residual`.
        shape: The shape of one measurement, needed for a log-likelihood; for `Linear` it is
            computed.
        units: True if likelihood and y are in the user's units, before the data's transform.
        moments: The moments of the data in model units, for the variance c of `"pigdm"`, and to
            precondition the linear system of `"mmps"`. By default the moments in the score's facts,
            or else the variance 1.

    Raises:
        InvalidValueError: The score's facts have no SDE, or already have a condition `name`; A is
            not linear; `std` is 0 for `"dps"`; or `iterations` is below 1.
        UnknownNameError: The method does not exist for this likelihood.
        ShapeError, InvalidTypeError: The measurement does not fit the events.

    Examples:
        >>> import scoresde, torch
        >>> from scoresde.guidance import Linear, posterior
        >>> prior = scoresde.targets.Gaussian([0.0, 0.0], cov=[[1.0, 0.9], [0.9, 1.0]])
        >>> first = Linear(torch.tensor([[1.0, 0.0]]), std=0.1)
        >>> score = posterior(prior.at(scoresde.VPSDE()), first)
        >>> y = {"measurement": [1.35]}
        >>> x = scoresde.sample(score, sampler="heun", n=2000, seed=0, condition=y)
        >>> print(f"{float(x[:, 1].mean()):.1f}")  # 0.9 of the first
        1.2
    """
    known = facts(score)
    _sde_of(known)
    if known.conditions and name in known.conditions:
        raise InvalidValueError(
            f"the score already takes a condition {name!r}; give the measurement another name="
        )
    if not name.isidentifier():
        raise InvalidValueError(f"name= must be a word, such as 'measurement', got {name!r}")
    check_integer("iterations", iterations, 1)
    if moments is not None and known.event_shape is not None:
        moments.check_event(torch.empty(0, *known.event_shape))
    transform = None
    if units:
        transform = known.transform
        if transform is None:
            raise InvalidValueError(
                "units=True needs the transform of the data, but this score's facts have none; "
                "leave units out, and write the likelihood in model units"
            )
    if not isinstance(likelihood, Linear):
        function: Callable[..., Tensor] = likelihood
        with contextlib.suppress(ValueError):  # a builtin function has no signature
            bind(function, inspect.signature(function), ("y", "x0"), {})
        if transform is not None:
            given, inverse = function, transform.inverse
            function = lambda y, x0: given(y, inverse(x0))  # noqa: E731
        check_name("method of a log-likelihood", method, OF_A_FUNCTION)
        event = None if shape is None else as_event("shape", shape)
        return Posterior(score, LogLikelihood(function), method, name, iterations, event, moments)
    if transform is not None:
        likelihood = replace(likelihood, transform=transform)
    if method == "dps" and (torch.as_tensor(likelihood.std) == 0).any():
        raise InvalidValueError(
            "dps divides by the std of the noise, which is 0; take method='mmps'"
        )
    measured = None
    if known.event_shape is not None:
        measured = likelihood.check(known.event_shape, device_of(score))
        if shape is not None and tuple(shape) != measured:
            raise ShapeError(
                f"A returns measurements of shape {measured}, but shape= is {tuple(shape)}"
            )
        iterations = min(iterations, max(math.prod(measured), 1))
    return Posterior(score, likelihood, method, name, iterations, measured, moments)


def _sde_of(known: Facts) -> SDE:
    """Return the SDE in the facts of a score; raise InvalidValueError if there is none."""
    if known.sde is None:
        raise InvalidValueError(
            "a posterior needs the noise scales, but this score has no SDE in its facts; write it "
            "as a subclass of scoresde.Wrapped with `facts`"
        )
    return known.sde
