r"""Predictor-corrector sampling: a step down in time, then steps that repair its error."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar

from torch import Tensor

from scoresde.checks import check_integer, quoted
from scoresde.errors import InvalidTypeError, InvalidValueError
from scoresde.samplers.flow.euler import DDIM
from scoresde.samplers.langevin.langevin import Langevin, carry, correct
from scoresde.samplers.sampler import NoiseLike, Sampler
from scoresde.sde import SDE, Facts, Moments, ReverseSDE
from scoresde.sde.spacings import even_times

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
        if self.k and not self.corrector.invariant:
            raise InvalidTypeError(
                f"{quoted(self.corrector)} is no corrector: at one time it changes the law of the "
                "samples or does nothing; take Langevin(), ScaledLangevin() or MALA()"
            )
        check_integer("k", self.k, 0)
        if self.predictor is None and self.k == 0:
            raise InvalidValueError("PC without a predictor needs k >= 1 corrector steps")

    @property
    def nfe_per_step(self) -> int:
        """Return the predictor's evaluations and k of the corrector's."""
        predictor = 0 if self.predictor is None else self.predictor.nfe_per_step
        return predictor + self.k * self.corrector.nfe_per_step

    @property
    def order(self) -> int | None:
        """The predictor's; None with correctors, whose error stays as the steps get smaller."""
        return None if self.k or self.predictor is None else self.predictor.order

    @property
    def stochastic(self) -> bool:
        """Return whether one of the parts adds noise."""
        return any(part.stochastic for part in self._parts)

    @property
    def adaptive(self) -> bool:
        """Return whether one of the parts is."""
        return any(part.adaptive for part in self._parts)

    @property
    def coupled(self) -> bool:
        """Return whether one of the parts is."""
        return any(part.coupled for part in self._parts)

    @property
    def between(self) -> bool:
        """Return whether one of the parts asks between the times of the grid."""
        return any(part.between for part in self._parts)

    @property
    def invariant(self) -> bool:
        """Return True without a predictor."""
        return self.predictor is None

    @property
    def uses_pilot(self) -> bool:
        """Return whether one of the parts does."""
        return any(part.uses_pilot for part in self._parts)

    @property
    def _parts(self) -> list[Sampler]:
        correctors = [self.corrector] if self.k else []
        return correctors if self.predictor is None else [self.predictor, *correctors]

    def prepared(self, facts: Facts, sde: SDE, *, nfe: int | None = None) -> PC:
        """Return it with both parts set up for a score."""
        predictor = None if self.predictor is None else self.predictor.prepared(facts, sde)
        return replace(self, predictor=predictor, corrector=self.corrector.prepared(facts, sde))

    def times(self, sde: SDE, steps: int | None, moments: Moments | None = None) -> Tensor:
        """A grid that is even in log-SNR; on a ladder its levels nearest to that."""
        return even_times(sde, steps)

    def step(self, rsde: ReverseSDE, x: Tensor, t: Tensor, s: Tensor, noise: NoiseLike) -> Tensor:
        """Return a draw of p_t becomes a draw of p_s."""
        if self.predictor is None:
            x = carry(rsde.sde, x, t, s)
        else:
            # a predictor that has correctors inside must not meet the noise of those outside
            own = noise.fork(0) if self.k else noise
            x = self.predictor.step(rsde, x, t, s, own)
        return correct(self.corrector, self.k, rsde, x, s, noise)
