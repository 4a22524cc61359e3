"""Chapter 8. Annealed Langevin dynamics: from the largest noise down the ladder.

With the same network and the same number of evaluations, plain Langevin dynamics at the smallest
level gets the weights of Song's mixture wrong, and annealed Langevin dynamics gets them right. Then
digits are drawn, on a ladder with a few more levels than 64 dimensions need.

    python examples/chapters/08_annealed.py --out figures
"""

from __future__ import annotations

import torch
import tyro
from common import Options, chains, interval, seeded, teach, upper
from films import film
from panels import cloud, grid, panels, save, tiles

from scoresde import VESDE, Moments, ScoreModel, nn, sample, trajectory
from scoresde.data import load
from scoresde.metrics import frechet_distance
from scoresde.samplers import AnnealedLangevin, ScaledLangevin
from scoresde.targets import SongMixture
from scoresde.training import Averages, Optimiser, TrainConfig, Trainer


def main(options: Options) -> None:
    target, ladder = SongMixture(), VESDE(0.3, 20.0, levels=20)
    data = target.sample(20_000, generator=seeded(0))
    torch.manual_seed(0)
    model = teach(data, ladder, (64, 64), 50 if options.short else 2_000, lr=5e-3)

    n, k, kappa = (500, 2, 0.1) if options.short else (10_000, 25, 0.2)
    start, sampler = 20 * torch.randn(n, 2, generator=seeded(1)), AnnealedLangevin(kappa, k)
    states = list(trajectory(model, ladder, sampler, x=start, seed=1, denoise=False))
    end = states[-1]
    # plain: the walk at the smallest level, the same starts and steps of the size that suits data
    plain = chains(model, ladder, ScaledLangevin(1.0), end.nfe, start, end.t, seed=1)
    print(f"{n} chains, {end.nfe} evaluations each; true weights .8 and .2")
    weights = {"plain": upper(plain), "annealed": upper(end.x)}
    for name, w in weights.items():
        print(f"  {name:9s} {w:.3f} and {1 - w:.3f}, ± {interval(w, n):.3f}", end="")
        print(f"   TV {abs(w - 0.8):.3f}")
    if not options.short:
        assert abs(weights["annealed"] - 0.8) + interval(0.8, n) < 0.05
        assert abs(weights["plain"] - 0.8) > 0.2

    # digits
    train_set, held = load("digits").split(1 / 3)
    stairs, net = VESDE(0.02, 20.0, levels=28), nn.UNet(1, channels=(16, 32), blocks=1)
    draws = ScoreModel(net, stairs, (1, 8, 8), moments=Moments(*train_set.moments()))
    config = TrainConfig(
        steps=5 if options.short else 1_000,
        batch_size=64,
        optimiser=Optimiser(lr=3e-3),
        averages=Averages(ema=0.995),
    )
    draws = Trainer(draws, train_set.without("label"), config).train(progress=False)
    m = 40 if options.short else 400
    real = frechet_distance(train_set.x[:m], held.x[:m])
    print(f"digits, 28 levels: Fréchet distance in pixels to {m} held-out ones")
    print(f"  real training digits               {real:6.2f}")
    choices = ((0.1, 5), (0.5, 1), (0.5, 5), (0.5, 20))
    for kappa, k in choices[1:2] if options.short else choices:
        x = sample(draws, stairs, AnnealedLangevin(kappa, k), n=m, seed=2)
        found = frechet_distance(x, held.x[:m])
        print(f"  kappa = {kappa}, k = {k}: {28 * k:4d} evaluations   {found:6.2f}")

    figure, axes = panels(3, 2, size=(3.4, 3.7))
    density = target.log_prob(grid(12)).exp()
    levels = [float(ladder.sigma(state.t)) for state in states]
    titles = {name: f"{name}: {w:.2f} and {1 - w:.2f}" for name, w in weights.items()}
    cloud(axes[0], density, 12, start, "start")
    for ax, i in zip(axes[1:3], (6, 12), strict=True):
        cloud(ax, density, 12, states[i].x, f"annealed, at σ = {levels[i]:.2g}")
    cloud(axes[3], density, 12, end.x, titles["annealed"])
    cloud(axes[4], density, 12, plain, titles["plain"])
    for ax in axes[3:5]:
        ax.text(6, 0.2, "true .8")
        ax.text(-8, -11, "true .2")
    tiles(axes[5], x, "digits, annealed")
    save(figure, options, "08_annealed.png")
    frames, titles = [s.x[:800] for s in states], [f"σ = {level:.2f}" for level in levels]
    film(options, "08_annealed.gif", density, 12, frames, fps=6, titles=titles, hold=2)


if __name__ == "__main__":
    main(tyro.cli(Options))
