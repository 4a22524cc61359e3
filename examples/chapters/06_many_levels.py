"""Chapter 6. Many levels, one kernel, and the weight that makes them equal.

Noise added step by step, x_1 ... x_10, is noise added once: the variances telescope. One network
is told its level and taught all of them. Unweighted, the loss is nearly all that of the smallest
level; with lambda = sigma^2 every level counts the same, and every level is learned.

    python examples/chapters/06_many_levels.py --out figures
"""

from __future__ import annotations

from itertools import pairwise

import torch
import tyro
from common import BLUE, GREY, RED, Options, dots, relative_error, save, train
from matplotlib.figure import Figure

from scoresde import VESDE, VPSDE, Moments, ScoreModel, dsm_loss, nn
from scoresde.objectives import g2, power, sigma2
from scoresde.sde import Importance, Stratified, Uniform
from scoresde.targets import TwoMoons


def main(options: Options) -> None:
    target, ladder = TwoMoons(), VESDE(0.05, 10.0, levels=10)
    t = ladder.times().flip(0)  # from the smallest level up
    sigma = ladder.sigma(t)

    # ten steps of noise are one kernel
    a, v = torch.ones(()).double(), torch.zeros(()).double()
    generator = torch.Generator().manual_seed(0)
    x = target.sample(50_000, ladder, t[0], generator=generator, dtype=torch.float64)
    clouds = [x]
    for s, u in pairwise(t):
        step_a, step_v = ladder.transition(s, u)
        a, v = a * step_a, step_a**2 * v + step_v
        z = torch.randn(x.shape, generator=generator, dtype=torch.float64)
        x = step_a * x + step_v.sqrt() * z
        clouds.append(x)
    whole = ladder.transition(t[0], t[-1])
    print(f"nine steps: scale {a:.12f}, variance {v:.12f}")
    print(f"one kernel: scale {whole[0]:.12f}, variance {whole[1]:.12f}")
    print(f"variance of the walkers {x.var(0).mean():.3f}, of p_t exactly ", end="")
    print(f"{target.moments().cov.diagonal().mean() + sigma[-1] ** 2:.3f}")
    assert torch.allclose(torch.stack([a, v]), torch.stack(whole), rtol=1e-12)

    # one network for all levels, with the weight and without it
    data = target.sample(20_000, generator=torch.Generator().manual_seed(1))
    steps = 50 if options.short else 2_000
    models = {}
    for name, weight in (("sigma^2", sigma2), ("1", power(0))):
        torch.manual_seed(0)
        net = nn.MLP(2, hidden=(64, 64, 64))
        model = ScoreModel(net, ladder, (2,), "score", Moments(0.0, var=float(data.var())))

        def loss(g, model=model, weight=weight):
            x = data[torch.randint(len(data), (512,), generator=g)]
            return dsm_loss(model, ladder, x, weight=weight, generator=g)

        train(model, loss, steps=steps)
        models[name] = model
    print("         loss by level, lambda =           relative Fisher error, taught with lambda =")
    print(" sigma            1      sigma^2                      1      sigma^2")
    losses, errors = [], []
    for level, noise in zip(t, sigma, strict=True):
        x = target.sample(5_000, generator=torch.Generator().manual_seed(2))
        xt = target.sample(5_000, ladder, level, generator=torch.Generator().manual_seed(3))
        exact = target.score(xt, ladder, level)
        with torch.no_grad():
            loss = float(
                dsm_loss(models["sigma^2"], ladder, x, t=level, generator=generator).mean()
            )
            error = [relative_error(models[name](xt, level), exact) for name in ("1", "sigma^2")]
        losses.append((loss / float(noise) ** 2, loss))
        errors.append(error)
        print(f"{noise:6.2f}   {losses[-1][0]:10.3f}   {loss:10.3f}", end="")
        print(f"   {error[0]:20.4f}   {error[1]:10.4f}")
    share = losses[0][0] / sum(loss[0] for loss in losses)
    print(f"unweighted, the smallest of ten levels has {share:.0%} of the loss")
    if not options.short:
        assert share > 0.7
        worst = max(e[1] for e in errors)
        assert worst < max(e[0] for e in errors)

    # the same mean from fewer samples: how times are drawn for the likelihood weight g^2
    vp, score = VPSDE(), target.at(VPSDE())
    print("times                 mean loss, weight g^2   variance of a batch of 64")
    batches, found = 100 if options.short else 1_000, []
    for law in (Uniform(), Stratified(), Importance(), Stratified(Importance())):
        g, means = torch.Generator().manual_seed(4), []
        for _ in range(batches):
            x = target.sample(64, generator=g)
            means.append(dsm_loss(score, vp, x, law=law, weight=g2, generator=g).mean())
        means = torch.stack(means)
        found.append((means.mean(), means.var()))
        name = repr(law).replace("law=", "")
        spread = 1.96 * (means.var() / batches) ** 0.5
        print(f"{name:24s} {means.mean():6.2f} ± {spread:.2f}   {means.var():16.3f}")

    for mean, var in found[1:]:  # one mean, and far less variance by importance
        assert abs(mean - found[0][0]) <= 5 * ((var + found[0][1]) / batches) ** 0.5
    assert max(found[2][1], found[3][1]) < 0.2 * found[0][1]

    figure = Figure(figsize=(13, 5.6), dpi=90, layout="constrained")
    axes = figure.subplot_mosaic([list("abcdef"), list("gggggg")], height_ratios=(1, 1.25))
    for key, i in zip("abcdef", (0, 2, 4, 6, 8, 9), strict=True):
        dots(axes[key], clouds[i][:2000], BLUE, 1.5)
        axes[key].set(xlim=(-6, 6), ylim=(-6, 6), xticks=[], yticks=[], aspect="equal")
        axes[key].set_title(f"x{i + 1}:  σ = {sigma[i]:.2g}", fontsize=10)
    place = axes["g"].get_subplotspec()
    axes["g"].remove()
    inner = place.subgridspec(1, 2)
    left, right = figure.add_subplot(inner[0]), figure.add_subplot(inner[1])
    left.plot(sigma, [loss[0] for loss in losses], "o-", color=RED, label="λ = 1")
    left.plot(sigma, [loss[1] for loss in losses], "o-", color=BLUE, label="λ = σ²")
    left.set(xscale="log", yscale="log", xlabel="σ", title="loss of each level")
    right.plot(sigma, [e[0] for e in errors], "o-", color=RED, label="taught with λ = 1")
    right.plot(sigma, [e[1] for e in errors], "o-", color=BLUE, label="taught with λ = σ²")
    right.axhline(1, color=GREY, lw=1, ls="--")
    right.text(sigma[0], 1.1, "as wrong as the answer 0", color=GREY, fontsize=8)
    right.set(xscale="log", yscale="log", xlabel="σ", title="relative Fisher error of each level")
    for ax in (left, right):
        ax.legend(frameon=False)
    save(figure, options.out, "06_many_levels.png")


if __name__ == "__main__":
    main(tyro.cli(Options))
