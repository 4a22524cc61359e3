r"""Compare `"fast"` with samplers of other libraries on models of digits and of colour patches.

The model of digits is the packaged one. The other model is trained first, for some minutes on one
core as by `scoresde train`, on 32x32 patches of the left three quarters of a photograph. Peers,
errors and tables are those of `densities.py`; the reference is Runge-Kutta's method of order four.

    pip install 'scoresde[peers,test]' && pip install --no-deps k-diffusion
    python examples/benchmarks/learned.py              # half an hour
    python examples/benchmarks/learned.py --short      # does it run?
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import tyro
from densities import Options as Settings
from densities import report
from networks import recipe_of
from problems import PROBLEMS
from recipes import trained
from unets import NETWORKS

from scoresde import Wrapped
from scoresde.arena import Problem
from scoresde.arena.problems import digits
from scoresde.arena.reference import RungeKutta4
from scoresde.data import Data


@dataclass(frozen=True)
class Options:
    """Choose what to run."""

    seconds: float = 180.0
    """Seconds of one core for the training."""
    n: int = 90
    """Starts, of which the first third chooses among the peers."""
    evaluations: int = 400
    """Evaluations of the reference."""
    short: bool = False
    """A few steps of training, few starts, and small pictures in place of both."""


def colour(options: Options) -> Problem:
    """Return the problem of a network that is trained on colour patches."""
    name = "digits" if options.short else "patches"
    data, _ = PROBLEMS[name](True, options.short)
    data = Data(data.without("label") if "label" in data.kinds else data)
    recipe = recipe_of(NETWORKS["default"], "muon")
    model, steps, _ = trained(recipe, name, data, options.seconds, 0)
    print(f"{name}: {steps} steps of training", flush=True)
    assert model.moments is not None
    return Problem(
        f"{name}/{type(model.sde).__name__}", Wrapped(model.eval()), model.sde, model.event_shape,
        model.moments, flow=RungeKutta4(options.evaluations // 4), dtype=torch.float32,
    )  # fmt: skip


def table(problem: Problem, settings: Settings) -> None:
    """Print the table of one model."""
    report(problem.name, (problem,), settings)


def main(options: Options) -> None:
    """Print the tables of both models."""
    settings = Settings(n=options.n, budgets=(5, 10, 20))
    if options.short:
        options = replace(options, seconds=1.0, evaluations=40)
        settings = replace(settings, n=6, budgets=(5,), resamples=20)
    if not options.short:
        table(digits(options.evaluations), settings)
    table(colour(options), settings)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
