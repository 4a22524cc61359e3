"""Chapter 7. Ten networks or one.

L separate networks, one for each level, against one network that is told its level: first with as
many parameters in all and as much arithmetic in all, then with L networks of its size at the same
arithmetic. On two moons, where the error is exact, and on the 8x8 digits.

    python examples/chapters/07_ten_or_one.py --out figures
"""

from __future__ import annotations

import math

import torch
import tyro
from common import BLUE, GOLD, RED, Options, panels, relative_error, save, train
from torch import Tensor

from scoresde import VESDE, Moments, PerLevelScore, ScoreModel, dsm_loss, nn
from scoresde.data import load
from scoresde.targets import TwoMoons


class OneLevel(torch.nn.Module):
    """A network that needs not be told its level."""

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        layers, last = [], size
        for _ in range(3):
            layers += [torch.nn.Linear(last, width), torch.nn.SiLU()]
            last = width
        self.body = torch.nn.Sequential(*layers, torch.nn.Linear(width, size))

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        """Map `(B, *)` to itself; `c` is always the same."""
        return self.body(x.flatten(1)).reshape(x.shape)


def weights_of(net: torch.nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


def width_for(budget: float, size: int) -> int:
    """The widest `OneLevel` of so many parameters: 2 w^2 + (2 size + 3) w + size of them."""
    b = 2 * size + 3
    return int((math.sqrt(b**2 + 8 * (budget - size)) - b) / 4)


def levels_for(d: int, low: float, high: float) -> int:
    """How many levels technique 2 of Song & Ermon (2020, arXiv:2006.09011) asks for.

    Neighbouring levels of ratio r overlap by Phi(sqrt(2 d) (r - 1) + 3 r) - Phi(sqrt(2 d) (r - 1) -
    3 r), which should be about a half.
    """
    a, b = 1.0, 10.0
    for _ in range(60):
        r = (a + b) / 2
        shift = math.sqrt(2 * d) * (r - 1)
        overlap = torch.special.ndtr(torch.tensor([shift + 3 * r, shift - 3 * r])).diff().abs()
        a, b = (r, b) if overlap > 0.5 else (a, r)
    return math.ceil(1 + math.log(high / low) / math.log(a))


def compare(data: Tensor, ladder: VESDE, hidden: int, samples: int, batch: int) -> dict:
    """The three models, trained with as much arithmetic; also what each cost."""
    levels, shape = ladder.levels, tuple(data.shape[1:])
    size = math.prod(shape)
    moments = Moments(data.mean(0), var=float((data - data.mean(0)).pow(2).mean()))
    torch.manual_seed(0)
    shared = nn.MLP(shape, hidden=(hidden,) * 3)
    budget = weights_of(shared) / levels
    small, large = width_for(budget, size), width_for(budget * levels, size)
    models = {
        "one shared network": ScoreModel(shared, ladder, shape, data=moments),
        f"{levels} networks, as many parameters in all": PerLevelScore(
            [OneLevel(size, small) for _ in range(levels)], ladder, shape, data=moments
        ),
        f"{levels} networks, each of its size": PerLevelScore(
            [OneLevel(size, large) for _ in range(levels)], ladder, shape, data=moments
        ),
    }

    def objective(model, t=None):
        def loss(g):
            x = data[torch.randint(len(data), (batch,), generator=g)]
            return dsm_loss(model, ladder, x, t=t, generator=g)

        return loss

    for i, (name, model) in enumerate(models.items()):
        steps = samples // batch
        if i == 0:
            train(model, objective(model), steps=steps)
        else:
            # a network of 1 / L of the size is shown L times as many samples in all
            each = steps if i == 1 else max(1, steps // levels)
            for t, net in zip(ladder.times().flip(0), model.net, strict=True):
                train(net, objective(model, t), steps=each)
        seen = samples if i != 1 else samples * levels
        per_sample = weights_of(model) / (1 if i == 0 else levels)
        print(f"  {name:44s} {weights_of(model):9,d} parameters, ", end="")
        print(f"{seen * per_sample:.1e} of them used")
    return models


def main(options: Options) -> None:
    results = {}

    target = TwoMoons()
    ladder = VESDE(0.05, 10.0, levels=10)
    print(f"two moons, 10 levels (the rule asks for {levels_for(2, 0.05, 10.0)} in 2 dimensions)")
    data = target.sample(20_000, generator=torch.Generator().manual_seed(0))
    models = compare(data, ladder, 96, 512 * (2 if options.short else 1_000), 512)
    for name, model in models.items():
        curve = []
        for t in ladder.times().flip(0):
            x = target.sample(4_000, ladder, t, generator=torch.Generator().manual_seed(1))
            with torch.no_grad():
                curve.append(relative_error(model(x, t), target.score(x, ladder, t)))
        results["two moons", name] = curve
        print(f"  {name:44s} relative Fisher error, mean over levels {sum(curve) / 10:.5f}")

    # 64 dimensions need more levels than 10: by the rule
    levels = levels_for(64, 0.02, 20.0)
    print(f"digits: the rule asks for {levels} levels from .02 to 20 in 64 dimensions,")
    print(f"  {levels_for(64, 0.01, 50.0)} from .01 to 50, {levels_for(784, 0.01, 50.0)} in 784")
    digits, held = load("digits").split(1 / 3)
    ladder = VESDE(0.02, 20.0, levels=levels)
    models = compare(digits.x, ladder, 192, 128 * (2 if options.short else 800), 128)
    for name, model in models.items():
        curve = []
        for t in ladder.times().flip(0):
            g = torch.Generator().manual_seed(2)
            with torch.no_grad():
                losses = [
                    dsm_loss(model, ladder, held.x, t=t, generator=g).mean() for _ in range(4)
                ]
            curve.append(float(sum(losses)) / 4 / 64)
        results["digits", name] = curve
        print(f"  {name:44s} held-out loss per pixel, mean over levels {sum(curve) / levels:.4f}")
    if not options.short:
        for problem in ("two moons", "digits"):
            totals = [sum(c) for (p, _), c in results.items() if p == problem]
            assert totals[0] < min(totals[1:])

    figure, axes = panels(2, size=(5.6, 3.8))
    for ax, problem, what in (
        (axes[0], "two moons", "relative Fisher error"),
        (axes[1], "digits", "held-out denoising loss per pixel"),
    ):
        curves = {n: c for (p, n), c in results.items() if p == problem}
        sigma = (VESDE(0.05, 10.0, levels=10) if problem == "two moons" else ladder).sigma
        for color, (name, curve) in zip((BLUE, GOLD, RED), curves.items(), strict=True):
            grid = torch.linspace(0, 1, len(curve), dtype=torch.float64)
            ax.plot(sigma(grid), curve, "o-", ms=4, color=color, label=name)
        ax.set(xscale="log", yscale="log", xlabel="σ of the level", ylabel=what, title=problem)
        ax.legend(frameon=False, fontsize=8)
    save(figure, options.out, "07_ten_or_one.png")


if __name__ == "__main__":
    main(tyro.cli(Options))
