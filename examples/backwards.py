"""Draw samples of two moons by predictor-corrector sampling, with the exact score.

The picture shows the samples at four times of one run, over the arrows of the score.

    python examples/backwards.py --out backwards.png
"""

from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import tyro

import scoresde
from scoresde import plot


@dataclass(frozen=True)
class Options:
    """Choose what to run."""

    out: Path = Path("backwards.png")
    """The picture."""
    short: bool = False
    """A run of seconds."""


def main(options: Options) -> None:
    moons, sde = scoresde.targets.TwoMoons(), scoresde.VESDE(0.01, 10.0)
    score = moons.at(sde)
    n, steps = (60, 20) if options.short else (400, 120)
    states = list(scoresde.trajectory(score, sde, "pc", n=n, steps=steps, seed=0))
    figure, axes = plt.subplots(1, 4, figsize=(12, 3.2), layout="constrained")
    for ax, share in zip(axes, (0.35, 0.55, 0.7, 1.0), strict=True):
        state = states[round(share * steps)]
        sigma = float(sde.sigma(state.t))
        plot.field(score, state.x, float(state.t), arrows=14, title=f"noise σ = {sigma:.2g}", ax=ax)
        ax.set(xlabel="", xticks=[], yticks=[])
    figure.savefig(options.out, dpi=120)
    plt.close(figure)
    print(f"wrote {options.out}")


if __name__ == "__main__":
    main(tyro.cli(Options))
