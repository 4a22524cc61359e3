"""Draw one panel with each of eight functions of scoresde.plot.

python examples/pictures.py --out figures
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
import tyro

import scoresde
from scoresde import plot
from scoresde.targets import TwoMoons


@dataclass(frozen=True)
class Options:
    """Choose what to run."""

    out: Path = Path("figures")
    """Where the picture goes."""
    short: bool = False
    """A run of seconds, too short to be good."""


def main(options: Options) -> None:
    moons, sde = TwoMoons(), scoresde.VESDE(0.01, 10.0)
    score = moons.at(sde)
    n = 100 if options.short else 600
    generator = torch.Generator().manual_seed(0)
    data = moons.sample(n, generator=generator)
    x = scoresde.sample(score, sampler="fast", n=n, seed=0)
    walks = torch.randn(60, 1, 100, generator=generator).cumsum(2)
    y, x_ = torch.meshgrid(torch.linspace(0, 6, 24), torch.linspace(0, 8, 32), indexing="ij")
    turn = 6.2832 * torch.rand(4, 1, 1, 1, generator=generator)
    fields = 20 + 5 * torch.sin(x_ + turn) * torch.cos(y - turn)
    where = torch.linspace(-1, 1, 16)
    ball = torch.exp(-4 * (where[:, None, None] ** 2 + where[:, None] ** 2 + where**2))
    volumes = ball * torch.rand(3, 1, 1, 1, 1, generator=generator)

    sheet = plot.figure((17, 8))
    ax = sheet.subplots(2, 4).flat
    plot.points({"data": data, "samples": x}, ax=ax[0], title="points")
    plot.signals(walks, ax=ax[1], title="signals")
    plot.images(fields, columns=2, ax=ax[2], title="images")
    plot.volumes(volumes, ax=ax[3], title="volumes")
    states = scoresde.trajectory(score, sampler="heun", n=40, steps=20, seed=0)
    plot.trajectory(states, density=moons, ax=ax[4], title="trajectory")
    plot.field(
        score, moons.sample(200, sde, 0.6, generator=generator), 0.6, ax=ax[5], title="field"
    )
    plot.ladder(sde, times=sde.times(20), ax=ax[6], title="ladder")
    plot.curve([3.0, 1.5, 1.1, 0.9], ax=ax[7], label="training")
    plot.curve([1.6, 1.2], steps=[2, 4], ax=ax[7], label="held-out data", title="curve")
    print(f"wrote {plot.save(sheet, options.out / 'pictures.png')}")


if __name__ == "__main__":
    main(tyro.cli(Options))
