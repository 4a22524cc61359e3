"""Adapt deepinv's samplers of posteriors."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from peers.of_azula import HIGH, LOW, stacked


def by(name: str, cost: int, **how: Any) -> Callable[[Any], Tensor]:
    """Return the sampler of a data-fidelity term by deepinv's ODE and Heun's method.

    Args:
        name: The class of the term.
        cost: Forward equivalents of a call, the denoiser of the prior included.
        how: Its arguments.
    """

    def draw(problem: Any) -> Tensor:
        deepinv = import_module("deepinv")
        std = float(problem.scanner.std)
        event = problem.prior.facts.event_shape

        class Denoiser(deepinv.models.Denoiser):
            def forward(self, x: Tensor, sigma: Any, **kwargs: Any) -> Tensor:
                return problem.prior.denoise(x, torch.as_tensor(sigma)).to(x)

        physics = deepinv.physics.LinearPhysics(
            A=lambda x, **_: problem.scanner(x),
            A_adjoint=lambda y, **_: problem.scanner.adjoint(y, y.new_zeros(len(y), *event)),
            noise_model=deepinv.physics.GaussianNoise(sigma=std),
        )
        sampling = deepinv.sampling
        steps = max(problem.budget // (2 * cost), 1)
        times = torch.linspace(1, 0, steps + 1, dtype=torch.float64)
        rng = torch.Generator().manual_seed(problem.seed)
        sde = sampling.VarianceExplodingDiffusion(
            sigma_min=LOW, sigma_max=HIGH, alpha=0.0, minus_one_one=False
        )
        model = sampling.PosteriorDiffusion(
            data_fidelity=getattr(sampling, name)(**how), denoiser=Denoiser(), sde=sde,
            solver=sampling.HeunSolver(timesteps=times, rng=rng), minus_one_one=False,
        )  # fmt: skip
        return model(
            stacked(problem).float(), physics, x_init=(problem.n, *event), denoise_output=False
        )

    return draw


DEEPINV: dict[str, Callable[[Any], Tensor]] = {
    "moment matching, 3": by("MomentMatchingDataFidelity", 9, cg_max_iter=3),
    "PiGDM": by("PiGDMDataFidelity", 3),
    "DPS, annealed": by("DPSDataFidelity", 3, guidance="annealed"),
}
