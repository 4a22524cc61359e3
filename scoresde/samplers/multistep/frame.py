r"""Change to coordinates in which a Gaussian's denoiser is diagonal.

The coordinates are $w = Q^T (x - \alpha\mu)$ with the principal axes $Q$ of the Gaussian
$\mathcal N(\mu, Q\,\mathrm{diag}(c)\,Q^T)$. Its score is $-w / V$ with the variance
$V = \alpha^2 c + \sigma^2$ of $w$, and its denoiser is $\mu + Q\,\mathrm{diag}(\alpha c / V)\,w$.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from scoresde.errors import InvalidValueError
from scoresde.precision import as_double
from scoresde.sde import SDE, Moments

__all__ = ["Frame", "frame_of"]

# The largest rounding error of x / alpha at the start, divided by the scale of the data. Later
# steps remove this error: with 1e6 no error was measured in the samples, with 5e7 `fast` had an
# error of 20 %.
_MAX_ROUNDING = 1e6


@dataclass(frozen=True, eq=False)
class Frame:
    r"""Define the coordinates of a Gaussian.

    Attributes:
        variances: $c$, `(C,)`, float64; C is 1 or the number of dimensions.
        alpha: The signal scale at each time, `(N + 1,)`, float64.
        sigma: The noise scale at each time, `(N + 1,)`, float64.
        like: A state with the dtype and device of the coefficients.
        mean: $\mu$, of the event's shape, or `None` if it is 0.
        basis: $Q$, `(D, D)`, or `None` if the covariance is diagonal.
    """

    variances: Tensor
    alpha: Tensor
    sigma: Tensor
    like: Tensor
    mean: Tensor | None = None
    basis: Tensor | None = None

    def from_state(self, x: Tensor, i: int) -> Tensor:
        """Return the coordinates of a state `(B, *)` at time i."""
        return self.rotate(x if self.mean is None else x - self._alpha[i] * self.mean)

    def to_state(self, w: Tensor, i: int) -> Tensor:
        """Return the state `(B, *)` at time i with these coordinates."""
        if self.basis is not None:
            w = (w @ self.basis.T).reshape(-1, *self.like.shape[1:])
        return w if self.mean is None else w + self._alpha[i] * self.mean

    def rotate(self, z: Tensor) -> Tensor:
        """Return a difference of two states, `(B, *)`, in these coordinates."""
        return z if self.basis is None else z.reshape(len(z), len(self.basis)) @ self.basis

    def excess(self, score: Tensor, w: Tensor, i: int) -> Tensor:
        r"""Return $\sigma \nabla\log p_t + (\sigma / V) w$ at time i, 0 for the Gaussian.

        Both terms are about 1 whatever the units of the data are, so that neither overflows.
        """
        ours, law = self._scales
        return (ours[i] * self.rotate(score.to(w))).addcmul_(law[i], w)

    @property
    def denoising(self) -> Tensor:
        r"""Return $\sigma / \alpha$ at each time, `(N + 1, C)`.

        Multiplied by `excess`, it gives the denoiser of the score minus that of the Gaussian.
        """
        return (self.sigma / self.alpha)[:, None].expand_as(self._law)

    def gains(self, i: int) -> Tensor:
        r"""Return $\alpha^2 c / V$ at time i, `(C,)`."""
        return self.alpha[i] ** 2 * self.variances / self._law[i]

    def coefficients(self, values: Tensor) -> tuple[Tensor, ...]:
        """Return values `(N, C)` as N coefficients, ready to multiply a state."""
        values = values.to(self.like)
        if values.shape[1] == 1:
            return values[:, 0].unbind()
        shape = values.shape[1:] if self.basis is not None else self.like.shape[1:]
        return values.reshape(-1, *shape).unbind()

    @cached_property
    def _law(self) -> Tensor:
        """Return V at each time, `(N + 1, C)`; where V is 0, return a tiny number."""
        law = self.alpha[:, None] ** 2 * self.variances + self.sigma[:, None] ** 2
        return law.clamp(min=1e-300)

    @cached_property
    def _scales(self) -> tuple[list[float], tuple[Tensor, ...]]:
        return self.sigma.tolist(), self.coefficients(self.sigma[:, None] / self._law)

    @cached_property
    def _alpha(self) -> list[float]:
        return self.alpha.tolist()


def frame_of(gaussian: Moments, sde: SDE, times: Tensor, like: Tensor) -> Frame:
    """Return the coordinates of a Gaussian at every time of a grid.

    Args:
        gaussian: The moments of the Gaussian.
        sde: The process.
        times: The grid `(N + 1,)`.
        like: States `(B, *)` with the event shape, dtype and device to use; B may be 0.

    Raises:
        InvalidValueError: The data would be lost in rounding to the dtype, since alpha is small.
    """
    gaussian.check_event(like)
    alpha, sigma = sde.alpha(times), sde.sigma(times)
    largest = float((sigma.clamp(min=1) / alpha.clamp(min=1e-300)).max())
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
    centre = mean.to(like) if mean.any() else None
    return Frame(variances, alpha, sigma, like, centre, basis)
