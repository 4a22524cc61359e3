r"""Forecast the next state of a field on a circle by an ensemble, and compare with the exact law.

The field follows an advection-diffusion equation with random forcing,
du = (-c u_x + nu u_xx) dt + dW. So the next state given this one is Gaussian, with a mean and a
spread in closed form. A periodic U-Net learns its distribution from pairs of states. With
`--burgers` the field is advected by itself, -u u_x, and mean and spread are estimated from 1,000
runs of the simulator. The script prints the errors of the mean and the spread of ensembles, for
states that were not trained on, and the same errors for as many runs of the simulator.

    python examples/forecast.py --out figures
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
import tyro
from torch import Tensor

import scoresde
from scoresde import VPSDE, Moments, ScoreModel, nn, plot
from scoresde.data import Data
from scoresde.training import Averages, Optimiser, TrainConfig, Trainer

CELLS, PARTS, TIME = 64, 10, 0.4  # of the circle, and of the time from one state to the next
SPEED, VISCOSITY = 2.0, 0.1
K = torch.arange(CELLS // 2 + 1)  # wave numbers
DECAY = torch.exp(-(VISCOSITY * K**2 + 1j * SPEED * K) * TIME / PARTS)
FORCE = 0.6 * torch.exp(-K / 4) * (K > 0) * (K < CELLS // 2)  # the forcing of a part


@dataclass(frozen=True)
class Options:
    """Choose what to run."""

    out: Path = Path("figures")
    """Where the picture goes."""
    burgers: bool = False
    """Simulate Burgers' equation: the field is advected by itself."""
    steps: int = 2_000
    """Training steps, of 64 pairs each."""
    members: int = 100
    """Members of an ensemble."""
    short: bool = False
    """A run of seconds, too short to be good."""


def later(u: Tensor, g: torch.Generator, burgers: bool) -> Tensor:
    """Draw the next states of fields `(n, 1, CELLS)`."""
    u = u.double()
    for _ in range(PARTS):
        if burgers:  # what the field carries in a part of the time
            flux = torch.fft.rfft(u.square() / 2) * (K < CELLS // 3)
            u = u - TIME / PARTS * torch.fft.irfft(1j * K * flux)
        noise = torch.randn(u.shape, generator=g, dtype=torch.float64)
        u = torch.fft.irfft(DECAY * torch.fft.rfft(u) + FORCE * torch.fft.rfft(noise))
    return u.float()


def law(u: Tensor, burgers: bool) -> tuple[Tensor, Tensor]:
    """Return the mean and the standard deviation of the next state of each field."""
    if burgers:
        g = torch.Generator().manual_seed(9)
        runs = torch.stack([later(u, g, burgers) for _ in range(1_000)])
        return runs.mean(0), runs.std(0)
    mean = torch.fft.irfft(DECAY**PARTS * torch.fft.rfft(u.double())).float()
    power = FORCE**2 * sum(DECAY.abs() ** (2 * part) for part in range(PARTS))
    return mean, (2 * power.sum() / CELLS).sqrt().expand(u.shape).float()  # two waves for each k


def pairs(paths: int, steps: int, seed: int, burgers: bool) -> tuple[Tensor, Tensor]:
    """Return states of several runs of the simulator, and the next state of each."""
    g, states = torch.Generator().manual_seed(seed), [torch.zeros(paths, 1, CELLS)]
    for _ in range(50 + steps):  # 50 to forget where they began
        states.append(later(states[-1], g, burgers))
    return torch.cat(states[50:-1]), torch.cat(states[51:])


def train(before: Tensor, after: Tensor, steps: int) -> ScoreModel:
    """Return a model of the next state given the previous one."""
    torch.manual_seed(0)  # the first weights
    data = Data(after, previous=before)
    net = nn.UNet(
        1, channels=(32, 48, 64), spatial=1, padding="circular", condition={"previous": 1}
    )
    model = ScoreModel(
        net, VPSDE(), data.event_shape, moments=Moments(*data.moments()),
        condition_moments=data.condition_moments(),
    )  # fmt: skip
    config = TrainConfig(
        steps=steps, batch_size=64, condition_dropout=0.0, optimiser=Optimiser(lr=2e-3),
        averages=Averages(ema=0.995),
    )  # fmt: skip
    return Trainer(model, data, config).train()


def main(options: Options) -> None:
    short, burgers = options.short, options.burgers
    members = 5 if short else options.members
    learnt = pairs(10, 10, 0, burgers) if short else pairs(200, 100, 0, burgers)
    model = train(*learnt, 30 if short else options.steps)

    state, after = pairs(8, 1, 1, burgers)  # of other runs
    ensembles = torch.stack(
        [
            scoresde.sample(
                model, sampler="fast", steps=5 if short else 20, n=members, seed=i,
                condition={"previous": one}, progress=False,
            )
            for i, one in enumerate(state)
        ]
    )  # fmt: skip
    g = torch.Generator().manual_seed(2)
    runs = torch.stack([later(state, g, burgers) for _ in range(members)], 1)
    mean, spread = law(state, burgers)
    print(f"the spread of all states is {after.std():.2f}, that of the next given one"
          f" {spread.square().mean().sqrt():.2f}")  # fmt: skip
    print("ensembles of          error of the mean, in spreads   spread, over the exact one")
    for name, x in (("the model", ensembles), ("the simulator", runs)):
        error = ((x.mean(1) - mean) / spread).square().mean().sqrt()
        ratio = (x.var(1).mean() / spread.square().mean()).sqrt()
        print(f"{name:20s} {error:31.3f} {ratio:28.3f}")

    sheet = plot.figure((10, 6.4))
    cells = range(CELLS)
    for i, axes in enumerate(sheet.subplots(2, 2, sharex=True, sharey=True).flatten()):
        low, high = (mean[i, 0] + sign * 2 * spread[i, 0] for sign in (-1, 1))
        axes.fill_between(cells, low, high, color="0.85", label="exact mean ± 2 spreads")
        axes.plot(ensembles[i, :8, 0].T, color="#d1495b", lw=0.6, alpha=0.6)
        ours, width = ensembles[i, :, 0].mean(0), ensembles[i, :, 0].std(0)
        axes.plot(ours, color="#d1495b", label="mean ± 2 spreads of the ensemble, 8 members")
        for sign in (-1, 1):
            axes.plot(ours + sign * 2 * width, color="#d1495b", ls="--", lw=1)
        axes.plot(state[i, 0], color="0.5", ls=":", label="this state")
        axes.plot(after[i, 0], color="k", lw=1, label="what came next")
    sheet.supxlabel("cell of the circle", fontsize="medium")
    sheet.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=4)
    print(f"wrote {plot.save(sheet, options.out / 'forecast.png')}")


if __name__ == "__main__":
    main(tyro.cli(Options))
