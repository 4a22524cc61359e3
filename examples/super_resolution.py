r"""Draw digits of 8x8 pixels given digits of 4x4 pixels, which have several solutions.

A U-Net is given the means of 2x2 pixels, and learns the distribution of the fine digit. The picture
shows held-out digits and several draws. The script prints the distance of the coarsened draws to
the given digits; the size of the fine detail of true digits, of draws and of their mean; and
whether the variation of the draws fits their error.

    python examples/super_resolution.py --out figures
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
import tyro
from torch import Tensor
from torch.nn import functional as F

import scoresde
from scoresde import VESDE, Moments, ScoreModel, nn, plot
from scoresde.data import Data, load
from scoresde.objectives import edm
from scoresde.sde import LogNormal
from scoresde.training import Optimiser, TrainConfig, Trainer


@dataclass(frozen=True)
class Options:
    """Choose what to run."""

    out: Path = Path("figures")
    """Where the picture goes."""
    steps: int = 500
    """Training steps, of 128 digits each."""
    draws: int = 20
    """Draws for each coarse digit."""
    short: bool = False
    """A run of seconds, too short to be good."""


def coarse(x: Tensor) -> Tensor:
    """Return the means of 2x2 pixels, `(n, 1, 4, 4)`."""
    return F.avg_pool2d(x, 2)


def large(x: Tensor) -> Tensor:
    """Return images in which each pixel becomes 2x2 equal pixels."""
    return F.interpolate(x, scale_factor=2)


def size(x: Tensor) -> float:
    """Return the root of the mean square of all numbers."""
    return float(x.square().mean().sqrt())


def train(data: Data, steps: int) -> ScoreModel:
    """Return a model of digits given their coarse versions."""
    torch.manual_seed(0)  # the first weights
    data = Data(data, label=None, coarse=coarse(data.x))
    # 1,198 digits are few: in 1,500 steps without dropout the draws become too alike
    net = nn.UNet(1, channels=(32, 64), dropout=0.2, condition={"coarse": (1, 4, 4)})
    model = ScoreModel(
        net, VESDE(sigma_min=0.01, sigma_max=20.0), data.event_shape,
        moments=Moments(*data.moments()), condition_moments=data.condition_moments(),
    )  # fmt: skip
    config = TrainConfig(steps=steps, condition_dropout=0.0, optimiser=Optimiser(lr=2e-3))
    weight = edm(model.moments.mean_variance())
    loss = partial(scoresde.dsm_loss, weight=weight, law=LogNormal(-0.5, 1.2))
    return Trainer(model, data, config, loss=loss).train()


def main(options: Options) -> None:
    short = options.short
    known, held = load("digits").split(1 / 3)
    model = train(known, 30 if short else options.steps)

    n, k = (10, 4) if short else (100, options.draws)
    truth = held.x[:n]
    given = coarse(truth)
    x = scoresde.sample(
        model, sampler="fast", steps=5 if short else 20, n=n * k, seed=0, batch_size=1_000,
        condition={"coarse": given.repeat_interleave(k, 0)},
    ).unflatten(0, (n, k))  # fmt: skip
    mean = x.mean(1)

    flat = x.flatten(0, 1)
    off = size(coarse(flat) - given.repeat_interleave(k, 0))
    apart = size(given - given.roll(1, 0))
    print(f"{n} digits, {k} draws each; black to white is 2")
    print(f"draws made coarse again are {off:.3f} off, another digit {apart:.3f}")
    print("fine detail, what a digit has beyond its coarse one")
    for name, images in {"true digits": truth, "draws": flat, "mean of draws": mean}.items():
        print(f"  {name:15s} {size(images - large(coarse(images))):.3f}")
    print("distance to the true digit, per pixel")
    print(f"  mean of draws   {size(mean - truth):.3f}")
    expected = (2 * k / (k + 1)) ** 0.5
    ratio = size(x - truth[:, None]) / size(mean - truth)
    print(f"  draws           {size(x - truth[:, None]):.3f}, {ratio:.3f} times as far;"
          f" {expected:.3f} if the truth were one more draw")  # fmt: skip
    rows = torch.cat([large(given)[None], truth[None], mean[None], x.transpose(0, 1)[:4]])
    picture = plot.images(rows[:, :10].flatten(0, 1), columns=10, limits=(-1, 1))
    path = plot.save(picture, options.out / "super_resolution.png")
    print(f"wrote {path}: what was given, the truth, the mean of the draws, four draws")


if __name__ == "__main__":
    main(tyro.cli(Options))
