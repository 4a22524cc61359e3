r"""Coordinates in which a Gaussian's score is diagonal and every SDE is variance exploding.

$w = Q^T (x/\alpha - \mu)$ with the principal axes $Q$ of the Gaussian. Its denoiser is
$\mu + Q\,\mathrm{diag}(c / (c + \rho^2))\,w$ there, with $\rho = \sigma/\alpha$.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from scoresde.sde import SDE, Moments

__all__ = ["CentredFrame", "Coefficient", "Frame", "frame_of"]

Coefficient = float | Tensor
"""A number, or one for each dimension, ready to multiply a state."""


@dataclass(frozen=True, eq=False)
class Frame:
    r"""The coordinates $y = x / \alpha$ of data prediction, whose Gaussian is a point.

    Attributes:
        alpha: The signal scale at each time of the grid.
        variances: $c$, `(C,)`, float64; C is 1 or the number of dimensions.
        gain: $c / (c + \rho^2)$ at each time.
    """

    alpha: list[float]
    variances: Tensor
    gain: list[Coefficient]

    def enter(self, x: Tensor, i: int) -> Tensor:
        """A state at time i in these coordinates."""
        return x / self.alpha[i]

    def leave(self, w: Tensor, i: int) -> Tensor:
        """The state `(B, *)` at time i of these coordinates."""
        return w * self.alpha[i]

    def turn(self, z: Tensor) -> Tensor:
        """A difference of states, in these axes."""
        return z

    def residual(self, denoised: Tensor, w: Tensor, i: int) -> Tensor:
        """What the denoiser says beyond the Gaussian."""
        return denoised

    def coefficient(self, values: Tensor) -> Coefficient:
        """Values `(C,)` as one coefficient."""
        return float(values)


@dataclass(frozen=True, eq=False)
class CentredFrame(Frame):
    r"""The coordinates of a Gaussian.

    Attributes:
        mean: $\mu$, of the event's shape.
        basis: $Q$, `(D, D)`, or `None` where the axes are those of the event.
        event: The shape of one event.
    """

    mean: Tensor
    basis: Tensor | None
    event: torch.Size

    def enter(self, x: Tensor, i: int) -> Tensor:
        """A state at time i in these coordinates."""
        return self.turn(x / self.alpha[i] - self.mean)

    def leave(self, w: Tensor, i: int) -> Tensor:
        """The state `(B, *)` at time i of these coordinates."""
        if self.basis is not None:
            w = (w @ self.basis.T).reshape(-1, *self.event)
        return self.alpha[i] * (self.mean + w)

    def turn(self, z: Tensor) -> Tensor:
        """A difference of states, in these axes."""
        return z if self.basis is None else z.reshape(len(z), math.prod(self.event)) @ self.basis

    def residual(self, denoised: Tensor, w: Tensor, i: int) -> Tensor:
        """What the denoiser says beyond the Gaussian."""
        return self.turn(denoised - self.mean) - self.gain[i] * w

    def coefficient(self, values: Tensor) -> Coefficient:
        """Values `(C,)` as one coefficient."""
        if len(values) == 1:
            return float(values)
        shape = values.shape if self.basis is not None else self.event
        return values.to(self.mean).reshape(shape)


def frame_of(gaussian: Moments, sde: SDE, times: Tensor, rho: Tensor, like: Tensor) -> Frame:
    """The coordinates of a Gaussian at every time of a grid.

    Args:
        gaussian: Its moments.
        sde: The process.
        times: `(N + 1,)`.
        rho: The noise-to-signal ratios at those times.
        like: A state `(B, *)`, whose event, dtype and device count.
    """
    gaussian.check_event(like)
    alpha = sde.alpha(times).tolist()
    event, basis = like.shape[1:], None
    if gaussian.cov is not None:
        variances, axes = gaussian.principal()
        basis = axes.to(like)
    else:
        variances = torch.as_tensor(gaussian.var, dtype=torch.float64).cpu().reshape(-1)
    mean = torch.as_tensor(gaussian.mean, dtype=torch.float64)
    if not variances.any() and not mean.any():
        return Frame(alpha, variances.new_zeros(1), [0.0] * len(alpha))
    frame = CentredFrame(alpha, variances, [], mean.to(like), basis, event)
    # c = 0 at rho = 0 leaves the gain at 0
    gains = variances / (variances + rho[:, None] ** 2).clamp(min=1e-300)
    frame.gain.extend(frame.coefficient(gain) for gain in gains)
    return frame
