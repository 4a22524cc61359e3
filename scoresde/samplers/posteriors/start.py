r"""Move the initial states of a run to the mean of the data given the condition.

The prior is centred at $\alpha_T \mu$, where $\mu$ is the mean of all data. Given a condition, the
states at T are centred at $\alpha_T$ times the mean of the data given the condition. In units of
the noise the two centres differ by $\alpha_T/\sigma_T$ times the distance between the two means.
This is negligible for $\alpha_T/\sigma_T = 1/1000$, but not for 1/10. One evaluation at T removes
the difference.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from torch import Tensor

from scoresde.checks import quoted
from scoresde.errors import InvalidTypeError
from scoresde.samplers.around import Around
from scoresde.samplers.flow.heun import Heun
from scoresde.samplers.sampler import NoiseLike, Sampler, State
from scoresde.sde import SDE, Facts, ReverseSDE, expand

__all__ = ["MeanStart"]


@dataclass(frozen=True)
class MeanStart(Around):
    r"""Start a run at the mean of the data given the condition, with one more evaluation.

    The mean is $D = E[x_0 | x_T = \alpha_T \mu]$. The initial state is drawn from
    $N(\alpha_T D,\ \sigma_T^2 + \alpha_T^2 v)$ where $\mu$ and $v$ are the mean and variance of the
    data. (If they are unknown, $\mu$ is 0 and the variance is that of the prior.) Use it if the
    data given the condition are far from $\mu$, and the noise at T is not much larger than the
    data, as under `BrownianBridgeSDE`. States given as `x=` are treated as draws of the prior, and
    moved too.

    Args:
        sampler: The sampler that starts from the moved states.

    Raises:
        InvalidTypeError: The sampler does not start at the given state, or is a `MeanStart`.

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
                f"{quoted(self.sampler)} chooses its own initial states; use this sampler without "
                "MeanStart"
            )

    @property
    def stepwise(self) -> bool:
        """Return False, since only a whole run starts at the mean."""
        return False

    def cost(self, steps: int) -> int:
        """Return the cost of the inner sampler plus one evaluation."""
        return self.sampler.cost(steps) + 1

    def steps_for(self, nfe: int) -> int:
        """Return the steps of the inner sampler for `nfe` - 1 evaluations."""
        return self.sampler.steps_for(max(nfe - 1, 0))

    def prepared(self, facts: Facts, sde: SDE, *, nfe: int | None = None) -> MeanStart:
        """Return this sampler with the inner one set up for a score."""
        nfe = None if nfe is None else max(nfe - 1, 0)
        return replace(self, sampler=self.sampler.prepared(facts, sde, nfe=nfe))

    def trajectory(
        self, rsde: ReverseSDE, x: Tensor, times: Tensor, noise: NoiseLike
    ) -> Iterator[State]:
        """Yield the inner sampler's states, from an initial state moved to the mean."""
        known = rsde.moments
        mean = torch.as_tensor(0.0 if known is None else known.mean).to(x).expand_as(x)
        alpha = expand(rsde.sde.alpha(times[0]), x)
        d = rsde.denoise(alpha * mean, times[0])
        yield from self.sampler.trajectory(rsde, x + alpha * (d - mean), times, noise)
