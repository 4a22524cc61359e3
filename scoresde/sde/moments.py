r"""Define the mean and covariance of data, as far as they are known before sampling."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from numbers import Real

import torch
from torch import Tensor

from scoresde.checks import as_numbers, check_batch, in_dtype, quoted, summary, unreadable
from scoresde.errors import InvalidTypeError, InvalidValueError, ShapeError
from scoresde.precision import as_double, full_precision

__all__ = ["Moments"]


@dataclass(frozen=True, eq=False, repr=False)
class Moments:
    r"""Hold the mean $\mu$ and covariance $\Sigma$ of data; define $\mathcal N(\mu, \Sigma)$.

    Args:
        mean: $\mu$, a number or a tensor of the event's shape.
        var: The variance per dimension, a number or a tensor of the event's shape, >= 0.
        cov: The full covariance `(D, D)` over the flattened event, in place of `var`.

    Raises:
        InvalidTypeError: A field is not a number, or a tensor, array or list of real numbers.
        InvalidValueError: Both `var` and `cov` are given, or neither; a variance is negative; `cov`
            is not symmetric; or a number is NaN or infinite.
        ShapeError: `cov` is not a square matrix with at least one row.

    Examples:
        >>> moments = Moments(torch.tensor([2.0, -1.0]), var=0.5)
        >>> print(moments.sample(torch.zeros(1, 2)).tolist())
        [[2.0, -1.0]]
        >>> noisy = moments.at(torch.tensor(0.5), torch.tensor(1.0))  # of 0.5 x + z
        >>> print(noisy.mean.tolist(), noisy.var)
        [1.0, -0.5] 1.125
    """

    mean: Tensor | float
    var: Tensor | float | None = None
    cov: Tensor | None = None

    __repr__ = summary

    @full_precision()
    def __post_init__(self) -> None:
        if (self.var is None) == (self.cov is None):
            raise InvalidValueError("Moments takes either var= or cov=, and not both")
        which = "var" if self.cov is None else "cov"
        mean = self._number("mean", "the mean in Moments")
        spread = self._number(which, "the variance in Moments")
        if unreadable(mean) or unreadable(spread):
            return
        for name, value in (("mean", mean), ("variance", spread)):
            if (bad := ~value.isfinite()).any():
                first = value[bad].flatten()[0].item()
                raise InvalidValueError(f"the {name} in Moments must be finite, got {first}")
        if self.cov is not None:
            if self.cov.ndim != 2 or not 0 < self.cov.shape[0] == self.cov.shape[1]:
                raise ShapeError(
                    "cov must be a square matrix with at least one row, got shape "
                    f"{tuple(self.cov.shape)}"
                )
            if (self.cov - self.cov.T).abs().max() > 1e-5 * self.cov.abs().max():
                raise InvalidValueError(f"cov must be symmetric, got {quoted(self.cov)}")
            spread = self.cov.diagonal()
        if (spread < 0).any():
            raise InvalidValueError(f"a variance in Moments is negative: {spread.min().item()}")

    def _number(self, field: str, what: str) -> Tensor:
        """Return a field as a tensor, and replace a list, an array or a tensor in it by a copy.

        Without the copy, a later change in place would contradict the values that are cached here.
        """
        value = getattr(self, field)
        number = as_numbers(what, value)
        if number.is_complex() or number.dtype == torch.bool:
            raise InvalidTypeError(f"{what} must be real, got {number.dtype}")
        if not isinstance(value, Real):
            object.__setattr__(self, field, number.clone())
        return number

    @property
    def shape(self) -> tuple[int, ...] | None:
        """Return the shape of the mean or the variances; if both are numbers, `(D,)` or None."""
        known = [value for value in (self.mean, self.var) if isinstance(value, Tensor)]
        shapes = [tuple(value.shape) for value in known if value.ndim]
        flat = None if self.cov is None else (len(self.cov),)
        return shapes[0] if shapes else flat

    def at(self, alpha: Tensor, sigma: Tensor) -> Moments:
        r"""Return moments $(\alpha\mu, \alpha^2\Sigma + \sigma^2 I)$ of $\alpha x_0 + \sigma z$."""
        a, v = float(alpha), float(sigma) ** 2
        if self.cov is None:
            assert self.var is not None
            return Moments(a * self.mean, var=a**2 * self.var + v)
        eye = torch.eye(len(self.cov), dtype=self.cov.dtype, device=self.cov.device)
        return Moments(a * self.mean, cov=a**2 * self.cov + v * eye)

    @full_precision()
    def mean_variance(self) -> float:
        """Return the mean of the variances of the dimensions."""
        spread = self.var if self.cov is None else self.cov.diagonal()
        assert spread is not None
        return float(as_double(spread).mean())

    @full_precision()
    def left(self, snr: Tensor) -> Tensor:
        r"""Return the variance of Gaussian data given $x_t$, $v / (1 + v\,\alpha^2/\sigma^2)$.

        With `cov`, return the mean over the principal axes.

        Args:
            snr: $\alpha^2 / \sigma^2$, `()`.

        Returns:
            A number `()`, or the shape of an event if `var` has it.
        """
        if self.cov is None:
            assert self.var is not None
            var = as_double(self.var)
            return var / (1 + var * snr.to(var.device))
        var, _ = self.principal()
        return (var / (1 + var * snr.to(var.device))).mean()

    @full_precision()
    def root_mean_square(self) -> float:
        r"""Return $\sqrt{E[x^2]}$, with the mean over all dimensions."""
        square = as_double(self.mean).square().mean()
        return math.sqrt(square + self.mean_variance())

    @full_precision()
    def sample(self, z: Tensor) -> Tensor:
        r"""Return $\mu + \Sigma^{1/2} z$ for standard normal `z` of shape `(B, *)`.

        Raises:
            ShapeError: The moments belong to events of another shape.
            InvalidValueError: The covariance has a negative eigenvalue.
            InvalidTypeError: `z` is not floating-point.
            NonFiniteError: `z` holds a NaN or an infinity.
        """
        check_batch("z", z)
        self.check_event(z)
        mean = as_double(self.mean).to(z)
        if self.var is not None:
            return mean + as_double(self.var).sqrt().to(z) * z
        var, basis = self.principal()
        root = (basis * var.sqrt() @ basis.T).to(z)
        return mean + (_rows(z) @ root).reshape(z.shape)

    @full_precision()
    def log_prob(self, x: Tensor) -> Tensor:
        r"""Return $\log \mathcal N(x; \mu, \Sigma)$, `(B,)`, for `x` of shape `(B, *)`.

        Raises:
            ShapeError: The moments belong to events of another shape.
            InvalidValueError: The Gaussian has no density: a variance is 0, or an eigenvalue of
                the covariance is not positive.
            InvalidTypeError: `x` is not floating-point.
            NonFiniteError: `x` holds a NaN or an infinity, or the result overflows its dtype.
        """
        gap, var, _ = self._centred(x)
        terms = gap**2 / var + var.log() + math.log(2 * math.pi)
        return in_dtype("the log-density", -0.5 * terms.sum(1), x.dtype)

    @full_precision()
    def score(self, x: Tensor) -> Tensor:
        r"""Return $\nabla \log \mathcal N(x; \mu, \Sigma)$, `(B, *)`; errors as in `log_prob`."""
        gap, var, basis = self._centred(x)
        score = -gap / var if basis is None else -(gap / var @ basis.T)
        return in_dtype("the score", score.reshape(x.shape), x.dtype)

    def _centred(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return x - mean `(B, D)` along the principal axes, the variances `(D,)`, and the axes.

        Without `cov` the axes are those of x, and None is returned for them.
        """
        check_batch("x", x)
        self.check_event(x)
        gap = _rows(x.double() - torch.as_tensor(self.mean, dtype=torch.float64).to(x.device))
        if self.cov is None:
            var = torch.as_tensor(self.var, dtype=torch.float64).expand(x.shape[1:]).flatten()
            basis = None
        else:
            var, axes = self.principal()
            basis = axes.to(x.device)
            gap = gap @ basis
        if not (var > 0).all():
            raise InvalidValueError(f"a density needs positive variances, got {var.min().item()}")
        return gap, var.to(x.device), basis

    def principal(self) -> tuple[Tensor, Tensor]:
        """Return the eigenvalues `(D,)` and eigenvectors `(D, D)` of the covariance, in float64."""
        return self._principal

    @cached_property
    def _principal(self) -> tuple[Tensor, Tensor]:
        assert self.cov is not None
        var: Tensor
        var, basis = torch.linalg.eigh(as_double(self.cov))
        # rounding makes a zero eigenvalue slightly negative; a clearly negative one is a wrong
        # input
        if var[0] < -1e-5 * var[-1]:
            raise InvalidValueError(
                f"cov must be positive semi-definite, but has the eigenvalue {float(var[0]):.3g}"
            )
        return var.clamp(min=0), basis

    def check_event(self, x: Tensor) -> None:
        """Raise ShapeError unless the moments fit the events of `x`, `(B, *)`."""
        event = tuple(x.shape[1:])
        for name, value in (("mean", self.mean), ("var", self.var)):
            shape = tuple(torch.as_tensor(0.0 if value is None else value).shape)
            if shape not in ((), event):
                raise ShapeError(
                    f"the {name} in Moments has shape {shape}, but one event has shape {event}"
                )
        if self.cov is not None and len(self.cov) != math.prod(event):
            raise ShapeError(
                f"the cov in Moments has shape {tuple(self.cov.shape)}, "
                f"but one event has shape {event}, {math.prod(event)} dimensions"
            )


def _rows(x: Tensor) -> Tensor:
    """Return `(B, *)` flattened to `(B, D)`, also for B = 0 and events of shape ()."""
    return x.reshape(x.shape[0], math.prod(x.shape[1:]))
