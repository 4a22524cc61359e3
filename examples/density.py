"""Learn two moons from points, and compute the log-density of the model with its error bar.

python examples/density.py --out figures
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
    target = TwoMoons()
    points, held = (
        target.sample(n, generator=torch.Generator().manual_seed(n)) for n in (4_000, 60)
    )
    steps, side = (50, 8) if options.short else (4_000, 50)
    held = held[:10] if options.short else held
    model = scoresde.suggest(points).trainer(steps=steps).train(progress=False)

    axis = torch.linspace(-2, 2, side)
    grid = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), -1).reshape(-1, 2)
    learnt = scoresde.log_prob(
        model, None, grid, t=model.sde.eps, rtol=1e-3, atol=1e-3, error="estimate"
    )
    maps = {"exact": target.log_prob(grid), "learnt": learnt.value}

    sheet = plot.figure((11.5, 4))
    panels = sheet.subplots(1, 3)
    for ax, (name, values) in zip(panels, maps.items(), strict=False):
        density = values.exp().reshape(side, side)
        ax.imshow(density, origin="lower", extent=(-2, 2, -2, 2), cmap="Blues", vmin=0, vmax=1.5)
        ax.set(title=f"the {name} density", xticks=[], yticks=[])

    found, exact = scoresde.log_prob(model, None, held), target.log_prob(held)
    panels[2].errorbar(
        exact, found.value, found.error, fmt="o", ms=3, color="C0", ecolor="C3", lw=1
    )
    ends = [float(exact.min()) - 0.3, float(exact.max()) + 0.3]
    panels[2].plot(ends, ends, "--", color="grey", lw=1)
    panels[2].set(
        title=f"{len(held)} new points, bars of 95 %",
        xlabel="exact log-density",
        ylabel="of the model",
    )
    gap = (found.value - exact).abs()
    print(f"new points: median error {gap.median():.3f} nats, ", end="")
    print(f"median half-width {found.error.median():.3f}")
    print(f"mean log-density {found.value.mean():.3f}, exact {exact.mean():.3f}")
    print(f"wrote {plot.save(sheet, options.out / 'density.png')}")


if __name__ == "__main__":
    main(tyro.cli(Options))
