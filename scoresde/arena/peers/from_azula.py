"""Adapt the samplers of azula (https://github.com/probabilists/azula)."""

from __future__ import annotations

import importlib
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from scoresde.arena.peers.peer import Denoiser, Method

__all__ = ["methods"]


class _Model:
    """Wrap a denoiser in azula's interface, with alpha = 1 and sigma on a grid of times."""

    def __init__(self, denoiser: Denoiser, rho: Tensor) -> None:
        self.denoiser = denoiser
        self.rho = rho

    def schedule(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Return alpha and sigma at the times 1, ..., 0 of the grid."""
        index = ((1 - t) * (len(self.rho) - 1)).round().long()
        return torch.ones_like(t), self.rho[index]

    def __call__(self, x: Tensor, t: Tensor) -> SimpleNamespace:
        return SimpleNamespace(mean=self.denoiser(x, self.schedule(t)[1]))


def methods() -> dict[str, Method]:
    """Return all samplers of azula by name, except Euler, which equals azula's DDIM."""
    sample = importlib.import_module("azula.sample")

    def method(name: str, cost: int = 1, **settings: Any) -> Method:
        def run(denoiser: Denoiser, rho: Tensor, y: Tensor) -> Tensor:
            sampler = getattr(sample, name)(
                denoiser=_Model(denoiser, rho), steps=len(rho) - 1, silent=True,
                dtype=torch.float64, **settings,
            )  # fmt: skip
            end: Tensor = sampler(y)
            return end

        return Method(run, lambda evaluations: evaluations // cost)

    found = {
        "DDIM": method("DDIMSampler"),
        "DDPM": method("DDPMSampler"),
        "Heun": method("HeunSampler", cost=2),
        "Ito": method("ItoSampler"),
        "PC": method("PCSampler", cost=2),
    }
    for family in ("zAB", "vAB", "zEAB", "xEAB", "REAB"):
        for order in (2, 3):
            found[f"{family}-{order}"] = method(f"{family}Sampler", order=order)
    return found
