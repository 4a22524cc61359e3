"""Chapter 9. From the ladder to the SDE.

With more levels L the ladder's step converges to the step of the reverse SDE: their means and
variances differ by O(1 / L^2) in a step. One network, trained at all times, is then sampled in
three ways: predictor-corrector, reverse SDE, probability flow.

    python examples/chapters/09_sde.py --out figures
"""

from __future__ import annotations

import math

import torch
import tyro
from common import Options, seeded, step_moments, teach
from panels import BLUE, GOLD, GREY, RED, cloud, curves, grid, save, strip_over_pair, tick

from scoresde import VESDE, sample
from scoresde.metrics import energy_distance
from scoresde.samplers import EulerMaruyama, ReverseDiffusion
from scoresde.targets import Gaussian, TwoMoons


def main(options: Options) -> None:
    # the step of the ladder and the step of the SDE, exactly, at the middle of the ladder
    data, sizes, gaps = Gaussian([0.7], var=0.25), (10, 20, 40, 80, 160, 320, 640), []
    print("levels   difference of one step's mean, variance   its order")
    for levels in sizes:
        sde = VESDE(0.01, 5.0, levels=levels + 1)
        rsde, t = sde.reverse(data.at(sde)), torch.tensor(0.6, dtype=torch.float64)
        # a start off the law of p_t, so that the means differ too
        start = (1.7, 0.25 + float(sde.sigma(t)) ** 2)
        one = step_moments(ReverseDiffusion(), rsde, t, t - 1 / levels, *start)
        two = step_moments(EulerMaruyama(), rsde, t, t - 1 / levels, *start)
        gaps.append([abs(a - b) for a, b in zip(one, two, strict=True)])
        print(f"{levels:6d}   {gaps[-1][0]:.3e}  {gaps[-1][1]:.3e}", end="")
        if len(gaps) > 1:
            order = [math.log2(a / b) for a, b in zip(*gaps[-2:], strict=True)]
            print(f"{'':18s}{order[0]:.2f}  {order[1]:.2f}", end="")
        print()
    assert min(order) > 1.8

    # one network, three samplers
    target, sde = TwoMoons(), VESDE(0.01, 10.0)
    points = target.sample(20_000, generator=seeded(0))
    torch.manual_seed(0)
    model = teach(points, sde, (96, 96, 96), 50 if options.short else 3_000)
    n, budgets = (300, (16, 64)) if options.short else (3_000, (8, 16, 32, 64, 128, 256))
    real, again = (target.sample(n, generator=seeded(k)) for k in (5, 6))
    methods = {"predictor-corrector": "pc", "reverse SDE": "em", "probability flow": "ddim"}
    errors, kept = {}, {}
    floor = energy_distance(again, real)
    print(f"energy distance to {n} real points; between real ones {floor:+.1e}")
    print("NFE                  " + "".join(f"{b:>10d}" for b in budgets))
    for name, sampler in methods.items():
        errors[name] = []
        for nfe in budgets:
            kept[name] = sample(model, sde, sampler, n=n, nfe=nfe, seed=1)
            errors[name].append(energy_distance(kept[name], real))
        print(f"{name:21s}" + "".join(f"{e:10.1e}" for e in errors[name]))
    assert options.short or all(e[-1] < e[0] / 10 for e in errors.values())

    figure, axes = strip_over_pair(3, size=(10.5, 7.2))
    colors, density = (BLUE, RED, GOLD), target.log_prob(grid(1.9)).exp()
    for ax, color, (name, x) in zip(axes, colors, kept.items(), strict=False):
        cloud(ax, density, 1.9, x, f"{name}, {budgets[-1]} NFE", top=2.0, color=color)
    mean, variance = zip(*gaps, strict=True)
    curves(axes[3], sizes, {"mean": mean, "variance": variance})
    slope = [3 * mean[0] * (sizes[0] / s) ** 2 for s in sizes]
    curves(
        axes[3], sizes, {"1 / L²": slope}, (GREY,), ":",
        xscale="log", yscale="log", xlabel="levels L", title="ladder's step − SDE's step",
    )  # fmt: skip
    lines = {name: [max(e, 1e-4) for e in curve] for name, curve in errors.items()}
    curves(
        axes[4], budgets, lines, colors,
        xscale="log", yscale="log", xlabel="evaluations", title="distance to the data",
    )  # fmt: skip
    axes[4].axhspan(8e-5, 5e-4, color=GREY, alpha=0.25, lw=0)
    axes[4].text(budgets[0], 2e-4, "as real points", color=GREY, fontsize=8)
    tick(axes[4], budgets)
    save(figure, options, "09_sde.png")


if __name__ == "__main__":
    main(tyro.cli(Options))
