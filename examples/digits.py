"""Train a model of the 8x8 handwritten digits, and draw digits, in about two minutes.

The script prints the Fréchet distance in pixels of samples to held-out digits, and the same
distance for real training digits.

    python examples/digits.py --out figures
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
import tyro

import scoresde
from scoresde import VESDE, Moments, ScoreModel, nn, plot
from scoresde.data import load
from scoresde.metrics import frechet_distance
from scoresde.objectives import edm
from scoresde.sde import LogNormal
from scoresde.training import Optimiser, TrainConfig, Trainer


@dataclass(frozen=True)
class Options:
    """Choose what to run."""

    out: Path = Path("figures")
    """Where the picture goes."""
    steps: int = 2_000
    """Training steps, of 128 digits each."""
    short: bool = False
    """A run of seconds, too short to be good."""


def main(options: Options) -> None:
    torch.manual_seed(0)  # the first weights
    train, held = load("digits").split(1 / 3)

    sde = VESDE(sigma_min=0.01, sigma_max=20.0)
    net = nn.UNet(1, channels=(32, 64), blocks=1, num_classes=10)
    model = ScoreModel(net, sde, train.event_shape, moments=Moments(*train.moments()))
    config = TrainConfig(steps=30 if options.short else options.steps, optimiser=Optimiser(lr=2e-3))
    weight = edm(model.moments.mean_variance())
    loss = partial(scoresde.dsm_loss, weight=weight, law=LogNormal(-0.5, 1.2))
    model = Trainer(model, train, config, loss=loss).train()

    n = 60 if options.short else len(held)
    label = torch.arange(n) % 10
    x = scoresde.sample(
        model, sde, sampler="pc", n=n, steps=20 if options.short else 100, seed=0,
        condition={"label": label},
    )  # fmt: skip
    print(f"Fréchet distance in pixels to {len(held)} held-out digits, {n} images each")
    print(f"  drawn by the model  {frechet_distance(x, held.x):.3f}")
    print(f"  real training ones  {frechet_distance(train.x[:n], held.x):.3f}")
    picture = plot.images(x[:60], columns=10, limits=(-1, 1))
    print(f"wrote {plot.save(picture, options.out / 'digits.png')}")


if __name__ == "__main__":
    main(tyro.cli(Options))
