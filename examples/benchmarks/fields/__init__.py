r"""Define priors over fields of 8 x 8 pixels with exact scores, measurements, and our methods.

A method knows the score of its prior and the variances of the pixels, as for a trained model. Rows
with "cov" in their name also know the covariance, which could be estimated from data. A prior
counts the forward equivalents of its calls: a forward pass is 1, and a backward pass is 2.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

import scoresde
from scoresde import Facts, Moments, Wrapped, facts
from scoresde.guidance import Downsample, Linear, Mask, Projection, posterior
from scoresde.samplers import Ancestral, Heun, Particles, Sampler, SplitGibbs, UniPC
from scoresde.targets import Gaussian, GaussianMixture
from scoresde.targets.target import Target

SIDE = 8
EVENT = (1, SIDE, SIDE)
SDE = scoresde.VESDE(0.02, 30.0)
# The noise of the measurements; several modes of the mixture remain possible.
STD = {"field": 0.2, "mixture": 1.0}


class Count:
    """Count forward equivalents."""

    passes = 0


class _Counted(torch.autograd.Function):
    """Return a denoised state unchanged, and count passes back through it."""

    @staticmethod
    def forward(x: Tensor, count: Count) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        ctx.count = inputs[1]

    @staticmethod
    def backward(ctx, g: Tensor):
        ctx.count.passes += 2 * len(g)
        return g, None


class Prior(Wrapped):
    """Evaluate the exact score of a target, and count passes; only the variances are known."""

    def __init__(self, target: Target) -> None:
        super().__init__(target.at(SDE))
        self.target, self.count = target, Count()
        known = target.moments()
        var = known.cov.diagonal().reshape(EVENT)
        self._facts = replace(facts(self.score), moments=Moments(known.mean, var=var))

    @property
    def facts(self) -> Facts:
        """Return the facts, with the variances alone."""
        return self._facts

    def __call__(self, x: Tensor, t: Tensor, condition=None) -> Tensor:
        """Return the score."""
        self.count.passes += len(x)
        return _Counted.apply(self.score(x, t), self.count)

    def denoise(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Return E[x_0 | x] at a noise level."""
        sigma = sigma.reshape(-1)[0].double()
        t = SDE.time(-2 * sigma.log()).clamp(SDE.eps, SDE.T).expand(len(x))
        return x + sigma.to(x) ** 2 * self(x, t)


@dataclass(frozen=True)
class Problem:
    """Hold a measurement of a draw from a prior."""

    prior: Prior
    scanner: Linear
    y: Tensor
    n: int
    budget: int
    seed: int


def field(length: float) -> Tensor:
    """Return the covariance of a smooth field over the flattened pixels."""
    axis = torch.arange(float(SIDE), dtype=torch.float64)
    one = torch.exp(-0.5 * ((axis[:, None] - axis) / length) ** 2)
    return torch.kron(one, one) + 1e-2 * torch.eye(SIDE**2, dtype=torch.float64)


def problem(name: str, operator: str, i: int, n: int, budget: int) -> Problem:
    """Return the i-th measurement of a draw from a prior."""
    target, scanner = priors()[name], Linear(operators()[operator], STD[name])
    draw = torch.Generator().manual_seed(100 + i)
    clean = scanner(target.sample(1, generator=draw).double())[0]
    y = clean + STD[name] * torch.randn(clean.shape, generator=draw, dtype=torch.float64)
    return Problem(Prior(target), scanner, y, n, budget, i)


def priors() -> dict[str, Target]:
    """Return a Gaussian field, and a mixture of four Gaussian fields with different means."""
    draw = torch.Generator().manual_seed(0)
    root = torch.linalg.cholesky(field(3.0))
    means = torch.randn(4, SIDE**2, generator=draw, dtype=torch.float64) @ root.T
    covs = torch.stack([0.15 * field(length) for length in (1.0, 1.5, 2.0, 3.0)])
    return {
        "field": Gaussian(torch.zeros(EVENT), cov=field(2.0)),
        "mixture": GaussianMixture([0.4, 0.3, 0.2, 0.1], means.reshape(4, *EVENT), covs),
    }


def operators() -> dict[str, Callable[[Tensor], Tensor]]:
    """Return the operators: a tenth of the pixels, means of blocks, and random projections."""
    keep = torch.rand(EVENT, generator=torch.Generator().manual_seed(1)) < 0.1
    return {"mask": Mask(keep), "blocks": Downsample(4), "projection": Projection(6)}


# Our methods


def ours(sampler: Sampler, known: bool = False, **how) -> Callable[[Problem], Tensor]:
    """Draw by a sampler under a posterior, in as many steps as the budget allows."""

    def draw(problem: Problem) -> Tensor:
        moments = problem.prior.target.moments() if known else None
        score = posterior(problem.prior, problem.scanner, moments=moments, **how)
        passes = facts(score).passes(torch.ones(()))
        if isinstance(sampler, SplitGibbs):  # after a run, parts of one under the prior alone
            low, high = (float(SDE.sigma(torch.tensor(t))) for t in (SDE.eps, SDE.T))
            part = math.log(sampler.rho / low) / math.log(high / low)
            first = passes * sampler.first.nfe_per_step
            steps = int((problem.budget - 2 * first) / (first + sampler.k * part))
        else:
            steps = sampler.steps_for(problem.budget // passes - 1)
        return scoresde.sample(
            score, sampler=sampler, steps=max(steps, 1), n=problem.n, seed=problem.seed,
            condition={"measurement": problem.y}, dtype=torch.float64, progress=False,
        )  # fmt: skip

    return draw


OURS: dict[str, Callable[[Problem], Tensor]] = {
    "mmps, 1 iteration": ours(Heun(), iterations=1),
    "mmps, 3": ours(Heun(), iterations=3),
    "mmps, 1, covariance": ours(Heun(), known=True, iterations=1),
    "mmps, 3, multistep": ours(UniPC(), iterations=3),
    "mmps, 1, cov., multistep": ours(UniPC(), known=True, iterations=1),
    "pigdm": ours(Heun(), method="pigdm"),
    "dps": ours(Heun(), method="dps"),
    "Particles(4)": ours(Particles(k=4), iterations=1),
    "Particles(4), SplitGibbs": ours(
        SplitGibbs(Ancestral("moments"), rho=0.3, k=5, start=Particles(k=4)), iterations=1
    ),
    "SplitGibbs": ours(SplitGibbs(Ancestral("moments"), rho=0.3, k=5)),
}

# The exact posterior


class Truth:
    """Hold an exact posterior, with which draws are compared."""

    def __init__(self, problem: Problem) -> None:
        scanner = problem.scanner
        self.exact = problem.prior.target.posterior(scanner.A, scanner.std, problem.y)
        self.n = problem.n

    def draws(self, n: int, seed: int) -> Tensor:
        """Return exact draws, `(n, *EVENT)`."""
        draw = torch.Generator().manual_seed(seed)
        return self.exact.sample(n, generator=draw).double()

    def error(self, found: Tensor) -> float:
        """Return the error of means and deviations, or of the weights of a mixture's modes."""
        if len(self.exact.weights) == 1:
            moments, rows = self.exact.moments(), found.flatten(1)
            std = moments.cov.diagonal().sqrt()
            mean = (rows.mean(0) - moments.mean.flatten()) / std
            return float((mean**2 + (rows.std(0) / std - 1) ** 2).mean().sqrt())
        return float((self._shares(found) - self._right).abs().sum() / 2)

    def energy(self, found: Tensor, seed: int = 3) -> float:
        """Return the unbiased estimate of the energy distance to as many exact draws."""
        x, y = found.flatten(1), self.draws(len(found), seed).flatten(1)
        n = len(x)
        inner = [torch.cdist(v, v).sum() / (n * (n - 1)) for v in (x, y)]
        return float(2 * torch.cdist(x, y).mean() - sum(inner))

    @cached_property
    def least(self) -> tuple[float, float]:
        """Return the error and the energy distance of exact draws."""
        error = math.sqrt((1.5 if len(self.exact.weights) == 1 else 0.25) / self.n)
        pairs = [self.energy(self.draws(self.n, 10 + i), 30 + i) for i in range(10)]
        return error, statistics.fmean(map(abs, pairs))

    @cached_property
    def _right(self) -> Tensor:
        return self._shares(self.draws(20_000, 2))

    def _shares(self, x: Tensor) -> Tensor:
        modes = len(self.exact.weights)
        return torch.nn.functional.one_hot(self.exact.assign(x), modes).double().mean(0)
