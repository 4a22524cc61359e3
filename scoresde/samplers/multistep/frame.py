r"""Change to coordinates in which a Gaussian's denoiser is diagonal and every SDE is VE.

The coordinates are $w = Q^T (x/\alpha - \mu)$ with the principal axes $Q$ of the Gaussian. The
denoiser of the Gaussian is then $\mu + Q\,\mathrm{diag}(c / (c + \rho^2))\,w$, with
$\rho = \sigma/\alpha$.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from scoresde.errors import InvalidValueError
from scoresde.precision import as_double
from scoresde.sde import SDE, Moments

__all__ = ["CentredFrame", "Frame", "frame_of"]

# The largest rounding error of x / alpha at the start, in units of the data. Later steps remove it:
# at 1e6 no error was measured in the samples, at 5e7 `fast` had an error of a fifth.
_MAX_ROUNDING = 1e6


@dataclass(frozen=True, eq=False)
class Frame:
    r"""Define the coordinates for a Gaussian of variance 0 (data prediction): the state itself.

    Attributes:
        variances: $c$, `(C,)`, float64; C is 1 or the number of dimensions.
        alpha: The signal scale at each time, N + 1 numbers.
        sigma: The noise scale at each time.
        like: A state with the dtype and device of the coefficients.
    """

    variances: Tensor
    alpha: list[float]
    sigma: list[float]
    like: Tensor

    @property
    def scale(self) -> Tensor:
        r"""Return the unit of these coordinates in $x / \alpha$, at each time, `(N + 1,)`."""
        return torch.tensor(self.alpha, dtype=torch.float64)

    def from_state(self, x: Tensor, i: int) -> Tensor:
        """Return the coordinates of a state `(B, *)` at time i."""
        return x

    def to_state(self, w: Tensor, i: int) -> Tensor:
        """Return the state `(B, *)` at time i with these coordinates."""
        return w

    def rotate(self, z: Tensor) -> Tensor:
        """Return a difference of states in these coordinates."""
        return z

    def residual(self, score: Tensor, w: Tensor, i: int) -> Tensor:
        """Return the denoiser at time i, by Tweedie's formula, minus that of the Gaussian."""
        return (w / self.alpha[i]).add_(self._noise(score, i), alpha=self._ratio(i))

    def _noise(self, score: Tensor, i: int) -> Tensor:
        # sigma^2 may overflow in half precision where sigma does not
        return self.sigma[i] * score

    def _ratio(self, i: int) -> float:
        return self.sigma[i] / self.alpha[i]

    def gains(self, i: int) -> Tensor:
        r"""Return $c / (c + \rho^2)$ at time i, `(C,)`."""
        return self.variances.new_zeros(1)

    def coefficients(self, values: Tensor) -> tuple[Tensor, ...]:
        """Return values `(N, C)` as N coefficients, ready to multiply a state."""
        return values[:, 0].to(self.like).unbind()


@dataclass(frozen=True, eq=False)
class CentredFrame(Frame):
    r"""Define the coordinates $w = Q^T (x/\alpha - \mu)$ of a Gaussian.

    Attributes:
        rho: The noise-to-signal ratio at each time, `(N + 1,)`, float64.
        mean: $\mu$, of the event's shape.
        basis: $Q$, `(D, D)`, or `None` if the covariance is diagonal.
    """

    rho: Tensor
    mean: Tensor
    basis: Tensor | None

    @property
    def scale(self) -> Tensor:
        r"""Return 1 at each time: these coordinates are $x / \alpha$, shifted and rotated."""
        return torch.ones_like(self.rho)

    def from_state(self, x: Tensor, i: int) -> Tensor:
        """Return the coordinates of a state `(B, *)` at time i."""
        return self.rotate(x / self.alpha[i] - self.mean)

    def to_state(self, w: Tensor, i: int) -> Tensor:
        """Return the state `(B, *)` at time i with these coordinates."""
        if self.basis is not None:
            w = (w @ self.basis.T).reshape(self.like.shape)
        return self.alpha[i] * (self.mean + w)

    def rotate(self, z: Tensor) -> Tensor:
        """Return a difference of states in these coordinates."""
        return z if self.basis is None else z.reshape(len(z), len(self.basis)) @ self.basis

    def residual(self, score: Tensor, w: Tensor, i: int) -> Tensor:
        """Return the denoiser at time i, by Tweedie's formula, minus that of the Gaussian."""
        return (self._weights[i] * w).add_(self.rotate(self._noise(score, i)), alpha=self._ratio(i))

    def gains(self, i: int) -> Tensor:
        r"""Return $c / (c + \rho^2)$ at time i, `(C,)`."""
        # the gain is 0 for c = 0 and rho = 0
        return self.variances / (self.variances + self.rho[i] ** 2).clamp(min=1e-300)

    def coefficients(self, values: Tensor) -> tuple[Tensor, ...]:
        """Return values `(N, C)` as N coefficients, ready to multiply a state."""
        if values.shape[1] == 1:
            return super().coefficients(values)
        shape = values.shape[1:] if self.basis is not None else self.like.shape[1:]
        return values.to(self.like).reshape(-1, *shape).unbind()

    @cached_property
    def _weights(self) -> tuple[Tensor, ...]:
        r"""Return the coefficients $\rho^2 / (c + \rho^2)$ at each time."""
        noise = self.rho[:, None] ** 2
        return self.coefficients(noise / (self.variances + noise).clamp(min=1e-300))


def frame_of(gaussian: Moments, sde: SDE, times: Tensor, rho: Tensor, like: Tensor) -> Frame:
    """Return the coordinates of a Gaussian at every time of a grid.

    Args:
        gaussian: The moments of the Gaussian.
        sde: The process.
        times: The grid `(N + 1,)`.
        rho: The noise-to-signal ratios at those times.
        like: A state `(B, *)` with the event shape, dtype and device to use.

    Raises:
        InvalidValueError: The data would be lost in rounding to the dtype, since alpha is small.
    """
    gaussian.check_event(like)
    alpha, sigma = sde.alpha(times).tolist(), sde.sigma(times).tolist()
    largest = max(max(1, s) / max(a, 1e-300) for a, s in zip(alpha, sigma, strict=True))
    if largest * torch.finfo(like.dtype).eps > _MAX_ROUNDING:
        raise InvalidValueError(
            f"the noise is {largest:.3g} times the data at the start, and in {like.dtype} the data "
            "are lost in rounding; choose a smaller T, or dtype=torch.float64"
        )
    mean = as_double(gaussian.mean)
    if gaussian.cov is not None:
        variances, axes = gaussian.principal()
        basis = axes.to(like)
    else:
        variances = torch.as_tensor(gaussian.var).cpu().double().reshape(-1)
        basis = None
    if not (variances.any() or mean.any()):
        return Frame(variances.new_zeros(1), alpha, sigma, like)
    return CentredFrame(variances, alpha, sigma, like, rho, mean.to(like), basis)
