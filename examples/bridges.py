r"""Restore blurred digits by a bridge, by a conditional model and by a posterior.

Digits of 8x8 pixels are blurred, and noise is added. The bridge learns the difference of the sharp
and the blurred digit. The conditional model draws the digit from noise, given the blurred one. The
posterior sampler uses a model of sharp digits and the formula of the blur. All three have the same
network, the same training and the same budget of passes for each draw. For each the script prints
the distance of a draw, and of the mean of the draws, to the true digit. Their ratio shows whether
the draws vary as much as they err. The picture shows the true digits and the draws.

    python examples/bridges.py --out figures
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
import tyro
from torch import Tensor

import scoresde
from scoresde import SDE, VESDE, BrownianBridgeSDE, Moments, ScoreModel, nn, plot
from scoresde.data import Data, load
from scoresde.guidance import Blur, Linear, posterior
from scoresde.objectives import edm
from scoresde.samplers import Heun, MeanStart
from scoresde.sde import LogNormal
from scoresde.training import Optimiser, TrainConfig, Trainer

BLUR, STD = Blur(1.0), 0.1


@dataclass(frozen=True)
class Options:
    """Choose what to run."""

    out: Path = Path("figures")
    """Where the picture goes."""
    steps: int = 500
    """Training steps of each model, of 128 digits each."""
    passes: int = 60
    """Passes of the network for each draw."""
    n: int = 60
    """Digits."""
    draws: int = 10
    """Draws for each digit."""
    short: bool = False
    """A run of seconds, too short to be good."""


def blurred(x: Tensor, seed: int) -> Tensor:
    """Return the blurred digits, with noise."""
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(seed))
    return BLUR(x) + STD * noise


def size(x: Tensor) -> float:
    """Return the root of the mean square of all numbers."""
    return float(x.square().mean().sqrt())


def train(data: Data, sde: SDE, steps: int) -> ScoreModel:
    """Return a model of the data given their conditions."""
    torch.manual_seed(0)  # the first weights
    kinds = {"y": 1} if data.kinds else None
    moments = Moments(*data.moments())
    model = ScoreModel(
        nn.UNet(1, channels=(32, 64), dropout=0.2, condition=kinds), sde, data.event_shape,
        moments=moments, condition_moments=data.condition_moments(),
    )  # fmt: skip
    config = TrainConfig(steps=steps, condition_dropout=0.0, optimiser=Optimiser(lr=2e-3))
    width = moments.mean_variance() ** 0.5
    law = LogNormal(float(torch.tensor(0.6 * width).log()), 1.2)
    loss = partial(scoresde.dsm_loss, weight=edm(width**2), law=law)
    return Trainer(model, data, config, loss=loss).train()


def main(options: Options) -> None:
    """Train the three, draw by each, and compare with the truth."""
    short = options.short
    known, held = load("digits").split(1 / 3)
    n, k, passes = (6, 2, 12) if short else (options.n, options.draws, options.passes)
    steps = 5 if short else options.steps
    x, y = known.x, blurred(known.x, 0)
    truth = held.x[:n]
    seen = blurred(truth, 1)
    rows = seen.repeat_interleave(k, 0)

    residual = float((x - y).std())
    noise = VESDE(sigma_min=0.01, sigma_max=20.0)
    bridge = train(Data(x - y, y=y), BrownianBridgeSDE(s=residual), steps)
    given = train(Data(x, y=y), noise, steps)
    score = posterior(train(Data(x), noise, steps), Linear(BLUR, STD), iterations=1)
    options_of = dict(n=n * k, seed=0, batch_size=1_000)
    half = passes // 2
    drawn = {
        "bridge": rows
        + scoresde.sample(
            bridge, sampler=MeanStart(Heun()), steps=half - 1, condition={"y": rows}, **options_of
        ),
        "condition": scoresde.sample(
            given, sampler="heun", steps=half, condition={"y": rows}, **options_of
        ),
        "posterior": scoresde.sample(
            score, sampler="heun", steps=half // 3, condition={"measurement": rows}, **options_of
        ),
    }
    expected = (2 * k / (k + 1)) ** 0.5
    print(f"{n} digits, {k} draws each, {passes} passes a draw; black to white is 2")
    print(f"{'':10} a draw is off   the mean   ratio ({expected:.2f} if the truth were a draw)")
    print(f"{'blurred':10} {size(seen - truth):13.3f}")
    columns = [seen, truth]
    for name, found in drawn.items():
        found = found.unflatten(0, (n, k))
        off, middle = size(found - truth[:, None]), size(found.mean(1) - truth)
        print(f"{name:10} {off:13.3f} {middle:10.3f} {off / middle:7.2f}")
        columns += [found[:, 0], found[:, 1]]
    rows = torch.stack([c[:10] for c in columns]).flatten(0, 1)
    picture = plot.images(rows, columns=min(n, 10), limits=(-1, 1))
    path = plot.save(picture, options.out / "bridges.png")
    print(f"wrote {path}: what was seen, the truth, and two draws of each")


if __name__ == "__main__":
    main(tyro.cli(Options))
