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
from problems import PROBLEMS
from recipes import trained

from scoresde import ScoreModel, suggest
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
    found = suggest(data).adapted(rule="muon")
    recipe = (
        found.net.build(data.event_shape, data.kinds),
        found.sde(),
        found.loss(),
        found.config,
    )
    model: ScoreModel
    model, steps, _ = trained(lambda *_: recipe, "patches", data, options.seconds, 0)
    print(f"colour patches: {steps} steps of training", flush=True)
    model = model.eval().requires_grad_(False)
    moments = model.moments
    assert moments is not None
    return Problem(
        f"patches/{type(model.sde).__name__}", lambda x, t: model(x, t), model.sde, model.event_shape, moments,
        flow=RungeKutta4(max(options.evaluations // 4, 1)), dtype=torch.float32,
    )  # fmt: skip


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
