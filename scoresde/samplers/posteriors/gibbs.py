r"""Alternate draws given the measurement and given the prior (split Gibbs sampling).

Let $z$ be the unknown with the prior p(z), and add an auxiliary variable x near z:

$$ \pi_\rho(x, z) \propto p(y | x)\, N(x; z, \rho^2 I)\, p(z). $$

For $\rho \to 0$ the distribution of z becomes the posterior $p(z)\,p(y | z)$. Both conditional
distributions can be sampled. The distribution of x given z is Gaussian for a linear measurement.
The distribution of z given x is $p(x_0 | x_t = \alpha_t x)$ at the time with
$\sigma_t / \alpha_t = \rho$: a run of the reverse SDE that starts there samples from it (Vono et
al. 2019, arXiv:1804.05809; Coeurdoux et al. 2023, arXiv:2304.11134; Xu & Chi 2024,
arXiv:2403.17042).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import torch
from torch import Tensor

from scoresde.checks import check_integer, check_range, quoted
from scoresde.errors import InvalidTypeError, InvalidValueError
from scoresde.samplers.around import Around
from scoresde.samplers.sampler import NoiseLike, Sampler, State
from scoresde.sde import SDE, Facts, Moments, ReverseSDE, expand
from scoresde.sde.spacings import even_times

__all__ = ["SplitGibbs"]


@dataclass(frozen=True)
class SplitGibbs(Around):
    r"""Alternate draws given the measurement and draws from the prior, coupled by a width $\rho$.

    The score must be a `scoresde.guidance.posterior` of a `Linear` measurement. A run begins with a
    run of the sampler `start` under that score, which gives approximate draws. Then `k`
    alternations follow: first x is drawn given z and the measurement, then z given x under the
    prior. The last z are the samples. Their distribution is the posterior for a measurement with
    the noise variance $\text{std}^2 + \rho^2 A A^T$, so the bias is $O(\rho^2)$. Compare runs with
    $\rho$ and $2 \rho$ to estimate the bias. The chain needs about $(w / \rho)^2$ alternations to
    move by the width $w$ of the posterior.

    Args:
        sampler: The sampler for the draws given the prior. It must use the noise of the reverse
            SDE, as do `Ancestral("moments")`, `EulerMaruyama()` or `TwoStage(tau=1.0)`, without a
            corrector.
        rho: $\rho$, in model units, between the noise levels $\sigma / \alpha$ at eps and at T. On
            a ladder the nearest level is used.
        k: The number of alternations, at least 0.
        start: The sampler of the first run; by default `sampler`. A few alternations do not correct
            how many samples are in each of several separate modes. `Particles()` as `start` gives
            the modes the right shares from the beginning.

    Raises:
        InvalidTypeError: The sampler does not use the noise of the reverse SDE, or the score is not
            a posterior of a `Linear` measurement.
        InvalidValueError: A number is out of range, or the times of a run end above the noise rho.

    Examples:
        >>> import scoresde, torch
        >>> from scoresde.guidance import Linear, posterior
        >>> from scoresde.samplers import Ancestral, SplitGibbs
        >>> prior = scoresde.targets.Gaussian([0.0, 0.0], cov=[[1.0, 0.9], [0.9, 1.0]])
        >>> score = posterior(prior.at(scoresde.VPSDE()), Linear(torch.tensor([[1.0, 0.0]]), 0.5))
        >>> method = SplitGibbs(Ancestral(), rho=0.2, k=5)
        >>> given = {"measurement": [1.5]}
        >>> x = scoresde.sample(score, None, method, n=4, steps=50, seed=0, condition=given)
    """

    steps: ClassVar[int] = 200
    rho: float
    k: int = 30
    start: Sampler | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("rho", self.rho, "(0, inf)")
        check_integer("k", self.k, 0)
        if not self.sampler.stepwise:
            raise InvalidTypeError(
                f"{quoted(self.sampler)} does more than take steps along a grid, so it cannot draw "
                "the data given a state with noise rho; take its inner sampler, such as "
                "Ancestral()"
            )
        if not self.sampler.stochastic:
            raise InvalidTypeError(
                f"{quoted(self.sampler)} adds no noise, so it cannot draw the data given a noisy "
                "state; take a sampler of the reverse SDE, such as Ancestral('moments')"
            )
        if not self.sampler.conditional:
            raise InvalidTypeError(
                f"{quoted(self.sampler)} does not use the noise of the reverse SDE, because of "
                "eta, tau, a window or a corrector, so its draws given a noisy state have a wrong "
                "distribution; take a sampler of the reverse SDE, such as Ancestral('moments')"
            )

    @property
    def first(self) -> Sampler:
        """Return the sampler of the first run."""
        return self.sampler if self.start is None else self.start

    @property
    def nfe_per_step(self) -> int:
        """Return an upper bound: the evaluations of 1 + k whole runs for each step."""
        return self.first.nfe_per_step + self.k * self.sampler.nfe_per_step

    @property
    def stepwise(self) -> bool:
        """Return False, since a single step does not alternate."""
        return False

    @property
    def order(self) -> None:
        """Return None, since the bias does not vanish for small steps."""
        return None

    def cost(self, steps: int) -> int:
        """Return an upper bound of the evaluations, those of `1 + k` whole runs."""
        return self.first.cost(steps) + self.k * self.sampler.cost(steps)

    def states(self, steps: int) -> int:
        """Return the number of states of the first run, plus one for each alternation."""
        return self.first.states(steps) + self.k

    @property
    def takes_start(self) -> bool:
        """Return the value of the sampler of the first run."""
        return self.first.takes_start

    @property
    def between(self) -> bool:
        """Return True if one of the two samplers evaluates the score between times of the grid."""
        return self.sampler.between or self.first.between

    def prepared(self, facts: Facts, sde: SDE, *, nfe: int | None = None) -> Self:
        """Check rho, and return this sampler with the inner samplers prepared."""
        ends = torch.tensor([sde.eps, sde.T], dtype=torch.float64)
        low, high = (sde.sigma(ends) / sde.alpha(ends)).tolist()
        if not low < self.rho <= high:
            raise InvalidValueError(
                f"rho must lie between the noise levels sigma / alpha of the process, {low:.4g} to "
                f"{high:.4g}, got {self.rho}"
            )
        start = None if self.start is None else self.start.prepared(facts, sde)
        return replace(super().prepared(facts, sde), start=start)

    def times(self, sde: SDE, steps: int | None, moments: Moments | None = None) -> Tensor:
        """Return a grid even in log-SNR, so that there are steps below rho."""
        return even_times(sde, steps)

    def trajectory(
        self, rsde: ReverseSDE, x: Tensor, times: Tensor, noise: NoiseLike
    ) -> Iterator[State]:
        """Yield the states of the first run, and then the state after each alternation."""
        prior, below = self.prior(rsde), self.prior_times(rsde.sde, times)
        if len(below) < 2:
            raise InvalidValueError(
                f"the times end at {float(times[-1]):.4g}, where the noise is not below rho = "
                f"{self.rho}; let them end at a smaller time, or give a larger rho"
            )
        for state in self.first.trajectory(rsde, x, times, noise.fork(0)):
            x = state.x
            yield state
        for j in range(self.k):
            x = self.alternated(rsde, prior, x, below, noise.fork(1 + j))
            yield State.of(rsde, times[-1], x)

    def prior(self, rsde: ReverseSDE) -> ReverseSDE:
        """Return the reverse SDE of the prior.

        Raises:
            InvalidTypeError: The score is not a posterior.
        """
        prior = rsde.attribute("prior")
        if prior is None:
            raise InvalidTypeError(
                "SplitGibbs needs a posterior; give guidance.posterior(score, Linear(A, std)) as "
                "the score, without another score around it"
            )
        score, name = prior
        return rsde.under(score, withheld=(name,))

    def prior_times(self, sde: SDE, times: Tensor) -> Tensor:
        r"""Return the times of a draw given the prior: the part of the grid below noise $\rho$."""
        log_snr = torch.tensor(-2 * math.log(self.rho), dtype=torch.float64)
        first = sde.time(log_snr).clamp(sde.eps, sde.T)
        if sde.levels is not None:
            first = sde.times().flip(0)[sde.index(first).clamp(min=1)]
        return torch.cat([first[None], times[times < first - 1e-9 * sde.T]])

    def alternated(
        self, rsde: ReverseSDE, prior: ReverseSDE, x: Tensor, below: Tensor, noise: NoiseLike
    ) -> Tensor:
        """Return the next state of the chain, at the last time in `below`.

        Args:
            rsde: The reverse SDE of the posterior.
            prior: The reverse SDE of the prior.
            x: The state at the last time.
            below: The times of a draw given the prior.
            noise: The source of randomness.
        """
        sde = rsde.sde
        rho = float(sde.sigma(below[0]) / sde.alpha(below[0]))
        centre = x / expand(sde.alpha(below[-1]), x)
        draw = rsde.attribute("refreshed")
        assert draw is not None
        near, residual = draw(centre, rho, noise.fork(0), rsde.condition)
        rsde.report("residual", residual)
        x = expand(sde.alpha(below[0]), x) * near
        for state in self.sampler.trajectory(prior, x, below, noise.fork(1)):
            x = state.x
        return x
