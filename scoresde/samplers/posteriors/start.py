r"""Move the start of a run to what the score expects under its condition.

The prior is about the mean $\mu$ of all data, and the law at T about that of the data under their
condition. The two differ by $\alpha_T/\sigma_T$ of the distance of these means in standard
deviations of the noise: nothing where that is 1/1000, and a tenth at 1/10. One evaluation at T
takes the difference away.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from torch import Tensor

from scoresde.samplers.around import Around
from scoresde.samplers.flow.heun import Heun
from scoresde.samplers.sampler import NoiseLike, Sampler, State
from scoresde.sde import SDE, Facts, ReverseSDE, expand

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

    Examples:
        >>> import scoresde
        >>> from scoresde.samplers import Heun, MeanStart
        >>> score = scoresde.targets.Gaussian([3.0], std=0.5).at(scoresde.BrownianBridgeSDE())
        >>> x = scoresde.sample(score, sampler=MeanStart(Heun()), n=4, steps=10, seed=0)
    """

    steps: ClassVar[int] = 30
    sampler: Sampler = field(default_factory=Heun)

    @property
    def stepwise(self) -> bool:
        """Return False: a step alone does not begin at the mean."""
        return False

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

    def trajectory(
        self, rsde: ReverseSDE, x: Tensor, times: Tensor, noise: NoiseLike
    ) -> Iterator[State]:
        """Yield the sampler's states, from a start moved to the mean."""
        known = rsde.moments
        mean = torch.as_tensor(0.0 if known is None else known.mean).to(x).expand_as(x)
        alpha = expand(rsde.sde.alpha(times[0]), x)
        d = rsde.denoise(alpha * mean, times[0])
        yield from self.sampler.trajectory(rsde, x + alpha * (d - mean), times, noise)
