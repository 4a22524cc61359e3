r"""Annealed Langevin dynamics: Langevin steps at every level, from the largest noise down."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from scoresde.errors import InvalidValueError
from scoresde.samplers.base import NoiseLike, Sampler, State
from scoresde.samplers.langevin import ScaledLangevin, correct
from scoresde.sde import ReverseSDE

__all__ = ["AnnealedLangevin"]


@dataclass(frozen=True)
class AnnealedLangevin(Sampler):
    r"""`k` Langevin steps $\epsilon_i = \kappa\,\sigma_i^2$ at every level, the first included.

    The step $c\,\sigma_i^2 / \sigma_\min^2$ of the paper of 2020, with the smallest level
    $\sigma_\min$, is $\kappa = c / \sigma_\min^2$; that of 2019 writes twice the step, so there
    $\kappa$ is half of it.
    Neighbouring levels must overlap, or the walk does not settle: a ladder needs about 28 levels in
    64 dimensions and 105 in 784. Song & Ermon (2019), algorithm 1, arXiv:1907.05600; (2020),
    techniques 2 and 4, arXiv:2006.09011.

    Args:
        kappa: The step in units of the noise's variance, in (0, 2).
        k: Steps at each level, at least 1.
    """

    steps: ClassVar[int] = 200
    kappa: float = 0.5
    k: int = 5

    def __post_init__(self) -> None:
        ScaledLangevin(self.kappa)
        if self.k < 1:
            raise InvalidValueError(f"k must be at least 1, got {self.k}")

    @property
    def nfe_per_step(self) -> int:  # type: ignore[override]  # the class attribute of most samplers
        """The k evaluations of a level."""
        return self.k

    def steps_for(self, nfe: int) -> int:
        """N steps visit N + 1 levels, with k evaluations at each."""
        return max(nfe // self.k - 1, 0)

    def step(self, rsde: ReverseSDE, x: Tensor, t: Tensor, s: Tensor, noise: NoiseLike) -> Tensor:
        """`k` Langevin steps at the level s; t is not read."""
        return correct(ScaledLangevin(self.kappa), self.k, rsde, x, s, noise)

    def trajectory(
        self, rsde: ReverseSDE, x: Tensor, times: Tensor, noise: NoiseLike
    ) -> Iterator[State]:
        """The states after the steps at each of `times`, the first included."""
        for s in times:
            x = self.step(rsde, x, s, s, noise)
            yield State(s, x, None, rsde.nfe)
