"""Chapter 4. The pitfall: data say nothing of the score where there are none.

A network is taught the score of Song's mixture, .8 N((5, 5), I) + .2 N((-5, -5), I), from clean
data. Two things then go wrong when Langevin dynamics starts from noise, and they are measured
apart: the chains do not cross between the modes even under the EXACT score, and the score is
wrong on the way.

    python examples/chapters/04_pitfall.py --out figures
"""

from __future__ import annotations

import math

import torch
import tyro
from common import (
    BLUE,
    GOLD,
    RED,
    Options,
    dots,
    grid,
    interval,
    network,
    panels,
    relative_error,
    save,
    shade,
    train,
)

import scoresde
from scoresde import EDMSDE, VESDE, Moments, ScoreModel, dsm_loss, ism_loss, nn
from scoresde.noise import Noise
from scoresde.objectives import power
from scoresde.samplers import AnnealedLangevin, FixedLangevin, correct
from scoresde.targets import SongMixture

BOX = 8.0  # the stated box is [-8, 8]^2


def main(options: Options) -> None:
    target, clean = SongMixture(), EDMSDE()
    data = target.sample(20_000, generator=torch.Generator().manual_seed(0))

    def batch(g):
        return data[torch.randint(len(data), (512,), generator=g)]

    naive = network()
    train(
        naive,
        lambda g: ism_loss(
            lambda x, t: naive(x), clean, batch(g), t=0.0, weight=power(0), generator=g
        ),
        steps=50 if options.short else 1500,
        lr=5e-3,
    )

    # how wrong is the score, where data are and where none are?
    points = grid(BOX, 160)
    log_p = target.log_prob(points)
    sparse = points[log_p < log_p.max() - math.log(1e3)]
    dense = target.sample(20_000, generator=torch.Generator().manual_seed(1))
    on_data = relative_error(naive(dense), target.score(dense))
    off_data = relative_error(naive(sparse), target.score(sparse))
    print(f"relative Fisher error on data {on_data:.4f}, where p < max p / 1000 {off_data:.4f}")
    print(f"  {off_data / on_data:.0f} times, over {len(sparse) / len(points):.0%} of the box")

    # plain Langevin from noise: same starts, same noise, exact score and naive score
    n, steps = (500, 100) if options.short else (5_000, 1_000)
    start = BOX * (2 * torch.rand(n, 2, generator=torch.Generator().manual_seed(2)) - 1)
    scores = {"exact": target.at(clean), "naive": lambda x, t: naive(x)}
    with torch.no_grad():
        ends = {
            name: correct(FixedLangevin(0.1), steps, clean.reverse(s), start, 0.0, Noise.of(3, n))
            for name, s in scores.items()
        }
    upper = {name: x.sum(1) > 0 for name, x in ends.items()}
    weight = {f"plain Langevin, {k} score": float(v.float().mean()) for k, v in upper.items()}
    moved = float((upper["exact"] != upper["naive"]).float().mean())

    # annealed chains: mixing is no longer the trouble, so what is left is the score's
    ladder = VESDE(0.1, 20.0, levels=20)
    taught = ScoreModel(nn.MLP(2, hidden=(64, 64)), ladder, (2,), data=Moments(*_moments(data)))
    train(
        taught,
        lambda g: dsm_loss(taught, ladder, batch(g), generator=g),
        steps=50 if options.short else 1500,
        lr=5e-3,
    )
    annealed = {
        "exact": target.at(ladder),
        "noise-trained": taught,
        "tempered exact": _tempered(scores["exact"], ladder),
        "tempered naive": _tempered(scores["naive"], ladder),
    }
    for name, score in annealed.items():
        sampler = AnnealedLangevin(kappa=0.1, k=max(steps // 20, 1))
        x = scoresde.sample(
            score, ladder, sampler, n=n, shape=(2,), seed=4, denoise=False, data=target.moments()
        )
        weight[f"annealed, {name} score"] = float((x.sum(1) > 0).float().mean())
    print(f"{n} chains of {steps} steps, all in the box at the start; true weight of the mode .8")
    for name, w in weight.items():
        print(f"  {name:28s} weight {w:.3f} ± {interval(w, n):.3f}   TV {abs(w - 0.8):.3f}")
    print(f"same start, same noise, another mode because of the naive score: {moved:.1%}")
    if not options.short:
        assert off_data >= 10 * on_data
        assert all(abs(w - 0.8) > 0.2 for name, w in weight.items() if "plain" in name)
        assert abs(weight["annealed, noise-trained score"] - 0.8) < 0.05

    figure, axes = panels(4, size=(3.5, 3.6))
    exact = target.score(points)
    with torch.no_grad():
        error = (naive(points) - exact).norm(dim=1) / exact.norm(dim=1)
    shade(axes[0], error.log10(), BOX, cmap="magma", vmin=-2, vmax=0.5)
    dots(axes[0], data[:2000], "white", 1)
    axes[0].set_title("error of the score: dark is small.\nwhite: the data it learned from")
    for ax, name in zip(axes[1:], ("exact", "naive"), strict=False):
        shade(ax, log_p.exp(), BOX, vmax=0.25)
        dots(ax, ends[name][:1500])
        w = weight[f"plain Langevin, {name} score"]
        for mode, share, true in ((5, w, 0.8), (-5, 1 - w, 0.2)):
            ax.text(
                mode, mode - 2.9 * mode / 5, f"{share:.2f}\nnot {true}", ha="center", va="center"
            )
        ax.set_title(f"plain Langevin from noise,\n{name} score")
    names = list(weight)
    colors = [RED if abs(w - 0.8) > 0.1 else BLUE for w in weight.values()]
    axes[3].barh(names, list(weight.values()), color=colors)
    axes[3].axvline(0.8, color=GOLD, lw=3)
    axes[3].invert_yaxis()
    axes[3].set(title="weight of the upper mode,\ntrue .8", yticks=[], xlim=(0, 1))
    for i, name in enumerate(names):
        axes[3].text(
            0.02,
            i,
            name.replace(" Langevin", "").replace(" score", ""),
            va="center",
            color="white",
            fontsize=8,
        )
    save(figure, options.out, "04_pitfall.png")


def _tempered(score, sde):
    """What knows p_0 alone can offer at noise level t: the score of p_0^(1 / (1 + sigma^2)).

    It is that of p_t for one Gaussian of unit variance, and has the modes in the right places.
    """
    return lambda x, t: score(x, t) / (1 + sde.sigma(t.double()).to(x)[:, None] ** 2)


def _moments(data):
    return data.mean(0), float(data.var(0).mean())


if __name__ == "__main__":
    main(tyro.cli(Options))
