"""Train an MLP on two moons by denoising score matching, and draw by predictor-corrector sampling.

The target is a mixture of Gaussians, so the learned score can be compared with the exact score.

    python examples/quickstart.py --out figures
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
import tyro

import scoresde
from scoresde import VESDE, Moments, ScoreModel, nn, plot
from scoresde.data import Data
from scoresde.targets import TwoMoons
from scoresde.training import Averages, Optimiser, TrainConfig, Trainer


@dataclass(frozen=True)
class Options:
    """Choose what to run."""

    out: Path = Path("figures")
    """Where the picture goes."""
    steps: int = 4_000
    """Training steps, of 512 points each."""
    short: bool = False
    """A run of seconds, too short to be good."""


def main(options: Options) -> None:
    torch.manual_seed(0)  # the first weights
    target = TwoMoons()
    data = Data(target.sample(20_000, generator=torch.Generator().manual_seed(1)))

    sde = VESDE(sigma_min=0.01, sigma_max=10.0)
    model = ScoreModel(
        nn.MLP(2, hidden=(128, 128, 128)), sde, (2,), moments=Moments(*data.moments())
    )
    steps = 100 if options.short else options.steps
    config = TrainConfig(
        steps=steps, batch_size=512, optimiser=Optimiser(lr=2e-3), averages=Averages(ema=0.995)
    )
    model = Trainer(model, data, config).train()

    print("noise   relative Fisher error E|s_model - s|^2 / E|s|^2")
    for sigma in (0.03, 0.1, 0.3, 1.0, 3.0):
        t = sde.time(-2 * torch.tensor(sigma, dtype=torch.float64).log())
        x = target.sample(5_000, sde, t, generator=torch.Generator().manual_seed(2))
        exact = target.score(x, sde, t)
        with torch.no_grad():
            error = (model(x, t) - exact).pow(2).sum() / exact.pow(2).sum()
        print(f"{sigma:5.2f}   {error:.4f}")

    n = 200 if options.short else 4_000
    x = scoresde.sample(model, sde, sampler="pc", n=n, steps=100 if options.short else 500, seed=0)
    upper = (target.assign(x) < len(target.weights) // 2).float().mean()
    moments = target.moments()
    print(f"share of the upper moon {upper:.3f} (exact 0.500)")
    real = target.sample(n, generator=torch.Generator().manual_seed(3))
    ours, theirs = (target.log_prob(points).mean() for points in (x, real))
    print(f"mean of log p_0 {ours:.3f}, of real points {theirs:.3f}")
    print(f"covariance error {(x.T.cov() - moments.cov).norm() / moments.cov.norm():.3f}")
    picture = plot.points(x, density=target)
    print(f"wrote {plot.save(picture, options.out / 'quickstart.png')}")


if __name__ == "__main__":
    main(tyro.cli(Options))
