r"""Convert a score in model units to a score in the user's units, for other libraries.

Let $r = m + c\,x$ be a sample in the user's units, and $x$ the same sample in model units. Then
$\alpha_t m + c\,x_t = \alpha_t r_0 + c\,\sigma_t z$ is a state of a process with the noise scale
$c\,\sigma_t$, and its score is $\nabla\log p_t(x_t) / c$.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from scoresde.errors import InvalidValueError
from scoresde.score import Wrapped
from scoresde.score.scheduled import Scheduled
from scoresde.sde import SDE, Condition, Facts, Moments, Score, facts, process_of
from scoresde.units import Identity

__all__ = ["InUnits", "in_units"]


def in_units(score: Score, units: bool) -> Score:
    """Return the score in the user's units if `units` is True, else the score unchanged.

    Raises:
        InvalidValueError: As in `InUnits`.
    """
    return InUnits(score) if units else score


@dataclass(frozen=True)
class _Schedule:
    """Return the schedule of a process whose noise is multiplied by a factor c."""

    sde: SDE
    scale: float

    def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
        r"""Return $\alpha_t$ and $c\,\sigma_t$."""
        return self.sde.alpha(t), self.scale * self.sde.sigma(t)


class InUnits(Wrapped):
    """Evaluate a score in the user's units.

    Args:
        score: A score whose facts have an SDE, an event shape, and a transform that shifts each
            entry and multiplies all entries by one common scale.

    Attributes:
        sde: The process in the user's units.

    Raises:
        InvalidValueError: The event shape is unknown; or the transform is unknown, the identity, or
            of another form.
    """

    def __init__(self, score: Score) -> None:
        super().__init__(score)
        known = facts(score)
        self.process = process_of(score, None)
        if known.event_shape is None or known.transform is None or known.transform == Identity():
            raise InvalidValueError(
                "the units of this score are not known; leave out units=True, or give transform= "
                "and event_shape= when you make the score"
            )
        # `log_det` raises an error for a decoder, which cannot map samples to model units
        known.transform.log_det(known.event_shape)
        self.shift, self.scale = _affine(known.transform.inverse, known.event_shape)
        self.sde = Scheduled(
            _Schedule(self.process, self.scale), T=self.process.T, eps=self.process.eps,
            levels=self.process.levels,
        )  # fmt: skip

    @property
    def facts(self) -> Facts:
        """Return the facts of the inner score, in the user's units."""
        known = super().facts
        return replace(
            known, sde=self.sde, moments=self._moments(known.moments), transform=None, pilot=None
        )

    def _moments(self, given: Moments | None) -> Moments | None:
        if given is None:
            return None
        mean = self.shift + self.scale * torch.as_tensor(given.mean, device="cpu").double()
        if given.cov is not None:
            return Moments(mean, cov=self.scale**2 * given.cov)
        return Moments(mean, var=self.scale**2 * torch.as_tensor(given.var).double())

    def __call__(self, x: Tensor, t: Tensor, condition: Condition | None = None) -> Tensor:
        """Return the score `(B, *)` of states in the user's units."""
        alpha, _ = self.process.at(self.process.cpu_time(t), x)
        inner = (x - alpha * self.shift.to(x)) / self.scale
        return self.ask(self.score, inner, t, condition) / self.scale


def _affine(
    inverse: Callable[[Tensor], Tensor], event_shape: tuple[int, ...]
) -> tuple[Tensor, float]:
    """Return the shift and the common scale of a transform's inverse.

    Raises:
        InvalidValueError: The inverse is not a shift and one common scale.
    """
    probes = torch.tensor([0.0, 1.0, -2.0], dtype=torch.float64)
    x = probes.reshape(-1, *(1 for _ in event_shape)).expand(-1, *event_shape)
    r = inverse(x)
    if r.shape == x.shape:
        shift, scale = r[0], float((r[1] - r[0]).flatten()[0])
        if torch.allclose(shift + scale * x, r.to(x), rtol=1e-9, atol=1e-9 * abs(scale)):
            return shift, scale
    raise InvalidValueError(
        "the transform of this model is not a shift and one common scale, so noise with the "
        "same std in all entries of a sample has different stds in the user's units; leave out "
        "units=True, and convert the samples by scoresde.facts(score).transform.inverse"
    )
