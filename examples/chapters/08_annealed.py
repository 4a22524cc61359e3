"""Chapter 8. Annealed Langevin dynamics: from the largest noise down the ladder.

The same network, the same number of evaluations: plain Langevin dynamics at the smallest level
gets the weights of Song's mixture wrong, annealed Langevin dynamics gets them right. Then digits,
on a ladder with as many levels as 64 dimensions need.

    python examples/chapters/08_annealed.py --out figures
"""

from __future__ import annotations

import torch
import tyro
from common import RED, Options, dots, grid, interval, panels, save, shade, train
from matplotlib.animation import FuncAnimation, PillowWriter

import scoresde
from scoresde import VESDE, Moments, ScoreModel, dsm_loss, nn
from scoresde.data import load
from scoresde.metrics import frechet_distance
from scoresde.noise import Noise
from scoresde.samplers import AnnealedLangevin, ScaledLangevin, correct
from scoresde.targets import SongMixture
from scoresde.training import TrainConfig, Trainer


def main(options: Options) -> None:
    target, ladder = SongMixture(), VESDE(0.3, 20.0, levels=20)
    data = target.sample(20_000, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    moments = Moments(data.mean(0), var=float(data.var(0).mean()))
    model = ScoreModel(nn.MLP(2, hidden=(64, 64)), ladder, (2,), data=moments)

    def loss(g):
        x = data[torch.randint(len(data), (512,), generator=g)]
        return dsm_loss(model, ladder, x, generator=g)

    train(model, loss, steps=50 if options.short else 2_000, lr=5e-3)

    n, k, kappa = (500, 2, 0.1) if options.short else (10_000, 25, 0.2)
    sampler = AnnealedLangevin(kappa, k)
    start = 20 * torch.randn(n, 2, generator=torch.Generator().manual_seed(1))
    film = list(scoresde.trajectory(model, ladder, sampler, x=start, seed=1, denoise=False))
    nfe = film[-1].nfe
    # plain: the walk at the smallest level, the same starts and steps of the size that suits data
    rsde = ladder.reverse(model)
    with torch.no_grad():
        plain = correct(ScaledLangevin(1.0), nfe, rsde, start, film[-1].t, Noise.of(1, n))
    print(f"{n} chains, {nfe} evaluations each; true weights .8 and .2")
    weights = {}
    for name, x in (("plain", plain), ("annealed", film[-1].x)):
        w = float((x.sum(1) > 0).float().mean())
        weights[name] = w
        print(
            f"  {name:9s} {w:.3f} and {1 - w:.3f}, ± {interval(w, n):.3f}   TV {abs(w - 0.8):.3f}"
        )
    if not options.short:
        assert (
            abs(weights["annealed"] - 0.8) + interval(0.8, n)
            < 0.05
            < 0.2
            < abs(weights["plain"] - 0.8)
        )

    # digits
    train_set, held = load("digits").split(1 / 3)
    stairs = VESDE(0.02, 20.0, levels=28)
    net = nn.UNet(1, channels=(16, 32), blocks=1)
    draws = ScoreModel(net, stairs, (1, 8, 8), data=Moments(*train_set.moments()))
    config = TrainConfig(steps=5 if options.short else 1_000, batch_size=64, lr=3e-3, ema=0.995)
    draws = Trainer(draws, train_set.unlabelled(), config).train(progress=False)
    m = 20 if options.short else 400
    real = frechet_distance(train_set.x[:m], held.x[:m])
    print(f"digits, 28 levels: Fréchet distance in pixels to {m} held-out ones")
    print(f"  real training digits               {real:6.2f}")
    choices = ((0.1, 5), (0.5, 1), (0.5, 5), (0.5, 20))
    for kappa, k in choices[1:2] if options.short else choices:
        walk = AnnealedLangevin(kappa, k)
        x = scoresde.sample(draws, stairs, walk, n=m, seed=2)
        found = frechet_distance(x, held.x[:m])
        print(f"  kappa = {kappa}, k = {k}: {28 * k:4d} evaluations   {found:6.2f}")

    figure, axes = panels(6, size=(2.8, 3.0))
    density = target.log_prob(grid(12)).exp()
    shown = (0, 6, 12, 20)
    for ax, i in zip(axes, shown, strict=False):
        shade(ax, density, 12, vmax=0.25)
        dots(ax, film[i].x[:1500])
        ax.set_title(f"σ = {float(ladder.sigma(film[i].t)):.2g}", fontsize=10)
    axes[0].set_title("start", fontsize=10)
    w = weights["annealed"]
    axes[3].set_title(f"annealed: {w:.2f} and {1 - w:.2f}", fontsize=10)
    shade(axes[4], density, 12, vmax=0.25)
    dots(axes[4], plain[:1500])
    w = weights["plain"]
    axes[4].set_title(f"plain: {w:.2f} and {1 - w:.2f}", fontsize=10)
    for ax in axes[3:5]:
        ax.text(6, 0.2, "true .8", color="black")
        ax.text(-8, -11, "true .2", color="black")
    tiles = torch.nn.functional.pad(x[:36, 0], (1, 1, 1, 1), value=-0.5)
    image = tiles.reshape(6, 6, 10, 10).permute(0, 2, 1, 3).reshape(60, 60)
    axes[5].imshow(image, cmap="gray", vmin=-1, vmax=1)
    axes[5].set(xticks=[], yticks=[])
    axes[5].set_title("digits, annealed", fontsize=10)
    save(figure, options.out, "08_annealed.png")

    canvas, (ax,) = panels(1, size=(3.0, 3.2))
    canvas.set_dpi(70)
    shade(ax, density, 12, vmax=0.25)
    cloud = ax.scatter(*film[0].x[:800].T, s=3, c=RED, linewidths=0)

    def draw(i):
        cloud.set_offsets(film[i].x[:800])
        ax.set_title(f"σ = {float(ladder.sigma(film[i].t)):.2f}", fontsize=9)

    motion = FuncAnimation(canvas, draw, frames=[*range(len(film)), *[len(film) - 1] * 8])
    motion.save(options.out / "08_annealed.gif", writer=PillowWriter(fps=6))
    print(f"wrote {options.out / '08_annealed.gif'}")


if __name__ == "__main__":
    main(tyro.cli(Options))
