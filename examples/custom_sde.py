"""Define a new SDE by two functions of time, the signal scale and the noise scale.

Drift, diffusion, transition, prior and time grid are derived from them, and every sampler runs. The
script draws from a target with an exact score under a cubic schedule.

    python examples/custom_sde.py --out figures
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
import tyro
from torch import Tensor

import scoresde
from scoresde import plot
from scoresde.targets import EightGaussians


@dataclass(frozen=True)
class CubicSDE(scoresde.SDE):
    r"""Define the variance exploding SDE with $\sigma_t = \sigma_0 + (\sigma_T - \sigma_0) t^3$."""

    sigma_0: float = 0.01
    sigma_T: float = 10.0
    eps: float = 0.0

    def alpha(self, t: Tensor) -> Tensor:
        """Return the signal scale."""
        return torch.ones_like(t)

    def sigma(self, t: Tensor) -> Tensor:
        """Return the noise scale."""
        return self.sigma_0 + (self.sigma_T - self.sigma_0) * t**3


@dataclass(frozen=True)
class Options:
    """Choose what to run."""

    out: Path = Path("figures")
    """Where the picture goes."""
    short: bool = False
    """A run of seconds."""


def main(options: Options) -> None:
    sde, target = CubicSDE(), EightGaussians()
    t = torch.tensor(0.5, dtype=torch.float64)
    by_hand = (2 * sde.sigma(t) * (sde.sigma_T - sde.sigma_0) * 3 * t**2).sqrt()
    print(f"g(0.5): derived {sde.diffusion(t):.6f}, by hand {by_hand:.6f}")

    n, steps = (500, 100) if options.short else (5_000, 500)
    print(f"eight modes of weight 0.125, {n} samples, {steps} steps")
    print("sampler            lightest  heaviest  spread (exact 1)")
    for name in ("pc", "em", "reverse_diffusion", "ancestral"):
        x = scoresde.sample(target.at(sde), sde, name, n=n, steps=steps, seed=0, denoise=False)
        mode = target.assign(x)
        share = mode.bincount(minlength=8) / n
        # p_eps has each mode's variance plus that of the noise which is left
        var = 0.2**2 + sde.sigma_0**2
        spread = (x - target.means[mode]).pow(2).mean().div(var).sqrt()
        print(f"{name:18} {share.min():8.3f}  {share.max():8.3f}  {spread:6.3f}")
        if name == "pc":
            picture = plot.points(x, density=target)
            print(f"wrote {plot.save(picture, options.out / 'custom_sde.png')}")


if __name__ == "__main__":
    main(tyro.cli(Options))
