r"""Test which methods for inverse problems have calibrated posteriors.

The priors and operators are those of `fields`: a correlated Gaussian field and a mixture in 64
dimensions. For each data set a field is drawn from the prior and measured, and each method draws
from the posterior of the measurement. `scoresde.metrics.calibrate` tests ranks, coverage and a
distance that depends on y (TARP). A sample costs at most 240 passes, except in rows that say so.

    python examples/benchmarks/inverse_calibration.py            # half an hour on one core
    python examples/benchmarks/inverse_calibration.py --short    # seconds, to see that all runs
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
import tyro
from fields import EVENT, OURS, STD, Prior, Problem, operators, priors
from torch import Tensor

from scoresde.guidance import Linear
from scoresde.metrics import calibrate
from scoresde.targets.target import Target


@dataclass(frozen=True)
class Options:
    """Choose what to test."""

    n: int = 500
    """Data sets."""
    draws: int = 19
    """Draws for each."""
    budget: int = 240
    """Forward equivalents for each draw."""
    only: str = ""
    """Test the methods alone whose names have this in them."""
    problem: str = ""
    """Test on the problems alone whose names have this in them, such as "mixture, mask"."""
    short: bool = False
    """Few data sets and steps, to see that all runs."""


def exact(problem: Problem) -> Tensor:
    """Draw from the exact posterior of each row of y."""
    scanner, target = problem.scanner, problem.prior.target
    draw = torch.Generator().manual_seed(problem.seed)
    kept, rows = {}, []
    for y in problem.y:
        key = tuple(y.flatten().tolist())
        if key not in kept:
            kept[key] = target.posterior(scanner.A, scanner.std, y)
        rows.append(kept[key].sample(1, generator=draw))
    return torch.cat(rows).double()


Method = Callable[[Problem], Tensor]


def longer(method: Method, times: int) -> Method:
    """Return a method with `times` times the budget."""
    return lambda problem: method(replace(problem, budget=times * problem.budget))


def methods(name: str) -> dict[str, Method]:
    """Return the methods that are tested on a prior, by name."""
    found = {"exact draws": exact}
    if name == "field":
        found |= {k: OURS[k] for k in ("mmps, 1, cov., multistep", "mmps, 3, multistep")}
    else:
        found |= {
            "Particles(4), 960 passes": longer(OURS["Particles(4)"], 4),
            "Particles(4)": OURS["Particles(4)"],
            "Particles(4), SplitGibbs": OURS["Particles(4), SplitGibbs"],
            "mmps, 1 iteration": OURS["mmps, 1 iteration"],
        }
    return found | {k: OURS[k] for k in ("pigdm", "dps")}


def rows(name: str, target: Target, operator: str, options: Options) -> Iterator[str]:
    """Yield a line for each method on the measurements of one operator."""
    scanner = Linear(operators()[operator], STD[name])

    def simulate(n: int, seed: int) -> tuple[Tensor, Tensor]:
        draw = torch.Generator().manual_seed(seed)
        x = target.sample(n, generator=draw).double()
        clean = scanner(x)
        return x, clean + STD[name] * torch.randn(clean.shape, generator=draw, dtype=x.dtype)

    def log_likelihood(x: Tensor, y: Tensor) -> Tensor:
        return -(y - scanner(x)).flatten(1).square().sum(1) / (2 * STD[name] ** 2)

    for label, method in methods(name).items():
        if options.only not in label:
            continue

        def draw(y: Tensor, k: int, seed: int, method: Method = method) -> Tensor:
            many = y.repeat_interleave(k, 0)
            at = Problem(Prior(target), scanner, many, len(many), options.budget, seed % 2**32)
            return method(at).double().reshape(len(y), k, *EVENT)

        found = calibrate(
            draw, simulate, n=options.n, draws=options.draws, log_likelihood=log_likelihood,
            rerun=False, batch_size=100, progress=False,
        )  # fmt: skip
        held = [sum(q.coverage[i] for q in found.quantities[:16]) / 16 for i in (0, 1)]
        tests = sum(len(q.p) for q in found.quantities)
        verdict = "calibrated" if found.passed else f"{len(found.alarms)} of {tests} tests fail"
        yield (
            f"| {name}, {operator} | {label} | {held[0]:.3f} | {held[1]:.3f} | {verdict} | "
            f"{found.skill.value:.3f} |"
        )


def main(options: Options) -> None:
    """Test and print."""
    torch.set_num_threads(1)
    if options.short:
        options = replace(options, n=20, draws=3, budget=30)
    print("| problem | method | in 50 % | in 90 % | verdict | skill |\n" + "| --- " * 6 + "|")
    for name, target in priors().items():
        for operator in operators():
            if options.problem not in f"{name}, {operator}":
                continue
            for line in rows(name, target, operator, options):
                print(line, flush=True)


if __name__ == "__main__":
    main(tyro.cli(Options))
