"""Chapter 4. The pitfall: the score cannot be learnt where there are no data.

A network learns the score of Song's mixture, .8 N((5, 5), I) + .2 N((-5, -5), I), from clean data.
Langevin dynamics from noise then fails for two reasons, which are measured separately: chains do
not cross between the modes even with the exact score, and the score is wrong between the modes.

    python examples/chapters/04_pitfall.py --out figures
"""

from __future__ import annotations

from functools import partial

import common
import tyro
from common import BOX, Options, interval, relative_error, seeded, upper
from panels import BLUE, GOLD, RED, bars, cloud, dots, field, grid, panels, save, shade

from scoresde import EDMSDE, VESDE, ism_loss, sample
from scoresde.objectives import power
from scoresde.samplers import AnnealedLangevin, FixedLangevin
from scoresde.targets import SongMixture


def main(options: Options) -> None:
    target, clean, ladder = SongMixture(), EDMSDE(), VESDE(0.1, 20.0, levels=20)
    data, net = target.sample(20_000, generator=seeded(0)), common.network()
    lessons, steps, n = (50, 100, 500) if options.short else (1500, 1_000, 5_000)
    scores = {"exact": target.at(clean), "naive": lambda x, t: net(x)}
    loss = partial(ism_loss, scores["naive"], clean, t=0.0, weight=power(0))
    common.train(net, common.batches(data, loss), steps=lessons, lr=5e-3)

    # how wrong is the score, where data are and where none are?
    points = grid(BOX, 160)
    log_p, exact = target.log_prob(points), target.score(points)
    sparse = log_p < log_p.max() - 6.9  # a thousandth
    dense = target.sample(20_000, generator=seeded(1))
    on_data = relative_error(net(dense), target.score(dense))
    off_data = relative_error(net(points[sparse]), exact[sparse])
    print(f"relative Fisher error on data {on_data:.4f}, where p < max p / 1000 {off_data:.4f}")
    print(f"  {off_data / on_data:.0f} times, over {sparse.float().mean():.0%} of the box")

    # plain Langevin from noise: same starts, same noise, exact score and naive score
    ends, weight, start = {}, {}, common.in_the_box(n)
    for name, score in scores.items():
        ends[name] = common.chains(score, clean, FixedLangevin(0.1), steps, start, 0.0, seed=3)
        weight[f"plain Langevin, {name} score"] = upper(ends[name])
    moved = ((ends["exact"].sum(1) > 0) != (ends["naive"].sum(1) > 0)).float().mean()
    # annealed chains: mixing is no longer the trouble, so what is left is the score's
    taught = common.teach(data, ladder, (64, 64), lessons, lr=5e-3)
    # all that a clean score can offer at sigma is that of p_0^(1 / (1 + sigma^2)): it is right for
    # one Gaussian of unit variance, and has the modes in the right places
    heat = lambda t: 1 + ladder.sigma(t.double()).float()[:, None] ** 2  # noqa: E731
    annealed = {"exact": target.at(ladder), "noise-trained": taught}
    for name, score in scores.items():
        annealed[f"tempered {name}"] = lambda x, t, score=score: score(x, t) / heat(t)
    same = dict(n=n, shape=(2,), seed=4, denoise=False, moments=target.moments())
    for name, score in annealed.items():
        x = sample(score, ladder, AnnealedLangevin(0.1, steps // 20), **same)
        weight[f"annealed, {name} score"] = upper(x)
    print(f"{n} chains of {steps} steps, all in the box at the start; true weight of the mode .8")
    for name, w in weight.items():
        print(f"  {name:28s} weight {w:.3f} ± {interval(w, n):.3f}   TV {abs(w - 0.8):.3f}")
    print(f"same start, same noise, another mode because of the naive score: {moved:.1%}")
    if not options.short:
        assert off_data >= 10 * on_data
        assert all(abs(w - 0.8) > 0.2 for name, w in weight.items() if "plain" in name)
        assert abs(weight["annealed, noise-trained score"] - 0.8) < 0.05

    figure, axes = panels(3, 2, size=(3.6, 3.8))
    field(axes[0], log_p.exp(), BOX, target.score, "the true score", scale=170)
    field(axes[1], log_p.exp(), BOX, net, "the network's, from clean data", scale=170, color=RED)
    wrong = (net(points) - exact).norm(dim=1) / exact.norm(dim=1)
    shade(axes[2], wrong.log10(), BOX, cmap="magma", vmin=-2, vmax=0.5)
    dots(axes[2], data[:2000], "white", 1)
    axes[2].set_title("log10 of its relative error, and the data", fontsize=10)
    figure.colorbar(axes[2].images[0], ax=axes[2], shrink=0.8)
    for ax, (name, x) in zip(axes[3:], ends.items(), strict=False):
        cloud(ax, log_p.exp(), BOX, x, f"plain Langevin from noise, {name} score")
        for mode, share, true in ((2.1, upper(x), 0.8), (-2.1, 1 - upper(x), 0.2)):
            ax.text(mode, mode, f"{share:.2f}\nnot {true}", ha="center", va="center")
    colors = [RED if abs(w - 0.8) > 0.1 else BLUE for w in weight.values()]
    short = {name.replace(" score", ""): w for name, w in weight.items()}
    bars(axes[5], short, "weight of the upper mode, true .8", colors)
    axes[5].axvline(0.8, color=GOLD, lw=3)
    save(figure, options, "04_pitfall.png")


if __name__ == "__main__":
    main(tyro.cli(Options))
