"""Draw digits by three samplers at growing numbers of evaluations, from the same noise.

All columns start from the same noise, so they differ only by the errors of the samplers. The last
column shows the digits of `dpmpp_2m` with 400 steps.

    python examples/budgets.py --out figures
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
import tyro

import scoresde
from scoresde import plot


@dataclass(frozen=True)
class Options:
    """Choose what to run."""

    out: Path = Path("figures")
    """Where the picture goes."""
    short: bool = False
    """A run of seconds, too short to be good."""


def main(options: Options) -> None:
    model = scoresde.load("mnist")
    budgets, n, fine = ((5, 10), 2, 20) if options.short else ((4, 6, 8, 12, 20), 4, 400)
    same = dict(n=n, seed=3, condition={"label": torch.arange(n) * 2 + 1})
    exact = scoresde.sample(model, sampler="dpmpp_2m", steps=fine, **same)
    sheet = plot.figure((2.0 * (len(budgets) + 1), 6.4))
    panels = sheet.subplots(3, len(budgets) + 1)
    print("distance to the digits of " + f"{fine} steps, root mean square over the pixels")
    print("evaluations  " + "".join(f"{nfe:8d}" for nfe in budgets))
    for name, row in zip(("ddim", "dpmpp_2m", "fast"), panels, strict=True):
        errors = []
        for nfe, ax in zip(budgets, row, strict=False):
            x = scoresde.sample(model, sampler=name, nfe=nfe, **same)
            errors.append(float((x - exact).square().mean().sqrt()))
            plot.images(x, columns=2, ax=ax, title=f"{name}, {nfe}")
        plot.images(exact, columns=2, ax=row[-1], title=f"{fine} steps")
        print(f"{name:13s}" + "".join(f"{error:8.3f}" for error in errors))
    print(f"wrote {plot.save(sheet, options.out / 'budgets.png')}")


if __name__ == "__main__":
    main(tyro.cli(Options))
