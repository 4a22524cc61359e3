"""Chapter 9. From the ladder to the SDE.

With more levels the ladder's step becomes the step of the reverse SDE: their means and variances
differ by O(1 / L^2) a step. One network, taught at every time, is then sampled in three ways:
predictor-corrector, reverse SDE, probability flow.

    python examples/chapters/09_sde.py --out figures
"""

from __future__ import annotations

import math

import torch
import tyro
from common import BLUE, GOLD, GREY, RED, Options, dots, grid, panels, save, shade, train

import scoresde
from scoresde import VESDE, Moments, ScoreModel, dsm_loss, nn
from scoresde.metrics import energy_distance
from scoresde.samplers import EulerMaruyama, ReverseDiffusion
from scoresde.targets import Gaussian, TwoMoons


class Unit:
    """Noise that is one, or none: it reads the map x' = A x + b + C z off a step."""

    def __init__(self, z: float) -> None:
        self.z = z

    def normal(self, like, t, k=0):
        """The number, as a draw."""
        return torch.full_like(like, self.z)

    def increment(self, like, s, t):
        """The number, as an increment."""
        return torch.full_like(like, self.z)


def moments_after(sampler, rsde, t, s, mean, var):
    """Exact mean and variance after a step, of a Gaussian before it."""
    zero, one = torch.zeros(1, 1).double(), torch.ones(1, 1).double()
    b = sampler.step(rsde, zero, t, s, Unit(0.0))
    a = sampler.step(rsde, one, t, s, Unit(0.0)) - b
    c = sampler.step(rsde, zero, t, s, Unit(1.0)) - b
    return float(a * mean + b), float(a**2 * var + c**2)


def main(options: Options) -> None:
    # the step of the ladder and the step of the SDE, exactly, at the middle of the ladder
    data, sizes, gaps = Gaussian([0.7], var=0.25), (10, 20, 40, 80, 160, 320, 640), []
    print("levels   difference of one step's mean, variance   its order")
    for levels in sizes:
        sde = VESDE(0.01, 5.0, levels=levels + 1)
        rsde, t = sde.reverse(data.at(sde)), torch.tensor(0.6, dtype=torch.float64)
        s = t - 1 / levels
        var = 0.25 + float(sde.sigma(t)) ** 2
        # a start off the law of p_t, so that the means differ too
        one, two = (
            moments_after(method, rsde, t, s, 1.7, var)
            for method in (ReverseDiffusion(), EulerMaruyama())
        )
        gaps.append([abs(a - b) for a, b in zip(one, two, strict=True)])
        order = "" if len(gaps) < 2 else [math.log2(a / b) for a, b in zip(*gaps[-2:], strict=True)]
        print(f"{levels:6d}   {gaps[-1][0]:.3e}  {gaps[-1][1]:.3e}", end="")
        print("" if not order else f"{'':18s}{order[0]:.2f}  {order[1]:.2f}")
    assert min(order) > 1.8

    # one network, three samplers
    target, sde = TwoMoons(), VESDE(0.01, 10.0)
    points = target.sample(20_000, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    moments = Moments(points.mean(0), var=float(points.var(0).mean()))
    model = ScoreModel(nn.MLP(2, hidden=(96, 96, 96)), sde, (2,), data=moments)

    def loss(g):
        x = points[torch.randint(len(points), (512,), generator=g)]
        return dsm_loss(model, sde, x, generator=g)

    train(model, loss, steps=50 if options.short else 3_000)
    n = 300 if options.short else 3_000
    real = target.sample(n, generator=torch.Generator().manual_seed(5))
    again = target.sample(n, generator=torch.Generator().manual_seed(6))
    floor = energy_distance(again, real)
    methods = {"predictor-corrector": "pc", "reverse SDE": "em", "probability flow": "ddim"}
    budgets = (16, 64) if options.short else (8, 16, 32, 64, 128, 256)
    errors, kept = {}, {}
    print(f"energy distance to {n} real points; between real ones {floor:+.1e}")
    print("NFE                  " + "".join(f"{b:>10d}" for b in budgets))
    for name, sampler in methods.items():
        errors[name] = []
        for nfe in budgets:
            x = scoresde.sample(model, sde, sampler, n=n, nfe=nfe, seed=1)
            errors[name].append(energy_distance(x, real))
            kept[name] = x
        print(f"{name:21s}" + "".join(f"{e:10.1e}" for e in errors[name]))
    if not options.short:
        assert all(e[-1] < e[0] / 10 for e in errors.values())

    figure, axes = panels(5, size=(3.0, 3.2))
    for which, (label, color) in enumerate((("mean", BLUE), ("variance", RED))):
        axes[0].loglog(sizes, [g[which] for g in gaps], "o-", color=color, label=label)
    axes[0].loglog(
        sizes, [3 * gaps[0][0] * (10 / s) ** 2 for s in sizes], ":", color=GREY, label="1 / L²"
    )
    axes[0].set(xlabel="levels L", title="ladder's step − SDE's step")
    axes[0].legend(frameon=False, fontsize=8)
    colors = dict(zip(methods, (BLUE, RED, GOLD), strict=True))
    density = target.log_prob(grid(1.9)).exp()
    for ax, name in zip(axes[1:4], methods, strict=True):
        shade(ax, density, 1.9, vmax=2.0)
        dots(ax, kept[name][:1500], colors[name])
        ax.set_title(f"{name}, {budgets[-1]} NFE", fontsize=10)
    for name, curve in errors.items():
        axes[4].plot(budgets, [max(e, 1e-4) for e in curve], "o-", color=colors[name], label=name)
    axes[4].axhspan(8e-5, 5e-4, color=GREY, alpha=0.25, lw=0)
    axes[4].text(budgets[0], 2e-4, "as real points", color=GREY, fontsize=8)
    axes[4].set(xscale="log", yscale="log", xlabel="evaluations", title="distance to the data")
    axes[4].set_xticks(budgets, [str(b) for b in budgets])
    axes[4].minorticks_off()
    axes[4].legend(frameon=False, fontsize=8)
    save(figure, options.out, "09_sde.png")


if __name__ == "__main__":
    main(tyro.cli(Options))
