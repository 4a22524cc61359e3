r"""Move the start of a run to what the score expects under its condition.

The prior is about the mean $\mu$ of all data, and the law at T about that of the data under their
condition. The two differ by $\alpha_T/\sigma_T$ of the distance of these means in standard
deviations of the noise: nothing where that is 1/1000, and a tenth at 1/10. One evaluation at T
takes the difference away.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from torch import Tensor

from scoresde.checks import quoted
from scoresde.errors import InvalidTypeError
from scoresde.samplers.around import Around
from scoresde.samplers.flow.heun import Heun
from scoresde.samplers.sampler import NoiseLike, Sampler, State
from scoresde.sde import SDE, Condition, Facts, Field, Moments, ReverseSDE, expand

__all__ = ["MeanStart"]


@dataclass(frozen=True)
class MeanStart(Around):
    r"""Move the start to the mean of the data under each condition, for one evaluation.

    That is $D = E[x_0 | x_T = \alpha_T \mu]$, and the start is drawn from
    $N(\alpha_T D,\ \sigma_T^2 + \alpha_T^2 v)$ with the moments $\mu$, $v$ of the data. It matters
    where the condition tells much and the noise at T is not much larger than the data, as under
    `BrownianBridgeSDE`. A start `x=` is taken for a draw of the prior.

    Args:
        sampler: What draws from there.

    Raises:
        InvalidTypeError: The sampler does not begin at the start, or moves it itself.

    Examples:
        >>> import scoresde
        >>> from scoresde.samplers import Heun, MeanStart
        >>> score = scoresde.targets.Gaussian([3.0], std=0.5).at(scoresde.BrownianBridgeSDE())
        >>> x = scoresde.sample(score, sampler=MeanStart(Heun()), n=4, steps=10, seed=0)
    """

    steps: ClassVar[int] = 30
    sampler: Sampler = field(default_factory=Heun)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.sampler.takes_start or isinstance(self.sampler, MeanStart):
            raise InvalidTypeError(
                f"{quoted(self.sampler)} has starts of its own, so that moving them once more is "
                "wrong or in vain; take the sampler alone"
            )

    @property
    def nfe_per_step(self) -> int:
        """Return that of the sampler."""
        return self.sampler.nfe_per_step

    @property
    def stepwise(self) -> bool:
        """Return False: a step alone does not begin at the mean."""
        return False

    @property
    def order(self) -> int | None:
        """Return that of the sampler."""
        return self.sampler.order

    @property
    def stochastic(self) -> bool:
        """Return whether the sampler is."""
        return self.sampler.stochastic

    @property
    def conditions(self) -> tuple[str, ...]:
        """Return those of the sampler."""
        return self.sampler.conditions

    def declared(self, event: tuple[int, ...]) -> Mapping[str, Field]:
        """Return what the sampler declares."""
        return self.sampler.declared(event)

    def checked(self, condition: Condition) -> Condition:
        """Return what the sampler returns."""
        return self.sampler.checked(condition)

    def cost(self, steps: int) -> int:
        """Return that of the sampler, and one evaluation more."""
        return self.sampler.cost(steps) + 1

    def steps_for(self, nfe: int) -> int:
        """Return the steps of the sampler with one evaluation less."""
        return self.sampler.steps_for(max(nfe - 1, 0))

    def prepared(self, facts: Facts, sde: SDE, *, nfe: int | None = None) -> MeanStart:
        """Return it with the sampler set up for a score."""
        nfe = None if nfe is None else max(nfe - 1, 0)
        return replace(self, sampler=self.sampler.prepared(facts, sde, nfe=nfe))

    def times(self, sde: SDE, steps: int | None, moments: Moments | None = None) -> Tensor:
        """Return the sampler's grid."""
        return self.sampler.times(sde, steps, moments)

    def step(self, rsde: ReverseSDE, x: Tensor, t: Tensor, s: Tensor, noise: NoiseLike) -> Tensor:
        """Return what the sampler returns."""
        return self.sampler.step(rsde, x, t, s, noise)

    def trajectory(
        self, rsde: ReverseSDE, x: Tensor, times: Tensor, noise: NoiseLike
    ) -> Iterator[State]:
        """Yield the sampler's states, from a start moved to the mean."""
        known = rsde.moments
        mean = torch.as_tensor(0.0 if known is None else known.mean).to(x).expand_as(x)
        alpha = expand(rsde.sde.alpha(times[0]), x)
        d = rsde.denoise(alpha * mean, times[0])
        yield from self.sampler.trajectory(rsde, x + alpha * (d - mean), times, noise)

    def finish(self, rsde: ReverseSDE, x: Tensor, t: Tensor, noise: NoiseLike) -> Tensor:
        """Return what the sampler returns."""
        return self.sampler.finish(rsde, x, t, noise)
