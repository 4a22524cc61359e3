r"""Weight several trajectories of each sample by a measurement (twisted particle filter).

Each of k particles takes steps of the reverse SDE with the approximate score of the posterior, as
proposals. Weights correct the errors of this score. With the transition densities $p(x_s | x_t)$ of
the prior and $q(x_s | x_t)$ of the proposal, a step from t to s changes the weight to

$$ w_s = w_t\, \frac{p(x_s | x_t)\, \hat p(y | x_s)}{\hat p(y | x_t)\, q(x_s | x_t)}. $$

If the effective sample size is below k / 2, the particles are resampled with their weights as
probabilities. For $k \to \infty$ the samples follow $p(x_\epsilon)\,\hat p(y | x_\epsilon)$, with
the discretised prior, whatever the approximations $\hat p(y | x_t)$ at earlier times are. The mean
weight is an unbiased estimate of $p(y)$ (Wu et al. 2023, algorithm 1, arXiv:2306.17775).
"""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor

from scoresde.checks import check_integer, outside, quoted
from scoresde.errors import InvalidTypeError, InvalidValueError, NonFiniteError
from scoresde.samplers.flow.predictors import Ancestral
from scoresde.samplers.posteriors.weighted import Kernel, ParticleNoise, Weights
from scoresde.samplers.sampler import NoiseLike, Sampler, State
from scoresde.sde import SDE, Facts, Moments, ReverseSDE
from scoresde.sde.spacings import even_times, times_about

__all__ = ["Particles"]

# The estimate of the evidence is not used if the standard deviation of the mean weight, divided by
# the mean weight, is larger than this.
_LARGEST = 0.5
# The bound of the bias, divided by the difference between the two runs. For a method of order 1 the
# bias is about as large as this difference.
_BIAS = 2.0


@dataclass(frozen=True)
class Particles(Sampler):
    r"""Draw each sample as one of `k` particles, with the measurement's weights as probabilities.

    The score must be a `scoresde.guidance.posterior`. The random numbers of a sample's k particles
    come from the stream of the sample, so n, seed and `batch_size` mean the same as for other
    samplers. A run costs k times as many evaluations. `Samples.info` reports `ess`, the smallest
    effective sample size of each sample during the run.

    With `evidence` there is a second run with half of the steps. `Samples.info` then reports
    `log_evidence`, the estimate of $\log p(y)$ from the run with all steps, and
    `log_evidence_error`, the half-width of a 95 % interval. The half-width is twice the difference
    of the two runs, which bounds the bias of the discretisation, plus 1.96 standard deviations of
    the difference. It is infinite if the weights are too unequal. It does not include a mode that
    no particle of either run reaches.

    Each of the `sweeps` replaces the trajectory of each sample by a new draw from k trajectories,
    one of which is the old trajectory (conditional sequential Monte Carlo with ancestor sampling;
    Andrieu et al. 2010, doi:10.1111/j.1467-9868.2009.00736.x; Lindsten et al. 2014,
    arXiv:1401.0604). A sweep leaves the posterior of the discretised model unchanged for any k, and
    costs as much as a run.

    Args:
        sampler: A sampler that adds noise, evaluates the score once a step, and steps along the
            grid, such as `Ancestral()`.
        k: The number of particles of each sample, at least 2.
        sweeps: The number of sweeps, at least 0.
        evidence: Estimate the evidence, by another run with half of the steps.

    Raises:
        InvalidTypeError: The sampler takes other steps, or the score is not a posterior.
        InvalidValueError: A number is too small; `evidence` needs at least two steps.

    Examples:
        >>> import scoresde, torch
        >>> from scoresde.guidance import Linear, posterior
        >>> from scoresde.samplers import Particles
        >>> prior = scoresde.targets.TwoMoons()
        >>> score = posterior(prior.at(scoresde.VPSDE()), Linear(torch.tensor([[1.0, 0.0]]), 0.1))
        >>> run = scoresde.Run.of(
        ...     score, sampler=Particles(k=8, evidence=True), n=3, steps=30, seed=0,
        ...     condition={"measurement": [0.2]},
        ... )
        >>> sorted(run.draw().info)
        ['ess', 'log_evidence', 'log_evidence_error', 'residual']
    """

    steps: ClassVar[int] = 100
    sampler: Sampler = field(default_factory=partial(Ancestral, "moments"))
    k: int = 16
    sweeps: int = 0
    evidence: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_integer("k", self.k, 2)
        check_integer("sweeps", self.sweeps, 0)
        s = self.sampler
        fresh = s.stochastic and not (s.adaptive or s.between or s.invariant)
        if s.nfe_per_step != 1 or not fresh or not s.stepwise or s.conditions:
            raise InvalidTypeError(
                f"Particles needs steps with one evaluation and fresh noise, but {quoted(s)} takes "
                "others; take Ancestral(), EulerMaruyama() or DDIM(1.0)"
            )

    @property
    def nfe_per_step(self) -> int:
        """Return the evaluations per step: one for each particle, in the run and in each sweep."""
        return self.k * (1 + self.sweeps + self.evidence)

    @property
    def stepwise(self) -> bool:
        """Return False, since the particles of a sample are resampled between steps."""
        return False

    @property
    def order(self) -> None:
        """Return None, since the bias of a finite number of particles does not vanish."""
        return None

    @property
    def differentiable(self) -> bool:
        """Return False: resampling is discontinuous."""
        return False

    def cost(self, steps: int) -> int:
        """Return the evaluations at the N + 1 times of N steps, and of a second run if any."""
        half = self.k * (steps // 2 - steps) if self.evidence else 0
        return (steps + 1) * self.nfe_per_step + half

    def steps_for(self, nfe: int) -> int:
        """Return the largest number of steps with at most `nfe` evaluations; 0 if there is none."""
        steps = 2 * max(nfe - self.cost(0), 0) // (self.cost(2) - self.cost(0))
        return steps + (self.cost(steps + 1) <= nfe)

    @property
    def takes_start(self) -> bool:
        """Return False, since each particle starts at a separate draw."""
        return False

    def prepared(self, facts: Facts, sde: SDE, *, nfe: int | None = None) -> Particles:
        """Return this sampler with the inner one prepared for a score."""
        return replace(self, sampler=self.sampler.prepared(facts, sde))

    def times(self, sde: SDE, steps: int | None, moments: Moments | None = None) -> Tensor:
        """Return a grid that is denser where noise and data have the same scale, if it is known.

        There are steps in every part of the log-SNR, since one long step would make the weights
        unequal.
        """
        if moments is None:
            return even_times(sde, steps)
        return times_about(sde, steps, moments.mean_variance() ** 0.5)

    def step(self, rsde: ReverseSDE, x: Tensor, t: Tensor, s: Tensor, noise: NoiseLike) -> Tensor:
        """Return the final states of a run with a single step."""
        (state,) = self.trajectory(rsde, x, torch.stack((t, s)), noise)
        return state.x

    def trajectory(
        self, rsde: ReverseSDE, x: Tensor, times: Tensor, noise: NoiseLike
    ) -> Iterator[State]:
        """Yield the trajectory of one particle of each sample, drawn by the final weights."""
        if rsde.attribute("twisted") is None:
            raise InvalidTypeError(
                "Particles needs a measurement; give guidance.posterior(score, likelihood) as the "
                "score, without another score around it"
            )
        if len(x) == 0:
            yield from (State.of(rsde, s, x) for s in times[1:])
            return
        if self.evidence and len(times) < 3:
            raise InvalidValueError(
                "evidence=True needs a second run with half of the steps; take at least two steps"
            )
        kernel = Kernel(self.sampler, rsde.repeat(self.k))
        path, weights = self._filtered(kernel, x, times, noise.fork(0), None)
        if self.evidence:
            halved = torch.cat([times[:1], times[1:].flip(0)[::2].flip(0)])
            rough = self._filtered(kernel, x, halved, noise.fork(1 + self.sweeps), None)[1]
            rsde.info.update(_evidence(weights, rough))
        rsde.info["ess"] = weights.ess
        for j in range(self.sweeps):
            path = self._filtered(kernel, x, times, noise.fork(1 + j), path)[0]
        for s, state in zip(times[1:], path[1:], strict=True):
            yield State.of(rsde, s, state)

    def _filtered(
        self,
        kernel: Kernel,
        x: Tensor,
        times: Tensor,
        noise: NoiseLike,
        kept: list[Tensor] | None,
    ) -> tuple[list[Tensor], Weights]:
        """Return the trajectory of one particle of each sample, and the last weights.

        Args:
            kernel: The steps of the particles.
            x: The initial state of the first particle of each sample.
            times: The grid.
            noise: The source of randomness.
            kept: A trajectory that the first particle follows, or None.
        """
        k, n = self.k, len(x)
        rows = torch.arange(n, device=x.device)[:, None]
        spread, choice = ParticleNoise(noise.fork(0), k), noise.fork(1)
        swarm = self._start(kernel.rsde, x if kept is None else kept[0], times[0], spread)
        weights = Weights(x, k)
        prior, guided, seen = kernel.twisted(swarm, times[0])
        weights.add(seen)
        states, parents = [swarm], list[Tensor]()
        for i, (t, s) in enumerate(itertools.pairwise(times)):
            low = weights.size() < k / 2
            if kept is None:
                chosen = weights.parents(choice, t)
            else:
                likely = self._ancestor(kernel, weights, seen, swarm, kept[i + 1], t, s, prior)
                first = likely.drawn(choice.fork(0), t, 1)
                chosen = torch.cat([first, weights.drawn(choice, t, k)[:, 1:]], 1)
            chosen = torch.where(low[:, None], chosen, torch.arange(k, device=x.device))
            weights.settle(low, chosen)
            parents.append(chosen)
            take = (chosen + k * rows).flatten()
            swarm, prior, guided, seen = (v[take] for v in (swarm, prior, guided, seen))
            move = kernel.move(
                swarm, t, s, (prior, guided), spread, None if kept is None else kept[i + 1]
            )
            swarm = move.x
            weights.add(move.log_ratio - seen)
            prior, guided, seen = kernel.twisted(swarm, s)
            weights.add(seen)
            states.append(swarm)
        weights.size()
        last = weights.drawn(choice, times[-1], 1)
        if not weights.ess.isfinite().all():
            raise NonFiniteError(
                f"the weights of all particles underflow in {x.dtype}, since this measurement is "
                "extremely improbable under the prior; check its units, or take "
                "dtype=torch.float64"
            )
        if self.evidence:
            constant = kernel.constant(swarm, times[-1]).double().reshape(n, k)[:, 0]
            weights.evidence = weights.evidence + constant
        path, stay = list[Tensor](), torch.arange(k, device=x.device).expand(n, k)
        for state, before in zip(states[::-1], [*parents[::-1], stay], strict=True):
            path.append(state.reshape(n, k, *x.shape[1:])[rows[:, 0], last[:, 0]])
            last = before.gather(1, last)
        return path[::-1], weights

    def _start(self, rsde: ReverseSDE, x: Tensor, t: Tensor, noise: NoiseLike) -> Tensor:
        """Return the particles at the first time; `x` has the first particle of each sample."""
        sde, known = rsde.sde, rsde.moments
        law = sde.prior(known)
        if known is not None and not math.isclose(t, sde.T, rel_tol=1e-6):
            law = known.at(sde.alpha(t), sde.sigma(t))
        like = x[:, None].expand(-1, self.k, *x.shape[1:]).reshape(-1, *x.shape[1:])
        others = law.sample(noise.normal(like, math.inf)).reshape(len(x), self.k, *x.shape[1:])
        return torch.cat([x[:, None], others[:, 1:]], 1).reshape(like.shape)

    def _ancestor(
        self,
        kernel: Kernel,
        weights: Weights,
        seen: Tensor,
        swarm: Tensor,
        to: Tensor,
        t: Tensor,
        s: Tensor,
        prior: Tensor,
    ) -> Weights:
        """Return the weights with which the ancestor of a given state of each sample is drawn."""
        mean, std = kernel.mean(swarm, t, s, prior)
        goal = to.repeat_interleave(self.k, 0)
        gap = ((goal - mean) / std).double().square().reshape(len(goal), -1).sum(1)
        found = Weights(to, self.k)
        found.logs = weights.logs
        found.add(-gap / 2 - seen)
        return found


def _evidence(weights: Weights, rough: Weights) -> dict[str, Tensor]:
    """Return log-evidence and half-width; `rough` is of the run with half of the steps."""
    (fine, std), (coarse, rough_std) = weights.end(), rough.end()
    known = fine.isfinite() & coarse.isfinite()
    if not known.all():
        warnings.warn(
            "log_evidence is infinite: without noise (std = 0) and with linearly dependent rows "
            "of A the measurement has no density",
            UserWarning,
            stacklevel=outside(),
        )
    lost = known & (torch.maximum(std, rough_std) > _LARGEST)
    if lost.any():
        warnings.warn(
            f"log_evidence_error is infinite for {int(lost.sum())} of {len(lost)} samples, since "
            "the weights of their particles are too unequal; take more particles or steps, and "
            "method='mmps' with more iterations",
            UserWarning,
            stacklevel=outside(),
        )
    error = _BIAS * (fine - coarse).abs() + 1.96 * torch.hypot(std, rough_std)
    return {"log_evidence": fine, "log_evidence_error": error.masked_fill(lost | ~known, math.inf)}
