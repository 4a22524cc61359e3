r"""Compare posteriors of linear measurements with those of azula and deepinv, and with exact ones.

There are two priors with exact scores over fields of 8 x 8 pixels, a correlated Gaussian and a
mixture, and three operators. All methods have the same denoiser and the same noise schedule
($\sigma$ from .02 to 30). The cost of a sample is counted in forward equivalents: a forward pass of
the network is 1, and a backward pass is 2. Seconds are processor time. `fields` describes what a
method knows about the prior.

For the Gaussian the error is the root mean square error of the means and standard deviations of the
pixels, in exact standard deviations; for exact draws it is sqrt(1.5 / n). For the mixture it is the
total variation of the modes' weights, about sqrt(.25 / n) for exact draws. A second figure is the
energy distance. The ratios are the error of one of our methods, `CHOSEN`, over the error of the
peer, with the paired 95 % interval over measurements; smaller errors are replaced by that of exact
draws.

The first tables are at equal cost. The next tables have the cost of an equal error for the
Gaussian. Every method runs at the `BUDGETS`, and the cost at which its error falls to `ERROR` is
interpolated between two budgets, in logarithms.

    pip install azula deepinv
    python examples/benchmarks/inverse.py            # an hour on one core
    python examples/benchmarks/inverse.py --short    # seconds
"""

from __future__ import annotations

import math
import statistics
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec

import torch
import tyro
from fields import EVENT, OURS, Problem, Truth, operators, priors, problem
from peers import PEERS
from scipy.stats import t as student
from torch import Tensor

import scoresde
from scoresde.guidance import Linear, posterior
from scoresde.samplers import Ancestral, Particles
from scoresde.targets import GaussianMixture

# Our methods that are compared with the peers, as the page recommends them.
CHOSEN = {"field": ("mmps, 3",), "mixture": ("Particles(4)", "Particles(4), SplitGibbs")}
CHEAP = ("mmps, 1, cov., multistep", "mmps, 3, multistep")
# The numbers of passes between which the cost of an error is interpolated, and the error.
BUDGETS = (16, 24, 36, 54, 80, 120)
ERROR = 0.12

Method = Callable[[Problem], Tensor]


@dataclass(frozen=True)
class Options:
    """Choose what to run."""

    n: int = 200
    """Samples of each posterior."""
    measurements: int = 24
    """Measurements of each operator."""
    budget: int = 240
    """Forward equivalents for each sample."""
    only: str = ""
    """Run the methods alone whose names have this in them, and those that peers are compared to."""
    parts: tuple[str, ...] = ("field", "mixture", "cost", "particles")
    """Which tables."""
    short: bool = False
    """One measurement, few samples and steps."""


@dataclass(frozen=True)
class Tried:
    """Hold the errors and the cost of a method on one measurement."""

    error: float
    energy: float
    passes: float
    seconds: float


def tried(method: Method, at: Problem, truth: Truth) -> Tried:
    """Run a method on a measurement."""
    at.prior.count.passes = 0
    torch.manual_seed(at.seed)
    start = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = method(at).detach().double().reshape(-1, *EVENT)
    seconds, passes = time.process_time() - start, at.prior.count.passes / at.n
    if not found.isfinite().all() or found.abs().max() > 1e4:
        found = torch.full_like(found, 1e4)  # the method diverged
    return Tried(truth.error(found), truth.energy(found), passes, seconds)


def methods(options: Options, always: Sequence[str]) -> dict[str, Method]:
    """Return our methods and those of the installed libraries, by name."""
    found = {f"ours: {k}": v for k, v in OURS.items()}
    for library, theirs in PEERS.items():
        if find_spec(library):
            found |= {f"{library}: {k}": v for k, v in theirs.items()}
    kept = {f"ours: {name}" for name in always}
    return {k: v for k, v in found.items() if options.only.lower() in k.lower() or k in kept}


def interval(logs: Sequence[float]) -> str:
    """Return the geometric mean of paired ratios with a 95 % interval, from their logarithms."""
    mean, n = statistics.fmean(logs), len(logs)
    if n == 1:
        return f"{math.exp(mean):.2f}"
    half = float(student.ppf(0.975, n - 1)) * statistics.stdev(logs) / n**0.5
    ends = (f"{math.exp(mean + sign * half):.2f}" for sign in (-1, 1))
    return f"{math.exp(mean):.2f} ({' to '.join(ends)})"


def compare(name: str, operator: str, options: Options) -> None:
    """Run all methods on the measurements of one operator and print a table."""
    ours = methods(options, CHOSEN[name])
    rows: dict[str, list[Tried]] = {k: [] for k in ours}
    least = []
    for i in range(options.measurements):
        truth = Truth(problem(name, operator, i, options.n, options.budget))
        least.append(truth.least)
        for k, method in ours.items():
            at = problem(name, operator, i, options.n, options.budget)
            rows[k].append(tried(method, at, truth))
    print(f"\n{name}, {operator}: error, energy distance, passes, seconds")
    for k, row in rows.items():
        columns = zip(*((r.error, r.energy, r.passes, r.seconds) for r in row), strict=True)
        means = [statistics.fmean(column) for column in columns]
        line = f"{k:31} {means[0]:7.3f} {means[1]:8.4f} {means[2]:6.0f} {means[3]:6.2f}"
        for chosen in () if k.startswith("ours") else CHOSEN[name]:
            both = zip(rows[f"ours: {chosen}"], row, least, strict=True)
            logs = [
                (_log_ratio(a.error, b.error, low[0]), _log_ratio(a.energy, b.energy, low[1]))
                for a, b, low in both
            ]
            parts = [interval(part) for part in zip(*logs, strict=True)]
            line += f"\n    {chosen} to it: {parts[0]}, energy {parts[1]}"
        print(line, flush=True)


def _log_ratio(a: float, b: float, least: float) -> float:
    return math.log(max(a, least) / max(b, least))


# The cost of an error


def cost(method: Method, operator: str, i: int, options: Options) -> tuple[float, float]:
    """Return the passes and seconds at which the error falls to `ERROR`, or infinity."""
    budgets, least = (BUDGETS[:3], 0.5) if options.short else (BUDGETS, ERROR)
    truth = Truth(problem("field", operator, i, options.n, budgets[-1]))
    later = None
    for budget in budgets[::-1]:
        found = tried(method, problem("field", operator, i, options.n, budget), truth)
        if found.error > least:
            return (math.inf, math.inf) if later is None else _between(found, later, least)
        later = found
    assert later is not None
    return later.passes, later.seconds


def _between(a: Tried, b: Tried, least: float) -> tuple[float, float]:
    """Interpolate the passes and seconds of two runs to the error `least`."""
    share = math.log(a.error / least) / math.log(a.error / b.error)
    return a.passes * (b.passes / a.passes) ** share, a.seconds * (b.seconds / a.seconds) ** share


def costs(operator: str, options: Options) -> None:
    """Print what an equal error costs, and the ratios of our costs to those of the peers."""
    found = {
        k: [cost(method, operator, i, options) for i in range(options.measurements)]
        for k, method in methods(options, CHEAP).items()
        if not k.startswith("ours") or "mmps" in k
    }
    print(f"\nfield, {operator}: passes and seconds to an error of {ERROR}")
    for k, row in found.items():
        reached = [pair for pair in row if pair[0] < math.inf]
        line = f"{k:31} reached by {len(reached)} of {len(row)}"
        if reached:
            passes, seconds = (statistics.geometric_mean(v) for v in zip(*reached, strict=True))
            line += f", passes {passes:4.0f}, seconds {seconds:.3f}"
        for name in CHEAP if not k.startswith("ours") else ():
            both = list(zip(found[f"ours: {name}"], row, strict=True))
            if max(cost[0] for pair in both for cost in pair) < math.inf:
                passes, seconds = (
                    interval([math.log(ours[j] / peer[j]) for ours, peer in both]) for j in (0, 1)
                )
                line += f"\n    {name} to it: passes {passes}, seconds {seconds}"
        print(line, flush=True)


# Particles


def particles(options: Options) -> None:
    """Print the bias of particles at 1, 4, 16 and 64 of them: law 71."""
    modes = GaussianMixture([0.5, 0.5], [[2.0, 1.0], [-2.0, -1.0]], stds=[0.6, 0.3])
    a, y = torch.tensor([[1.0, 0.5]]), [0.8]
    right = float(modes.posterior(a, 1.5, y).weights[0])
    n, steps = (50, 10) if options.short else (8_000, 160)
    score = posterior(modes.at(scoresde.VPSDE()), Linear(a, 1.5))
    print(f"\nthe weight of a mode by particles in {steps} steps, exact {right:.3f}")
    for k in (1, 4, 16) if options.short else (1, 4, 16, 64):
        method = Particles(k=k) if k > 1 else Ancestral("moments")
        x = scoresde.sample(
            score, sampler=method, steps=steps, n=n, batch_size=2000, seed=0, progress=False,
            condition={"measurement": y},
        )  # fmt: skip
        share = float((modes.assign(x) == 0).double().mean())
        bar = 1.96 * math.sqrt(share * (1 - share) / n)
        print(f"k = {k:2}: {share:.4f} ± {bar:.4f}, off by {share - right:+.4f}", flush=True)


def main(options: Options) -> None:
    """Compare on every prior and operator."""
    torch.set_num_threads(1)
    if options.short:
        options = replace(options, n=20, measurements=1, budget=60)
    for name in priors():
        for operator in operators() if name in options.parts else ():
            compare(name, operator, options)
    if "cost" in options.parts:
        for operator in operators():
            costs(operator, replace(options, n=5 * options.n))
    if "particles" in options.parts and not options.only:
        particles(options)


if __name__ == "__main__":
    main(tyro.cli(Options))
