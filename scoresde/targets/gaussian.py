"""Define Gaussians and Gaussian mixtures by their parameters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from scoresde.checks import door, quoted
from scoresde.errors import InvalidTypeError, InvalidValueError, ShapeError
from scoresde.targets.mixture import Components
from scoresde.targets.target import Target

__all__ = ["Gaussian", "GaussianMixture", "Numbers", "numbers", "spectrum"]

# a tensor, or what torch.as_tensor converts to a tensor
Numbers = Tensor | float | Sequence[Any]


class Gaussian(Target):
    r"""Define the normal distribution $N(\mu, C)$ over events of any shape.

    Its score is affine in `x`, and acts on each entry separately if the covariance is diagonal. A
    variance may be zero, as for a point mass or data on a plane; $p_t$ has a density if
    $\sigma_t > 0$.

    Args:
        mean: $\mu$, of the event's shape.
        cov: $C$ over the flattened event, `(D, D)`, symmetric and positive semi-definite.
        var: The variances of independent entries, a number or of the event's shape.
        std: The standard deviations instead of the variances. Give exactly one of `cov`, `var` and
            `std`.

    Raises:
        InvalidTypeError: An argument is not made of real numbers.
        InvalidValueError: Not exactly one of `cov`, `var` and `std` is given, a variance is
            negative, a matrix is not a covariance, or a number is not finite.
        ShapeError: Shapes do not fit.
    """

    @door
    def __init__(
        self,
        mean: Numbers,
        cov: Numbers | None = None,
        *,
        var: Numbers | None = None,
        std: Numbers | None = None,
    ) -> None:
        means = numbers("mean", mean)[None]
        name, spread = _exactly_one(cov=cov, var=var, std=std)
        if name == "cov":
            variances, basis = spectrum(name, spread[None], means)
        else:
            _check_not_negative(name, spread)
            if spread.shape not in {(), means.shape[1:]}:
                raise ShapeError(
                    f"{name} must be a number or of the mean's shape {tuple(means.shape[1:])}, got "
                    f"{tuple(spread.shape)}; pass a covariance matrix as cov="
                )
            variances = (spread if name == "var" else spread**2).reshape(1, -1)
            basis = None
        super().__init__(Components(means.new_ones(1), means, variances, basis))


class GaussianMixture(Target):
    r"""Define the mixture $\sum_k w_k N(\mu_k, C_k)$ over events of any shape.

    Args:
        weights: $w$, `(K,)`, non-negative, of sum one.
        means: $\mu_k$, `(K, *)`.
        covs: $C_k$ over the flattened event, `(K, D, D)`.
        stds: The standard deviations: a number or `(K,)` for isotropic components, `(K, *)` for
            components with independent entries. Give exactly one of `covs` and `stds`.

    Raises:
        InvalidTypeError: An argument is not made of real numbers.
        InvalidValueError: Weights are negative or do not sum to one, not exactly one of `covs` and
            `stds` is given, a std is negative, a matrix is not a covariance, or a number is not
            finite.
        ShapeError: Shapes do not fit.
    """

    @door
    def __init__(
        self,
        weights: Numbers,
        means: Numbers,
        covs: Numbers | None = None,
        *,
        stds: Numbers | None = None,
    ) -> None:
        w, mu = numbers("weights", weights), numbers("means", means)
        if w.ndim != 1 or mu.ndim == 0 or len(w) == 0 or len(w) != len(mu):
            raise ShapeError(
                "a mixture of K components needs weights (K,) and means (K, *), K >= 1, got "
                f"{tuple(w.shape)} and {tuple(mu.shape)}"
            )
        _check_not_negative("weights", w)
        if abs(float(w.sum()) - 1) > 1e-5:
            raise InvalidValueError(
                f"weights must sum to one, got a sum of {w.sum():.6g}; pass weights / weights.sum()"
            )
        name, spread = _exactly_one(covs=covs, stds=stds)
        if name == "covs":
            variances, basis = spectrum(name, spread, mu)
        else:
            _check_not_negative(name, spread)
            if spread.shape not in {(), w.shape, mu.shape}:
                raise ShapeError(
                    f"stds must be a number, ({len(w)},) or of the means' shape "
                    f"{tuple(mu.shape)}, got {tuple(spread.shape)}; pass matrices as covs="
                )
            per_component = spread.expand(len(w)) if spread.ndim == 0 else spread
            variances, basis = per_component.reshape(len(w), -1) ** 2, None
        super().__init__(Components(w / w.sum(), mu, variances, basis))


def numbers(name: str, value: Numbers) -> Tensor:
    """Return a copy of `value` as a float64 CPU tensor; raise unless all numbers are finite."""
    try:
        tensor = torch.as_tensor(value).detach()
    except (TypeError, ValueError, RuntimeError) as error:
        raise InvalidTypeError(f"{name} must be made of numbers, got {quoted(value)}") from error
    if tensor.is_complex() or tensor.dtype == torch.bool:
        raise InvalidTypeError(f"{name} must be made of real numbers, got {tensor.dtype}")
    if not isinstance(value, Tensor):
        # read Python floats in float64 instead of torch's default dtype
        tensor = torch.as_tensor(value, dtype=torch.float64)
    if not tensor.isfinite().all():
        raise InvalidValueError(f"{name} must be finite, got {value}")
    return tensor.to(device="cpu", dtype=torch.float64, copy=True)


def _exactly_one(**choices: Numbers | None) -> tuple[str, Tensor]:
    """Return name and value of the argument that is given; raise unless exactly one is given."""
    made = {name: value for name, value in choices.items() if value is not None}
    if len(made) != 1:
        raise InvalidValueError(
            f"pass exactly one of {', '.join(choices)}, got {' and '.join(made) or 'none'}"
        )
    ((name, value),) = made.items()
    return name, numbers(name, value)


def _check_not_negative(name: str, value: Tensor) -> None:
    if (value < 0).any():
        raise InvalidValueError(f"{name} must not be negative, got {value.min().item():.6g}")


def spectrum(name: str, covs: Tensor, means: Tensor) -> tuple[Tensor, Tensor | None]:
    """Return eigenvalues `(K, D)` of covariances, and eigenvectors, or None if all are diagonal."""
    k, d = len(means), means[0].numel()
    if covs.shape != (k, d, d):
        want, got = ((d, d), covs.shape[1:]) if name == "cov" else ((k, d, d), covs.shape)
        raise ShapeError(
            f"{name} must be of shape {want}, over the flattened event, got {tuple(got)}"
        )
    scale = covs.abs().amax((1, 2), keepdim=True)
    # matrices computed in float32 are symmetric and positive only up to rounding
    tolerance = 1e-5 * scale
    if ((covs - covs.mT).abs() > tolerance).any():
        raise InvalidValueError(f"{name} is not symmetric; pass (C + C.T) / 2")
    covs = (covs + covs.mT) / 2
    if (covs == torch.diag_embed(covs.diagonal(dim1=1, dim2=2))).all():
        variances, basis = covs.diagonal(dim1=1, dim2=2), None
    else:
        variances, basis = torch.linalg.eigh(covs)
        # rounding may make a zero eigenvalue negative
        rounding = d * torch.finfo(covs.dtype).eps * scale[..., 0]
        variances = torch.where(variances.abs() > rounding, variances, 0.0)
    if (variances < -tolerance[..., 0]).any():
        raise InvalidValueError(
            f"{name} is not a covariance: it has the negative eigenvalue "
            f"{variances.min().item():.6g}"
        )
    return variances.clamp(min=0), basis
