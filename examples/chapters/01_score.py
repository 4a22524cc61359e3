"""Chapter 1. The score needs no normaliser.

The score of a density p = exp(-E) / Z does not depend on Z. In the plane Z can be computed on a
grid; in twenty dimensions a grid is too large, and 100,000 random points miss the modes.

    python examples/chapters/01_score.py --out figures
"""

from __future__ import annotations

import math

import torch
import tyro
from common import Options, seeded, three_modes
from panels import BLUE, RED, arrows, grid, level_line, panels, save, shade

from scoresde import EnergyScore
from scoresde.targets import GaussianMixture


def main(options: Options) -> None:
    target = three_modes()

    # the same density with any factor: another energy, another Z, one score
    x = target.sample(1000, generator=seeded(0), dtype=torch.float64)
    fine = grid(7, 400).double()
    cell = (14 / 399) ** 2
    print("factor     Z by quadrature   largest change of the score")
    for c in (0.0, 3.0, -20.0, 100.0):
        energy = lambda x, t, c=c: c - target.log_prob(x)  # noqa: E731
        score = EnergyScore(energy)
        z = (-energy(fine, None)).exp().sum() * cell
        change = (score(x, torch.zeros(len(x))) - target.score(x)).abs().max()
        print(f"e^{-c:<8.0f} {z:<17.6g} {change:.1e}")
        assert math.isclose(float(z), math.exp(-c), rel_tol=1e-6)
        assert change < 1e-9

    # Z of a d-dimensional mixture from random points of a wide box, its true value being 1
    n, repeats = (2_000, 10) if options.short else (100_000, 20)
    dims, errors = (1, 2, 3, 5, 8, 12, 20), []
    print("dimensions   error of Z from random points   a grid of 50 points a side needs")
    for d in dims:
        # two modes at the ends of the diagonal of a box of half-width 5
        ends = torch.full((2, d), 2.0) * torch.tensor([[1.0], [-1.0]])
        spread = GaussianMixture([0.6, 0.4], ends, stds=0.7)
        g = seeded(d)
        z = torch.stack(
            [
                (spread.log_prob(10 * torch.rand(n, d, generator=g) - 5) + d * math.log(10)).exp()
                .mean()
                for _ in range(repeats)
            ]
        )  # fmt: skip
        errors.append(float((z - 1).pow(2).mean().sqrt()))
        print(f"{d:10d}   {errors[-1]:8.3f}   {50.0**d:30.1e}")
    assert errors[1] < 0.1 < 0.9 < errors[-1]

    figure, axes = panels(2, size=(5.0, 4.4))
    points = grid(4.2)
    shade(axes[0], target.log_prob(points).exp(), 4.2, vmax=0.3)
    s = target.score(grid(3.9, 19))
    s = s / (1 + s.norm(dim=1, keepdim=True))  # long ones are shortened, so that all can be seen
    arrows(axes[0], grid(3.9, 19), s, RED, scale=26)
    axes[0].set_title("density, and its score: uphill everywhere")
    axes[1].plot(dims, errors, "o-", color=BLUE)
    axes[1].set(
        xlabel="dimensions", ylabel=f"relative error of Z from {n:,} points", yscale="log",
        xticks=dims, title="the normaliser is lost; the score is exact",
    )  # fmt: skip
    level_line(axes[1], 1, "as wrong as the answer 0")
    save(figure, options, "01_score.png")


if __name__ == "__main__":
    main(tyro.cli(Options))
