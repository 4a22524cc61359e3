"""Draw digits at several noise levels, and the noise levels of six SDEs over time.

python examples/levels.py --out figures
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
import tyro

import scoresde
from scoresde import plot

NOISES = (0.01, 0.1, 0.3, 1.0, 3.0, 10.0, 50.0)


@dataclass(frozen=True)
class Options:
    """Choose what to run."""

    out: Path = Path("figures")
    """Where the picture goes."""
    short: bool = False
    """A run of seconds, too short to be good."""


def main(options: Options) -> None:
    model = scoresde.load("mnist")
    n, points = 2, 50 if options.short else 400
    x = scoresde.sample(model, sampler="fast", nfe=12, n=n, seed=5, condition={"label": [2, 5]})
    z = torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    # a noised digit is drawn on the scale of its own values, as the network sees it
    rows = [(x + s * z) / (1 + s**2) ** 0.5 for s in NOISES]
    strip = torch.stack(rows, 1).flatten(0, 1).clamp(-2, 2) / 2

    sheet = plot.figure((11, 6.6))
    above, below = sheet.subplots(2, 1, height_ratios=(1, 1))
    plot.images(strip, columns=len(NOISES), ax=above)
    above.set_title("σ / α = " + ",  ".join(f"{s:g}" for s in NOISES))
    t = torch.linspace(0.001, 0.999, points, dtype=torch.float64)
    for sde in (
        scoresde.VESDE(), scoresde.VPSDE(), scoresde.SubVPSDE(), scoresde.CosineSDE(),
        scoresde.EDMSDE(), scoresde.FlowSDE(),
    ):  # fmt: skip
        ratio = sde.sigma(t * sde.T) / sde.alpha(t * sde.T)
        below.plot(t, ratio, label=type(sde).__name__)
        print(f"{type(sde).__name__:10s} σ / α at T / 2: {float(ratio[points // 2]):8.3f}")
    below.set(yscale="log", ylim=(3e-3, 3e3), xlim=(0, 1), xlabel="t / T", ylabel="σ / α")
    below.set_title("the noise-to-signal ratio through time")
    below.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    print(f"wrote {plot.save(sheet, options.out / 'levels.png')}")


if __name__ == "__main__":
    main(tyro.cli(Options))
