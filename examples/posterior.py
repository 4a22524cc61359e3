r"""Learn the posterior of a simulator's parameters, and compare with the exact posterior.

In the problem "two moons" (Lueckmann et al. 2021, arXiv:2101.04653) a parameter theta, uniform on a
square, shifts noise of the shape of a crescent. The posterior of theta given y consists of two
crescents. One network learns p(theta | y) for all y from simulations. The script prints the energy
distance of its draws to exact draws and the verdict of `calibrate`, and writes two pictures.

    python examples/posterior.py --out figures
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro
from torch import Tensor
from torch.utils.data import TensorDataset

import scoresde
from scoresde import VESDE, Moments, ScoreModel, nn, plot
from scoresde.data import load
from scoresde.metrics import calibrate, energy_distance
from scoresde.training import Averages, Optimiser, TrainConfig, Trainer


@dataclass(frozen=True)
class Options:
    """Choose what to run."""

    out: Path = Path("figures")
    """Where the pictures go."""
    simulations: int = 50_000
    """Simulations to learn from."""
    steps: int = 6_000
    """Training steps, of 256 simulations each."""
    calibrated: int = 500
    """Data for which the calibration draws; four times as many more after an alarm."""
    short: bool = False
    """A run of seconds, too short to be good."""


def middle(theta: Tensor) -> Tensor:
    """Return the shift of the crescent."""
    return torch.stack([-theta.sum(1).abs(), theta[:, 1] - theta[:, 0]], 1) / math.sqrt(2)


def crescent(n: int, g: torch.Generator) -> Tensor:
    """Draw the noise of the simulator."""
    angle = math.pi * (torch.rand(n, generator=g) - 0.5)
    radius = 0.1 + 0.01 * torch.randn(n, generator=g)
    return torch.stack([radius * angle.cos() + 0.25, radius * angle.sin()], 1)


def simulate(n: int, seed: int) -> tuple[Tensor, Tensor]:
    """Draw parameters from the prior, and data for each."""
    g = torch.Generator().manual_seed(seed)
    theta = 2 * torch.rand(n, 2, generator=g) - 1
    return theta, middle(theta) + crescent(n, g)


def log_likelihood(theta: Tensor, y: Tensor) -> Tensor:
    """Return the log-density of data given parameters, up to a constant."""
    x = y - middle(theta) - torch.tensor([0.25, 0.0])
    radius = x.norm(dim=1)
    inside = -(((radius - 0.1) / 0.01) ** 2) / 2 - radius.log()
    return torch.where(x[:, 0] > 0, inside, -math.inf)


def exact(y: Tensor, k: int, seed: int) -> Tensor:
    """Draw k times from the exact posterior of each row, by rejection outside the square."""
    g, rows = torch.Generator().manual_seed(seed), []
    for one in y:
        found = torch.zeros(0, 2)
        while len(found) < k:
            at = math.sqrt(2) * (one - crescent(k, g))
            total = at[:, 0] * torch.where(torch.rand(k, generator=g) < 0.5, 1.0, -1.0)
            theta = torch.stack([total - at[:, 1], total + at[:, 1]], 1) / 2
            found = torch.cat([found, theta[(at[:, 0] <= 0) & (theta.abs() < 1).all(1)]])
        rows.append(found[:k])
    return torch.stack(rows)


def train(options: Options) -> ScoreModel:
    """Return a model of p(theta | y), trained on simulations."""
    torch.manual_seed(0)  # the first weights
    data = load(TensorDataset(*simulate(options.simulations, 1)), standardize=True)
    net = nn.MLP(2, hidden=(128,) * 3, condition={"y": 2})
    model = ScoreModel(
        net, VESDE(sigma_min=0.002, sigma_max=20.0), data.event_shape,
        moments=Moments(*data.moments()), condition_moments=data.condition_moments(),
    )  # fmt: skip
    config = TrainConfig(
        steps=options.steps, batch_size=256, condition_dropout=0.0,
        optimiser=Optimiser(lr=2e-3), averages=Averages(ema=0.995),
    )  # fmt: skip
    return Trainer(model, data, config).train()


def main(options: Options) -> None:
    short = options.short
    model = train(Options(simulations=500, steps=50) if short else options)

    def learnt(y: Tensor, k: int, seed: int) -> Tensor:
        x = scoresde.sample(
            model, sampler="fast", steps=5 if short else 20, n=len(y) * k, seed=seed, units=True,
            condition={"y": y.repeat_interleave(k, 0)}, batch_size=20_000, progress=False,
        )  # fmt: skip
        return x.unflatten(0, (len(y), k))

    n, y = 100 if short else 2_000, torch.tensor([[0.0, 0.0], [-0.4, 0.3], [0.2, -1.1]])
    drawn = {"exact": exact(y, n, 1), "learnt": learnt(y, n, 0)}
    other = exact(y, n, 2)
    print("datum           energy distance to exact draws   (of other exact ones)")
    for i, (one, two) in enumerate(y.tolist()):
        far, floor = (energy_distance(x[i], drawn["exact"][i]) for x in (drawn["learnt"], other))
        print(f"({one:4.1f}, {two:4.1f})   {far:31.5f}   ({floor:.5f})")
    sheet = plot.figure((9, 6.2))
    axes = sheet.subplots(2, 3, sharex=True, sharey=True)
    for row, (name, x) in enumerate(drawn.items()):
        for i, (one, two) in enumerate(y.tolist()):
            axes[row, i].scatter(*x[i].T, s=2, alpha=0.4, lw=0, color=("C0", "#d1495b")[row])
            axes[row, i].set(title=f"{name}, y = ({one:.1f}, {two:.1f})", aspect="equal")
    print(f"wrote {plot.save(sheet, options.out / 'posterior.png')}")

    for name, draw in {"exact": exact, "learnt": learnt}.items():
        found = calibrate(
            draw, simulate, n=20 if short else options.calibrated, log_likelihood=log_likelihood
        )
        print(f"{name}: {found.verdict()}")
    print(found)
    print(f"wrote {plot.save(found.plot(), options.out / 'posterior_calibration.png')}")


if __name__ == "__main__":
    main(tyro.cli(Options))
