r"""`"fast"` beside the samplers of other libraries on learned models: digits, and colour patches.

The digits are the packaged model. The other network is trained here, for some minutes of one core
as `scoresde train` does it, on 32x32 patches of the left three quarters of a photograph. Peers,
errors and tables are those of `densities.py`; the reference is Runge-Kutta's method of order four.

    pip install 'scoresde[peers,test]' && pip install --no-deps k-diffusion
    python examples/benchmarks/learned.py              # ten minutes
    python examples/benchmarks/learned.py --short      # does it run?
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import densities
import torch
import tyro
from networks import recipe_of
from problems import PROBLEMS
from recipes import trained
from torch import Tensor
from unets import NETWORKS

from scoresde.arena import Problem
from scoresde.arena.problems import digits
from scoresde.arena.reference import RungeKutta4


@dataclass(frozen=True)
class Options:
    """What to run."""

    seconds: float = 180.0
    """Seconds of one core for the training."""
    n: int = 30
    """Starts, of which the first third chooses among the peers."""
    evaluations: int = 400
    """Evaluations of the reference."""
    short: bool = False
    """A few steps of training, few starts."""


def colour(options: Options) -> Problem:
    """Return the problem of a network that is trained on colour patches."""
    data, _ = PROBLEMS["patches"](True, options.short)
    recipe = recipe_of(NETWORKS["default"], "muon")
    model, steps, _ = trained(recipe, "patches", data, options.seconds, 0)
    print(f"colour patches: {steps} steps of training", flush=True)
    known = model.eval().requires_grad_(False)
    assert known.moments is not None

    def score(x: Tensor, t: Tensor) -> Tensor:
        """Return the score of the model, without its facts."""
        return known(x, t)

    name, flow = f"patches/{type(known.sde).__name__}", RungeKutta4(options.evaluations // 4)
    return Problem(
        name, score, known.sde, known.event_shape, known.moments, flow=flow, dtype=torch.float32
    )


def main(options: Options) -> None:
    """Print the tables of both models."""
    settings = densities.Options(n=options.n, budgets=(5, 10, 20))
    if options.short:
        options = replace(options, seconds=1.0, evaluations=40)
        settings = replace(settings, n=6, budgets=(5,), resamples=20)
    for problem in (digits(options.evaluations), colour(options)):
        densities.report(problem.name, (problem,), settings)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
