"""Chapter 3. Langevin dynamics: the score alone is enough to draw samples.

From any start, x <- x + eps s(x) + sqrt(2 eps) z converges to the density with the score s. A
finite step has a bias: for a Gaussian of variance v the variance converges to v / (1 - eps / 2v).
On the line the distribution after K steps is computed exactly, and so is its error for any K.

    python examples/chapters/03_langevin.py --out figures
"""

from __future__ import annotations

from itertools import pairwise

import torch
import tyro
from common import Options, seeded
from films import film
from line import table
from panels import BLUE, GOLD, GREEN, GREY, RED, cloud, curves, grid, save, strip_over_pair

from scoresde import EDMSDE
from scoresde.noise import Noise
from scoresde.samplers import FixedLangevin, correct
from scoresde.targets import Gaussian, GaussianMixture


def main(options: Options) -> None:
    sde = EDMSDE()  # at t = 0 it is noiseless: p_0 is the data

    # the bias of the step, measured on N(0, 1)
    n, settle = (4_000, 200) if options.short else (50_000, 400)
    target = Gaussian([0.0], var=1.0)
    sizes = (0.05, 0.1, 0.2, 0.5, 1.0, 1.5)
    measured, bias = [], []
    print("step   variance measured   v / (1 - eps / 2v)")
    for i, eps in enumerate(sizes):
        rsde, noise = sde.reverse(target.at(sde)), Noise.of(10 + i, n)
        x = 3 + torch.zeros(n, 1)
        x = correct(FixedLangevin(eps), min(settle, int(10 / eps)), rsde, x, 0.0, noise)
        measured.append(float(x.var()))
        bias.append(1 / (1 - eps / 2))
        print(f"{eps:4.2f}   {measured[-1]:17.4f}   {bias[-1]:18.4f}")
        # 5 standard errors of a variance, and what is left of the start
        assert abs(measured[-1] / bias[-1] - 1) < 5 * (2 / n) ** 0.5 + 1e-3

    # K to infinity: the error of the law after K steps, for several sizes of the step
    line = GaussianMixture([0.3, 0.7], [[-1.5], [1.5]], stds=0.7)
    counts, found = table(line, (0.4, 0.2, 0.1, 0.05, 0.025), doublings=13)
    left = [error[-1] for error in found.values()]
    assert all(1.8 < a / b < 2.3 for a, b in pairwise(left))  # half the step, half of what is left

    # from any start to the target
    mixture = GaussianMixture([0.5, 0.5], [[-1.0, 0.5], [1.2, -0.6]], stds=0.6)
    rsde, noise = sde.reverse(mixture.at(sde)), Noise.of(1, 600)
    corner = torch.tensor([3.2, 3.2]) + 0.2 * torch.randn(600, 2, generator=torch.Generator())
    frames, x = [corner], corner
    for k in range(60):
        x = correct(FixedLangevin(0.02), 10, rsde, x, 0.0, noise.fork(k))
        frames.append(x)
    own = mixture.sample(9_999, generator=seeded(0))
    print(f"mean log-density of the chains {mixture.log_prob(x).mean():.2f}, ", end="")
    print(f"of the target's own draws {mixture.log_prob(own).mean():.2f}")

    figure, axes = strip_over_pair(4, size=(11.5, 6.4))
    density = mixture.log_prob(grid(4)).exp()
    for ax, k in zip(axes, (0, 2, 8, 60), strict=False):
        cloud(ax, density, 4, frames[k], f"after {10 * k} steps", top=0.35, size=4)
    curve = torch.linspace(0, 1.55, 100)
    axes[4].plot(curve, 1 / (1 - curve / 2), color=BLUE, label="v / (1 − ε / 2v)")
    axes[4].plot(sizes, measured, "o", color=RED, label="measured")
    axes[4].axhline(1, color="grey", lw=1, ls="--")
    axes[4].set(xlabel="step ε", title="variance reached, 1 wanted")
    axes[4].legend(frameon=False)
    curves(
        axes[5], counts, found, (RED, GOLD, GREEN, GREY, BLUE), xscale="log", yscale="log",
        xlabel="steps K", title="error of the law after K steps (total variation)",
    )  # fmt: skip
    save(figure, options, "03_langevin.png")

    shown = range(0, len(frames), 2)
    titles = [f"after {10 * k} steps" for k in shown]
    film(
        options, "03_langevin.gif", density, 4, [frames[k] for k in shown],
        fps=8, titles=titles, hold=2, top=0.35,
    )  # fmt: skip


if __name__ == "__main__":
    main(tyro.cli(Options))
