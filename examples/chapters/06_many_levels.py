"""Chapter 6. Many levels, one kernel, and the weight that makes them equal.

Noise added in several steps has the same distribution as noise added once, since the variances
add up. One network is given the level and trained on all levels. Without weights most of the loss
is that of the smallest level; with lambda = sigma^2 all levels count equally and are learnt.

    python examples/chapters/06_many_levels.py --out figures
"""

from __future__ import annotations

from functools import partial
from itertools import pairwise

import torch
import tyro
from common import Options, batches, relative_error, seeded, train
from panels import BLUE, by_level, level_line, save, square, strip_over_pair

from scoresde import VESDE, VPSDE, Moments, ScoreModel, dsm_loss, nn
from scoresde.objectives import g2, power, sigma2
from scoresde.sde import Importance, Stratified, Uniform
from scoresde.targets import TwoMoons


def main(options: Options) -> None:
    target, ladder = TwoMoons(), VESDE(0.05, 10.0, levels=10)
    sigma = ladder.sigma(t := ladder.times().flip(0))  # from the smallest level up

    # ten steps of noise are one kernel
    a, v, generator = torch.ones(()).double(), torch.zeros(()).double(), seeded(0)
    clouds = [target.sample(50_000, ladder, t[0], generator=generator, dtype=torch.float64)]
    for s, u in pairwise(t):
        step_a, step_v = ladder.transition(s, u)
        a, v = a * step_a, step_a**2 * v + step_v
        z = torch.randn(50_000, 2, generator=generator, dtype=torch.float64)
        clouds.append(step_a * clouds[-1] + step_v.sqrt() * z)
    whole = ladder.transition(t[0], t[-1])
    print(f"nine steps: scale {a:.12f}, variance {v:.12f}")
    print(f"one kernel: scale {whole[0]:.12f}, variance {whole[1]:.12f}")
    print(f"variance of the walkers {clouds[-1].var(0).mean():.3f}, of p_t exactly ", end="")
    print(f"{target.moments().cov.diagonal().mean() + sigma[-1] ** 2:.3f}")
    assert torch.allclose(torch.stack([a, v]), torch.stack(whole), rtol=1e-12)

    # one network for all levels, without the weight and with it
    data, models = target.sample(20_000, generator=seeded(1)), []
    for weight in (power(0), sigma2):
        torch.manual_seed(0)
        net, moments = nn.MLP(2, hidden=(64, 64, 64)), Moments(0.0, var=float(data.var()))
        models.append(ScoreModel(net, ladder, (2,), "score", moments))
        loss = partial(dsm_loss, models[-1], ladder, weight=weight)
        train(models[-1], batches(data, loss), steps=50 if options.short else 2_000)
    print("         loss by level, lambda =           relative Fisher error, taught with lambda =")
    print(" sigma            1      sigma^2                      1      sigma^2")
    rows, x = [], target.sample(5_000, generator=seeded(2))
    for level, noise in zip(t, sigma, strict=True):
        xt = target.sample(5_000, ladder, level, generator=seeded(3))
        loss = dsm_loss(models[1], ladder, x, t=level, generator=generator).mean().item()
        errors = [relative_error(m(xt, level), target.score(xt, ladder, level)) for m in models]
        rows.append((loss / float(noise) ** 2, loss, *errors))
        print("{:6.2f}   {:10.3f}   {:10.3f}   {:20.4f}   {:10.4f}".format(noise, *rows[-1]))
    plain, weighted, unequal, equal = zip(*rows, strict=True)
    print(f"unweighted, the smallest of ten levels has {plain[0] / sum(plain):.0%} of the loss")
    assert options.short or (plain[0] > 0.7 * sum(plain) and max(equal) < max(unequal))

    # the same mean from fewer samples: how times are drawn for the likelihood weight g^2
    vp, count, found = VPSDE(), 100 if options.short else 1_000, []
    print("times                 mean loss, weight g^2   variance of a batch of 64")
    for law in (Uniform(), Stratified(), Importance(), Stratified(Importance())):
        g = seeded(4)
        loss = partial(dsm_loss, target.at(vp), vp, law=law, weight=g2, generator=g)
        means = torch.stack([loss(target.sample(64, generator=g)).mean() for _ in range(count)])
        mean, var, half = means.mean(), means.var(), 1.96 * (means.var() / count) ** 0.5
        found.append((mean, var))
        print(f"{repr(law).replace('law=', ''):24s} {mean:6.2f} ± {half:.2f}   {var:16.3f}")
        assert abs(mean - found[0][0]) <= 5 * ((var + found[0][1]) / count) ** 0.5  # one mean
    assert max(found[2][1], found[3][1]) < 0.2 * found[0][1]  # and far less variance by importance

    figure, axes = strip_over_pair(4, size=(11.5, 6.4))
    for ax, i in zip(axes, (0, 4, 6, 9), strict=False):
        square(ax, clouds[i][:2000], 6, f"x{i + 1}:  σ = {sigma[i]:.2g}", BLUE, 1.5)
    by_level(axes[4], sigma, {"λ = 1": plain, "λ = σ²": weighted}, "loss of each level")
    lines = {"taught with λ = 1": unequal, "taught with λ = σ²": equal}
    by_level(axes[5], sigma, lines, "relative Fisher error of each level")
    level_line(axes[5], 1, "as wrong as the answer 0")
    save(figure, options, "06_many_levels.png")


if __name__ == "__main__":
    main(tyro.cli(Options))
