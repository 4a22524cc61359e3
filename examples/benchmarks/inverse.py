r"""Posteriors of linear measurements beside those of azula and deepinv, against the exact ones.

Two priors with exact scores over fields of 8 x 8 pixels, a correlated Gaussian and a mixture, under
three operators. Every method has one denoiser, one noise schedule ($\sigma$ from .02 to 30) and
about the same budget in forward equivalents for each sample: a pass is 1, and a pass back 2. Of the
prior it knows the score; ours know the variances of the pixels too, as those of a trained model, or
in one row their covariance, which the data would tell. The seconds are the process's own.

The error of a Gaussian is that of means and standard deviations of the pixels, in exact standard
deviations, root mean square; for exact draws it would be sqrt(1.5 / n). That of a mixture is the
error of the modes' weights, in total variation, about sqrt(.25 / n) for exact draws; beside it
stands the energy distance. Ratios are those of the error of one of our methods, `CHOSEN`, to the
peer's, where an error below that of exact draws counts as that, with the paired interval of 95 %
over measurements.

    pip install azula deepinv
    python examples/benchmarks/inverse.py            # five minutes on one core
    python examples/benchmarks/inverse.py --short    # seconds
"""

from __future__ import annotations

import math
import statistics
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.util import find_spec

import torch
import tyro
from peers import PEERS
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
# The noise of the measurements, which leaves several modes of the mixture in doubt.
STD = {"field": 0.2, "mixture": 1.0}


@dataclass(frozen=True)
class Options:
    """What to run."""

    n: int = 200
    """Samples of each posterior."""
    measurements: int = 6
    """Measurements of each operator."""
    budget: int = 240
    """Forward equivalents for each sample."""
    only: str = ""
    """Run the methods alone whose names have this in them, and those that peers are compared to."""
    short: bool = False
    """One measurement, few samples and steps."""


class Count:
    """Forward equivalents so far."""

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
    """The exact score of a target, of which only the variances are known; it counts its passes."""

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
    """A measurement of a draw of a prior."""

    prior: Prior
    scanner: Linear
    y: Tensor
    n: int
    budget: int
    seed: int


def field(length: float) -> Tensor:
    """The covariance of a smooth field over the flattened pixels."""
    axis = torch.arange(float(SIDE), dtype=torch.float64)
    one = torch.exp(-0.5 * ((axis[:, None] - axis) / length) ** 2)
    return torch.kron(one, one) + 1e-2 * torch.eye(SIDE**2, dtype=torch.float64)


def priors() -> dict[str, Target]:
    """A field, and a mixture of four others about means of their own."""
    draw = torch.Generator().manual_seed(0)
    root = torch.linalg.cholesky(field(3.0))
    means = torch.randn(4, SIDE**2, generator=draw, dtype=torch.float64) @ root.T
    covs = torch.stack([0.15 * field(length) for length in (1.0, 1.5, 2.0, 3.0)])
    return {
        "field": Gaussian(torch.zeros(EVENT), cov=field(2.0)),
        "mixture": GaussianMixture([0.4, 0.3, 0.2, 0.1], means.reshape(4, *EVENT), covs),
    }


def operators() -> dict[str, Callable[[Tensor], Tensor]]:
    """What is measured: a tenth of the pixels, means of blocks, and random projections."""
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
            steps = int(problem.budget / (passes + sampler.k * part))
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
    "SplitGibbs(.3, 5)": ours(SplitGibbs(Ancestral(), rho=0.3, k=5)),
}
# Which of them is compared with the peers: what the page recommends.
CHOSEN = {"field": "mmps, 3", "mixture": "Particles(4)"}


# What is measured of them


def error(found: Tensor, target: Target, exact: Target) -> float:
    """How far draws are from the exact posterior."""
    if len(exact.weights) == 1:
        moments, rows = exact.moments(), found.flatten(1)
        std = moments.cov.diagonal().sqrt()
        mean = (rows.mean(0) - moments.mean.flatten()) / std
        return float((mean**2 + (rows.std(0) / std - 1) ** 2).mean().sqrt())
    mode = torch.nn.functional.one_hot(exact.assign(found), len(exact.weights)).double().mean(0)
    right = exact.assign(exact.sample(20_000, generator=torch.Generator().manual_seed(2)).double())
    right = torch.nn.functional.one_hot(right, len(exact.weights)).double().mean(0)
    return float((mode - right).abs().sum() / 2)


def energy(found: Tensor, exact: Target) -> float:
    """The energy distance to as many exact draws, of which the sampling error is taken away."""
    generator = torch.Generator().manual_seed(3)
    x, y = found.flatten(1), exact.sample(len(found), generator=generator).double().flatten(1)
    n = len(x)
    inner = [torch.cdist(v, v).sum() / (n * (n - 1)) for v in (x, y)]
    return float(2 * torch.cdist(x, y).mean() - sum(inner))


@dataclass
class Row:
    """What a method reached on the measurements of one operator."""

    errors: list[float]
    energies: list[float]
    passes: list[float]
    seconds: list[float]


def tried(method: Callable[[Problem], Tensor], problem: Problem, row: Row) -> None:
    """Run a method on a measurement and keep what it reached."""
    prior = problem.prior
    prior.count.passes = 0
    torch.manual_seed(problem.seed)
    start = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = method(problem).detach().double().reshape(-1, *EVENT)
    row.seconds.append(time.process_time() - start)
    row.passes.append(prior.count.passes / problem.n)
    target = prior.target
    exact = target.posterior(problem.scanner.A, problem.scanner.std, problem.y)
    if not found.isfinite().all() or found.abs().max() > 1e4:
        found = torch.full_like(found, 1e4)  # it ran away
    row.errors.append(error(found, target, exact))
    row.energies.append(energy(found, exact))


def ratio(a: list[float], b: list[float], least: float) -> str:
    """The geometric mean of paired ratios of errors, of at least `least`, with its interval."""
    logs = [math.log(max(x, least) / max(y, least)) for x, y in zip(a, b, strict=True)]
    mean = statistics.fmean(logs)
    if len(logs) == 1:
        return f"{math.exp(mean):.2f}"
    half = _STUDENT.get(len(logs), 2.0) * statistics.stdev(logs) / len(logs) ** 0.5
    ends = (f"{math.exp(mean + sign * half):.2f}" for sign in (-1, 1))
    return f"{math.exp(mean):.2f} ({' to '.join(ends)})"


_STUDENT = {2: 12.71, 3: 4.30, 4: 3.18, 5: 2.78, 6: 2.57, 7: 2.45, 8: 2.36, 9: 2.31, 10: 2.26}


def compare(name: str, target: Target, operator: str, options: Options) -> None:
    """Run all methods on the measurements of one operator and print a table."""
    scanner = Linear(operators()[operator], STD[name])
    methods = {f"ours: {k}": v for k, v in OURS.items()}
    for library, theirs in PEERS.items():
        if find_spec(library):
            methods |= {f"{library}: {k}": v for k, v in theirs.items()}
    kept = f"ours: {CHOSEN[name]}"
    methods = {k: v for k, v in methods.items() if options.only.lower() in k.lower() or k == kept}
    rows = {k: Row([], [], [], []) for k in methods}
    for i in range(options.measurements):
        draw = torch.Generator().manual_seed(100 + i)
        x = target.sample(1, generator=draw).double()
        clean = scanner(x)[0]
        y = clean + STD[name] * torch.randn(clean.shape, generator=draw, dtype=torch.float64)
        for k, method in methods.items():
            tried(method, Problem(Prior(target), scanner, y, options.n, options.budget, i), rows[k])
    print(f"\n{name}, {operator}: error, energy distance, passes, seconds")
    least = math.sqrt((1.5 if name == "field" else 0.25) / options.n)
    for k, row in rows.items():
        means = [statistics.fmean(v) for v in (row.errors, row.energies, row.passes, row.seconds)]
        line = f"{k:31} {means[0]:7.3f} {means[1]:8.4f} {means[2]:6.0f} {means[3]:6.2f}"
        if not k.startswith("ours"):
            line += f"   {CHOSEN[name]} to it: {ratio(rows[kept].errors, row.errors, least)}"
        print(line, flush=True)


def particles(options: Options) -> None:
    """Print the bias of particles at 1, 4, 16 and 64 of them: law 71."""
    modes = GaussianMixture([0.5, 0.5], [[2.0, 1.0], [-2.0, -1.0]], stds=[0.6, 0.3])
    a, y = torch.tensor([[1.0, 0.5]]), [0.8]
    right = float(modes.posterior(a, 1.5, y).weights[0])
    n, steps = (50, 10) if options.short else (2000, 160)
    score = posterior(modes.at(scoresde.VPSDE()), Linear(a, 1.5))
    print(f"\nthe weight of a mode by particles in {steps} steps, exact {right:.3f}")
    for k in (1, 4, 16) if options.short else (1, 4, 16, 64):
        method = Particles(k=k) if k > 1 else Ancestral()
        x = scoresde.sample(
            score, sampler=method, steps=steps, n=n, seed=0, progress=False,
            condition={"measurement": y},
        )  # fmt: skip
        share = float((modes.assign(x) == 0).double().mean())
        bar = 1.96 * math.sqrt(share * (1 - share) / n)
        print(f"k = {k:2}: {share:.3f} ± {bar:.3f}", flush=True)


def main(options: Options) -> None:
    """Compare on every prior and operator."""
    torch.set_num_threads(1)
    if options.short:
        options = replace(options, n=20, measurements=1, budget=60)
    for name, target in priors().items():
        for operator in operators():
            compare(name, target, operator, options)
    if not options.only:
        particles(options)


if __name__ == "__main__":
    main(tyro.cli(Options))
