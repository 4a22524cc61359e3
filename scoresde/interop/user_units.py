r"""Turn a score of a model's numbers into one of the user's, for other libraries.

With $r = m + c\,x$ for the user's numbers $r$ and the model's $x$, the states
$\alpha_t m + c\,x_t = \alpha_t r_0 + c\,\sigma_t z$ are those of a process with the noise scale
$c\,\sigma_t$, and their score is $\nabla\log p_t / c$ at $x_t$.
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
    """Return the score of the user's numbers, or the score itself if `units` is False.

    Raises:
        InvalidValueError: The user's numbers are unknown, or are no shift and one scale of the
            model's.
    """
    return InUnits(score) if units else score


@dataclass(frozen=True)
class _Schedule:
    """Return the schedule of a process whose noise is larger by a factor."""

    sde: SDE
    scale: float

    def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
        r"""Return $\alpha_t$ and $c\,\sigma_t$."""
        return self.sde.alpha(t), self.scale * self.sde.sigma(t)


class InUnits(Wrapped):
    """Return the score of the user's numbers.

    Args:
        score: A score whose facts have an SDE, an event shape and a transform of a shift for each
            number and one scale.

    Attributes:
        sde: The process of the user's numbers.

    Raises:
        InvalidValueError: The transform is unknown, or is another one.
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
        known.transform.log_det(known.event_shape)  # raises for a decoder, which has no inverse
        self.shift, self.scale = _affine(known.transform.inverse, known.event_shape)
        self.sde = Scheduled(
            _Schedule(self.process, self.scale), T=self.process.T, eps=self.process.eps,
            levels=self.process.levels,
        )  # fmt: skip

    @property
    def facts(self) -> Facts:
        """Return the facts of the score inside, in the user's numbers."""
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
        """Return the score `(B, *)` at states of the user's numbers."""
        alpha, _ = self.process.at(self.process.cpu_time(t), x)
        inner = (x - alpha * self.shift.to(x)) / self.scale
        return self.ask(self.score, inner, t, condition) / self.scale


def _affine(
    inverse: Callable[[Tensor], Tensor], event_shape: tuple[int, ...]
) -> tuple[Tensor, float]:
    """Return the shift and the scale of a transform; raise InvalidValueError if it has others."""
    probes = torch.tensor([0.0, 1.0, -2.0], dtype=torch.float64)
    x = probes.reshape(-1, *(1 for _ in event_shape)).expand(-1, *event_shape)
    r = inverse(x)
    if r.shape == x.shape:
        shift, scale = r[0], float((r[1] - r[0]).flatten()[0])
        if torch.allclose(shift + scale * x, r.to(x), rtol=1e-9, atol=1e-9 * abs(scale)):
            return shift, scale
    raise InvalidValueError(
        "the numbers of the user are no shift and one common scale of those of this model, so that "
        "equal noise in the one is no equal noise in the other; leave out units=True, and convert "
        "the samples by scoresde.facts(score).transform.inverse"
    )
