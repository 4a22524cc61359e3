r"""Correct the samples of a run by Metropolis-adjusted Langevin steps at its last time.

A guided score is not the gradient of $\log p(x_t | y)$ at most times. But at the last time of a run
the density is known up to a constant, if the density of the prior is known:

$$ \pi(x) \propto p_\epsilon(x)\, p(y | x), $$

where $p(y | x_\epsilon)$ is taken from the guidance method, and $x_\epsilon$ is nearly $x_0$. Steps
with Metropolis's acceptance rule leave this distribution unchanged, and converge to it from any
other distribution.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import torch
from torch import Tensor

from scoresde.checks import check_integer, check_range
from scoresde.errors import InvalidTypeError, InvalidValueError
from scoresde.samplers.around import Around
from scoresde.samplers.langevin.metropolis import Local, adjusted
from scoresde.samplers.sampler import NoiseLike, State
from scoresde.sde import SDE, Facts, ReverseSDE, expand

__all__ = ["Metropolis"]


@dataclass(frozen=True)
class Metropolis(Around):
    r"""Run a sampler, and then make Metropolis-adjusted Langevin steps at its last time.

    For a `scoresde.guidance.posterior` the steps converge to the distribution
    $p_\epsilon(x)\,p(y | x)$, and for another score to $p_\epsilon$, whatever the samples of the
    sampler are. The score, or for a posterior the score of the prior, needs a method
    `log_prob(x, t)` with its exact log-density, as exact targets and `EnergyScore` have. The chain
    does not cross regions of low probability, so the weights of separate modes do not change.
    `Samples.info` reports `acceptance`, the share of accepted steps of each sample; about .6 is
    best. The steps are those of `MALA` (Roberts & Tweedie 1996, Bernoulli 2(4)).

    Each step, and the first state, costs one evaluation of the score and one of the density.

    Args:
        sampler: The sampler that is run first.
        width: The standard deviation h of the noise of a step, in model units; the drift is
            $h^2 / 2$ times the score. Choose h near the smallest standard deviation of the
            distribution, and the number of steps above $(w / h)^2$, where w is its largest standard
            deviation.
        k: The number of Metropolis steps, at least 0.

    Raises:
        InvalidTypeError: The score has no density.
        InvalidValueError: A number is out of range, or the run under a posterior does not end at
            eps.

    Examples:
        >>> import scoresde, torch
        >>> from scoresde.guidance import Linear, posterior
        >>> from scoresde.samplers import Heun, Metropolis
        >>> prior = scoresde.targets.TwoMoons()
        >>> score = posterior(prior.at(scoresde.VPSDE()), Linear(torch.tensor([[1.0, 0.0]]), 0.5))
        >>> run = scoresde.Run.of(
        ...     score, sampler=Metropolis(Heun(), width=0.1, k=20), n=3, steps=10, seed=0,
        ...     condition={"measurement": [0.2]},
        ... )
        >>> sorted(run.draw().info)
        ['acceptance', 'residual']
    """

    steps: ClassVar[int] = 30
    width: float = 0.1
    k: int = 100

    conditional = False  # after many steps the samples do not depend on the initial states

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("width", self.width, "(0, inf)")
        check_integer("k", self.k, 0)

    @property
    def stochastic(self) -> bool:
        """Return True."""
        return True

    @property
    def stepwise(self) -> bool:
        """Return False, since the Metropolis steps follow a whole run."""
        return False

    @property
    def order(self) -> None:
        """Return None, since the error also depends on the Metropolis steps."""
        return None

    @property
    def differentiable(self) -> bool:
        """Return False, since accepting a step is discontinuous."""
        return False

    @property
    def cost_of_chain(self) -> int:
        """Return two evaluations for each state of the chain."""
        return 2 * (self.k + 1)

    def cost(self, steps: int) -> int:
        """Return the evaluations of the sampler plus the evaluations of the chain."""
        return self.sampler.cost(steps) + self.cost_of_chain

    def steps_for(self, nfe: int) -> int:
        """Return the steps of the sampler for `nfe` minus the evaluations of the chain."""
        return self.sampler.steps_for(max(nfe - self.cost_of_chain, 0))

    def states(self, steps: int) -> int:
        """Return the number of states of the sampler, plus one for each step of the chain."""
        return self.sampler.states(steps) + self.k

    def prepared(self, facts: Facts, sde: SDE, *, nfe: int | None = None) -> Self:
        """Return this sampler with the inner one set up for a score."""
        nfe = None if nfe is None else max(nfe - self.cost_of_chain, 0)
        return replace(self, sampler=self.sampler.prepared(facts, sde, nfe=nfe))

    def trajectory(
        self, rsde: ReverseSDE, x: Tensor, times: Tensor, noise: NoiseLike
    ) -> Iterator[State]:
        """Yield the states of the sampler, and then the state after each Metropolis step."""
        end = times[-1]
        evaluate = self.law(rsde, end)
        for state in self.sampler.trajectory(rsde, x, times, noise.fork(0)):
            x = state.x
            yield state
        if len(x) == 0:
            yield from (State.of(rsde, end, x) for _ in range(self.k))
            return
        here, chain = evaluate(x), noise.fork(1)
        epsilon = expand(rsde.sde.alpha(end) * self.width, x) ** 2 / 2
        accepted = torch.zeros_like(here.log_density)
        for j in range(self.k):
            step = chain.fork(j)
            z, u = step.normal(x, end), step.normal(here.log_density, end, 1)
            x, here, moved = adjusted(evaluate, x, here, epsilon, z, u)
            accepted = accepted + moved
            yield State.of(rsde, end, x)
        rsde.info["acceptance"] = accepted / max(self.k, 1)

    def law(self, rsde: ReverseSDE, t: Tensor) -> Callable[[Tensor], Local]:
        r"""Return a function that maps states to score and log-density at time t.

        Raises:
            InvalidTypeError: The score has no density.
            InvalidValueError: The score is a posterior, and t is not eps.
        """
        twisted, prior = rsde.method("twisted"), rsde
        if twisted is not None:
            score, name = rsde.attribute("prior")  # type: ignore[misc]
            prior = rsde.under(score, withheld=(name,))
            if t > rsde.sde.eps + 1e-6 * rsde.sde.T:
                raise InvalidValueError(
                    f"the times end at {float(t):.4g}, above eps = {rsde.sde.eps:.4g}, where the "
                    "distribution given the measurement is known only approximately; let the "
                    "times end at eps"
                )
        density = prior.method("log_prob")
        if density is None:
            raise InvalidTypeError(
                "Metropolis needs the density of the "
                f"{'score' if twisted is None else 'prior'}, which has no method log_prob(x, t); "
                "use an EnergyScore or an exact target, or Particles for other priors"
            )

        def evaluate(x: Tensor) -> Local:
            if twisted is None:
                return Local(rsde.score(x, t), density(x, t))
            _, guided, log_likelihood = twisted(x, t)
            return Local(guided, density(x, t) + log_likelihood)

        return evaluate
