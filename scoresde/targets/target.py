r"""Define the base class of targets, whose $p_t$ is known exactly at every time of every SDE."""

from __future__ import annotations

import abc
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from scoresde.checks import check_batch, check_integer, door, in_dtype
from scoresde.errors import InvalidTypeError, InvalidValueError
from scoresde.sde import SDE, Facts, Moments, expand
from scoresde.targets.mixture import Components, Marginal

__all__ = ["Target", "TargetScore", "scales"]


class Target(abc.ABC):
    r"""Define a distribution with exact `sample`, `log_prob`, `score` and `denoise` at every time.

    With `sde` and `t` a method refers to $p_t$; without them it refers to the data distribution
    $p_0$. `x` is `(B, *)` with the target's event shape; `t` is a number, `()` or `(B,)`. Results
    are computed in float64 and returned in the dtype of `x`. `target.at(sde)` is the score, for
    samplers.

    Each target is a finite mixture of Gaussians: the `__init__` of a new target passes its
    components to `super().__init__`.

    Args:
        components: The Gaussians.

    Raises:
        InvalidValueError: A mean or a variance is not finite.
    """

    @abc.abstractmethod
    def __init__(self, components: Components) -> None:
        if not (components.means.isfinite().all() and components.variances.isfinite().all()):
            raise InvalidValueError(
                "a mean or a variance is not finite in float64; divide all numbers by their scale"
            )
        self.components = components
        self._singular = bool((components.variances == 0).any())

    def __repr__(self) -> str:
        k = len(self.weights)
        parts = "1 component" if k == 1 else f"{k} components"
        return f"{type(self).__name__}({parts}, event_shape={self.event_shape})"

    @property
    def event_shape(self) -> tuple[int, ...]:
        """Return the shape of one draw, without the batch."""
        return tuple(self.components.means.shape[1:])

    @property
    def weights(self) -> Tensor:
        """Return the weights of the components, `(K,)`, float64."""
        return self.components.weights

    @property
    def means(self) -> Tensor:
        """Return the means of the components, `(K, *)`, float64."""
        return self.components.means

    @door
    def at(self, sde: SDE) -> TargetScore:
        """Return the score of $p_t$ under `sde`, for `scoresde.sample` and the objectives."""
        return TargetScore(self, sde)

    def moments(self) -> Moments:
        """Return the exact moments of the data, float64.

        Returns:
            The mean, of the event's shape, and the covariance over the flattened event, `(D, D)`.
            If the target is one Gaussian with a diagonal covariance, the variances, of the event's
            shape, take the place of the covariance.
        """
        return self.components.moments()

    @door
    def sample(
        self,
        n: int,
        sde: SDE | None = None,
        t: Tensor | float | None = None,
        *,
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> Tensor:
        r"""Return `n` independent draws of the data, or of $p_t$.

        Args:
            n: The number of draws, at least 0.
            sde: The SDE of $p_t$.
            t: The time, a number, `()` or `(n,)`.
            generator: The source of randomness; by default torch's global generator.
            dtype: The dtype of the result, by default torch's default dtype; the random numbers do
                not depend on the dtype.
            device: The device of the result; by default the device of `generator`, or the CPU.

        Returns:
            The draws, `(n, *)`.

        Raises:
            InvalidValueError: `n` is negative, or a time lies outside [0, T].
            InvalidTypeError: `n` is not an integer, or only one of `sde` and `t` is given.
            ShapeError: `t` has another shape than `()` or `(n,)`.
        """
        check_integer("n", n, 0)
        _check_times(sde, t)
        source = torch.device("cpu") if generator is None else generator.device
        c = self.components.to(source)
        shape = (n, math.prod(self.event_shape))
        # check before the first draw, so that an error does not change the generator's state
        alpha, sigma = scales(sde, t, torch.empty(shape, dtype=torch.float64, device=source))
        z = torch.randn(shape, generator=generator, dtype=torch.float64, device=source)
        u = torch.rand(n, generator=generator, dtype=torch.float64, device=source)
        # leave out the last cumulative sum, which may be rounded to less than one
        k = torch.searchsorted(c.weights.cumsum(0)[:-1].contiguous(), u, right=True)
        z = (alpha**2 * c.variances[k] + sigma**2).sqrt() * z
        if c.basis is not None:
            for i, basis in enumerate(c.basis):
                z[k == i] = z[k == i] @ basis.mT
        x = (alpha * c.flat_means[k] + z).reshape(n, *self.event_shape)
        return x.to(device=device or source, dtype=dtype or torch.get_default_dtype())

    @door
    def log_prob(
        self, x: Tensor, sde: SDE | None = None, t: Tensor | float | None = None
    ) -> Tensor:
        r"""Return the logarithm of the density, $\log p_t(x)$.

        Args:
            x: The points, `(B, *)`.
            sde: The SDE of $p_t$.
            t: The time, a number, `()` or `(B,)`.

        Returns:
            The log-densities `(B,)`, in the dtype of `x`.

        Raises:
            ShapeError: `x` or `t` has the wrong shape.
            InvalidTypeError: `x` is not floating-point, or only one of `sde` and `t` is given.
            InvalidValueError: A time lies outside [0, T], or $p_t$ has no density there.
            NonFiniteError: `x` holds a NaN or an infinity, or the result overflows.
        """
        return in_dtype("the log-density", self._checked_marginal(x, sde, t).log_prob(), x.dtype)

    @door
    def score(self, x: Tensor, sde: SDE | None = None, t: Tensor | float | None = None) -> Tensor:
        r"""Return the score, $\nabla_x \log p_t(x)$.

        Arguments and errors are those of `log_prob`.

        Returns:
            The score, of the shape and dtype of `x`.
        """
        return in_dtype("the score", self._checked_marginal(x, sde, t).score(), x.dtype).reshape(
            x.shape
        )

    @door
    def denoise(self, x: Tensor, sde: SDE | None = None, t: Tensor | float | None = None) -> Tensor:
        r"""Return the mean of the data given a noisy sample, $E[x_0 | x_t = x]$.

        The mean equals $(x + \sigma_t^2 \nabla \log p_t(x)) / \alpha_t$ (Efron 2011, "Tweedie's
        formula and selection bias"), but is computed without the division by $\alpha_t$. Arguments
        and errors are those of `log_prob`.

        Returns:
            The posterior mean, of the shape and dtype of `x`.
        """
        found = self._checked_marginal(x, sde, t).denoise()
        return in_dtype("the mean of the data", found, x.dtype).reshape(x.shape)

    @door
    def responsibilities(
        self, x: Tensor, sde: SDE | None = None, t: Tensor | float | None = None
    ) -> Tensor:
        r"""Return the probability that `x` was drawn from each component, $p_t(k | x)$.

        Arguments and errors are those of `log_prob`.

        Returns:
            Non-negative numbers that sum to one over the components, `(B, K)`.
        """
        found = self._checked_marginal(x, sde, t).responsibilities()
        return in_dtype("the probabilities of the components", found, x.dtype)

    @door
    def assign(self, x: Tensor, sde: SDE | None = None, t: Tensor | float | None = None) -> Tensor:
        """Return the component from which `x` was most probably drawn.

        `target.assign(x).bincount(minlength=len(target.weights)) / len(x)` estimates the weights.
        Arguments and errors are those of `log_prob`.

        Returns:
            Indices into `weights` and `means`, `(B,)`, int64.
        """
        return self.responsibilities(x, sde, t).argmax(1)

    @door
    def posterior(self, A: Callable[[Tensor], Tensor] | Tensor, std: Any, y: Any) -> Any:
        r"""Return the exact distribution of the data given $y = A x_0 + \text{std}\,\varepsilon$.

        It is a target with all methods of this class, and the attribute `log_evidence`.

        Args:
            A: A linear function of a batch of events, or a matrix `(m, D)`.
            std: The standard deviation of the noise, a number or of the shape of y.
            y: The measurement, with NaN for entries that were not measured.

        Raises:
            InvalidValueError, InvalidTypeError, ShapeError, NonFiniteError: An argument does not
                fit the events, or `std` or y has an infinity.

        Examples:
            >>> import scoresde, torch
            >>> prior = scoresde.targets.Gaussian([0.0, 0.0], cov=[[1.0, 0.9], [0.9, 1.0]])
            >>> law = prior.posterior(torch.tensor([[1.0, 0.0]]), std=0.1, y=[1.5])
            >>> print(f"{float(law.means[0, 1]):.3f}")
            1.337
        """
        from scoresde.targets.posterior import Posterior

        return Posterior(self, A, std, y)

    def _checked_marginal(self, x: Tensor, sde: SDE | None, t: Tensor | float | None) -> Marginal:
        """Check points and times, and return $p_t$ at the points."""
        check_batch("x", x, self.event_shape)
        _check_times(sde, t)
        return self.marginal(x, sde, t)

    def marginal(self, x: Tensor, sde: SDE | None, t: Tensor | float | None) -> Marginal:
        """Return $p_t$ at points `(B, *)`."""
        points = x.double().reshape(len(x), math.prod(self.event_shape), 1)
        c = self.components.to(x.device)
        alpha, sigma = scales(sde, t, points)
        marginal = Marginal(c, points, alpha, sigma)
        if self._singular and not (marginal.v > 0).all():
            raise InvalidValueError(
                "without noise this target has no density, because a covariance is singular; "
                "pass an SDE and a time with sigma(t) > 0"
            )
        return marginal


@dataclass(frozen=True, eq=False)
class TargetScore:
    r"""Return the score $\nabla \log p_t$ of a target under one SDE; `target.at(sde)` makes it.

    It can be used like a trained `ScoreModel`.
    """

    target: Target
    sde: SDE

    @cached_property
    def facts(self) -> Facts:
        """Return the facts: SDE, event shape, exact moments, one pass, no conditions."""
        return Facts(
            sde=self.sde,
            event_shape=self.target.event_shape,
            moments=self.target.moments(),
            passes=1,
            conditions={},
        )

    @door
    def __call__(self, x: Tensor, t: Tensor | float) -> Tensor:
        r"""Return $\nabla_x \log p_t(x)$ for `x` of shape `(B, *)` and `t` of shape `()` or `(B,)`.

        The values of `x` are not checked, so that `torch.func` can transform this function.

        Raises:
            ShapeError: `x` or `t` has the wrong shape.
            InvalidTypeError: `x` is not floating-point.
            InvalidValueError: A time lies outside [0, T].
        """
        check_batch("x", x, self.target.event_shape, finite=False)
        return self.target.marginal(x, self.sde, t).score().reshape(x.shape).to(x.dtype)

    def log_prob(self, x: Tensor, t: Tensor) -> Tensor:
        r"""Return $\log p_t(x)$, `(B,)`; arguments and errors are those of the score."""
        check_batch("x", x, self.target.event_shape, finite=False)
        return self.target.marginal(x, self.sde, t).log_prob().to(x.dtype)


def _check_times(sde: SDE | None, t: Tensor | float | None) -> None:
    """Raise unless `sde` and `t` are both given or both left out, and times lie in [0, T]."""
    if (sde is None) != (t is None):
        given, missing = ("t", "sde") if sde is None else ("sde", "t")
        raise InvalidTypeError(
            f"{given} is given without {missing}; pass both for p_t, or neither for the data"
        )
    if sde is None:
        return
    assert t is not None
    sde.as_time(t)


def scales(sde: SDE | None, t: Tensor | float | None, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return alpha(t) and sigma(t) with axes that broadcast against `x`; 1 and 0 without an SDE."""
    if sde is None or t is None:
        return x.new_ones(()), x.new_zeros(())
    time = sde.cpu_time(t)
    return expand(sde.alpha(time), x), expand(sde.sigma(time), x)
