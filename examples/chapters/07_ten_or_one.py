"""Chapter 7. Ten networks or one.

L separate networks, one for each level, are compared with one network that is given the level:
first with as many parameters in all, then with L networks of its size, both with as much
arithmetic in all. The data are two moons, where the error is exact, and the 8x8 digits.

    python examples/chapters/07_ten_or_one.py --out figures
"""

from __future__ import annotations

import math
from functools import partial

import torch
import tyro
from common import OneLevel, Options, batches, levels_for, relative_error, seeded, train, weights_of
from panels import BLUE, GOLD, RED, by_level, panels, save
from per_level import PerLevel
from torch import Tensor

from scoresde import VESDE, Moments, ScoreModel, dsm_loss, nn
from scoresde.data import load
from scoresde.targets import TwoMoons


def compare(data: Tensor, ladder: VESDE, hidden: int, samples: int, batch: int) -> dict:
    """Return the three models, trained with the same amount of arithmetic; print the cost."""
    shape, times = tuple(data.shape[1:]), ladder.times().flip(0)
    levels, size = len(times), math.prod(shape)
    moments = Moments(data.mean(0), var=float((data - data.mean(0)).pow(2).mean()))
    torch.manual_seed(0)
    net = nn.MLP(shape, hidden=(hidden,) * 3)
    models = {"one shared network": ScoreModel(net, ladder, shape, moments=moments)}
    # a network of 1 / L of the size is shown L times as many samples in all
    plans = [([None], list(models.values()), samples)]
    for name, share in (("as many parameters in all", levels), ("each of its size", 1)):
        nets = [OneLevel(size, weights_of(net) / share) for _ in times]
        own = ScoreModel(PerLevel(nets, ladder), ladder, shape, moments=moments)
        models[f"{levels} networks, {name}"] = own
        plans.append((times, nets, samples * share))
    for (name, model), (when, parts, shown) in zip(models.items(), plans, strict=True):
        for t, part in zip(when, parts, strict=True):
            loss = batches(data, partial(dsm_loss, model, ladder, t=t), batch)
            train(part, loss, steps=max(1, shown // batch // len(parts)))
        print(f"  {name:44s} {weights_of(model):9,d} parameters, ", end="")
        print(f"{shown * weights_of(model) / len(parts):.1e} of them used")
    return models


def main(options: Options) -> None:
    target, ladder = TwoMoons(), VESDE(0.05, 10.0, levels=10)
    print(f"two moons, 10 levels (the rule asks for {levels_for(2, 0.05, 10.0)} in 2 dimensions)")
    data = target.sample(20_000, generator=seeded(0))
    models = compare(data, ladder, 96, 512 * (2 if options.short else 1_000), 512)
    moons = {name: [] for name in models}
    for name, model in models.items():
        for t in ladder.times().flip(0):
            x = target.sample(4_000, ladder, t, generator=seeded(1))
            moons[name].append(relative_error(model(x, t), target.score(x, ladder, t)))
        print(f"  {name:44s} relative Fisher error, mean over levels {sum(moons[name]) / 10:.5f}")

    levels, pixels = levels_for(64, 0.02, 20.0), {}
    print(f"digits: the rule asks for {levels} levels from .02 to 20 in 64 dimensions,")
    print(f"  {levels_for(64, 0.01, 50.0)} from .01 to 50, {levels_for(784, 0.01, 50.0)} in 784")
    digits, held = load("digits").split(1 / 3)
    stairs = VESDE(0.02, 20.0, levels=levels)
    models = compare(digits.x, stairs, 192, 128 * (2 if options.short else 800), 128)
    for name, model in models.items():
        loss, pixels[name] = partial(dsm_loss, model, stairs, held.x), []
        for t in stairs.times().flip(0):
            g = seeded(2)
            losses = [loss(t=t, generator=g).mean().detach() for _ in range(4)]
            pixels[name].append(float(sum(losses)) / 4 / 64)
        print(f"  {name:44s} held-out loss per pixel {sum(pixels[name]) / levels:.4f}")

    figure, axes = panels(2, size=(5.6, 3.8))
    for ax, sde, found, problem, what in (
        (axes[0], ladder, moons, "two moons", "relative Fisher error"),
        (axes[1], stairs, pixels, "digits", "held-out denoising loss per pixel"),
    ):
        one, *others = (sum(curve) for curve in found.values())
        assert options.short or one < min(others)
        levels = sde.sigma(sde.times().flip(0))
        by_level(ax, levels, found, problem, (BLUE, GOLD, RED), ylabel=what)
    save(figure, options, "07_ten_or_one.png")


if __name__ == "__main__":
    main(tyro.cli(Options))
