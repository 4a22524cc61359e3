r"""Predictor-corrector sampling: a step down in time, then steps that repair its error."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar

from torch import Tensor

from scoresde.errors import InvalidValueError
from scoresde.samplers.base import NoiseLike, Sampler, check_part
from scoresde.samplers.flow import DDIM
from scoresde.samplers.langevin import Langevin, carry, correct
from scoresde.samplers.levels import even_times
from scoresde.sde import SDE, Moments, ReverseSDE

__all__ = ["PC"]


@dataclass(frozen=True)
class PC(Sampler):
    r"""A predictor from t to s, then `k` corrector steps at s: 1 + k evaluations.

    Song et al. (2021), algorithm 1, arXiv:2011.13456. The predictor's `step` is called, so a
    multistep method is first order here.

    By default the predictor is Euler's step on the probability flow and all the noise is the
    corrector's, on a grid that is even in log-SNR, as the corrector's step $2 r^2 \sigma^2$ wants
    it. On Gaussians from .15 to 1 wide the variance is then right to 1 % from 100 steps on, under
    VE and VP; with reverse diffusion and $r$ = .16, the paper's choice for VE, it is 5 % too large
    at 100 steps and right to 1 % at 300.

    Args:
        predictor: Any sampler; `None` scales the state as the signal is, by $\alpha_s / \alpha_t$,
            and leaves the rest to the corrector.
        corrector: Any sampler that reads its last time only.
        k: Corrector steps after each predictor step, at least 0.
    """

    steps: ClassVar[int] = 500
    predictor: Sampler | None = field(default_factory=DDIM)
    corrector: Sampler = field(default_factory=lambda: Langevin(0.2))
    k: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.predictor is not None:
            check_part("PC", self.predictor)
        check_part("PC", self.corrector)
        if self.k < 0:
            raise InvalidValueError(f"k must be at least 0, got {self.k}")
        if self.predictor is None and self.k == 0:
            raise InvalidValueError("PC without a predictor needs k >= 1 corrector steps")

    @property
    def nfe_per_step(self) -> int:  # type: ignore[override]  # the class attribute of most samplers
        """The predictor's evaluations and k of the corrector's."""
        predictor = 0 if self.predictor is None else self.predictor.nfe_per_step
        return predictor + self.k * self.corrector.nfe_per_step

    def suited(self, model: object) -> PC:
        """With both parts set up for the model."""
        predictor = None if self.predictor is None else self.predictor.suited(model)
        return replace(self, predictor=predictor, corrector=self.corrector.suited(model))

    def times(self, sde: SDE, steps: int | None, data: Moments | None = None) -> Tensor:
        """A grid that is even in log-SNR; on a ladder its levels nearest to that."""
        return even_times(sde, steps)

    def step(self, rsde: ReverseSDE, x: Tensor, t: Tensor, s: Tensor, noise: NoiseLike) -> Tensor:
        """A draw of p_t becomes a draw of p_s."""
        if self.predictor is None:
            x = carry(rsde.sde, x, t, s)
        else:
            # a predictor that has correctors inside must not meet the noise of those outside
            own = noise.fork(0) if self.k else noise
            x = self.predictor.step(rsde, x, t, s, own)
        return correct(self.corrector, self.k, rsde, x, s, noise)
