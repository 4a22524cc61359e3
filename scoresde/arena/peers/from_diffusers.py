r"""Adapt the schedulers of diffusers (https://github.com/huggingface/diffusers).

Most schedulers take their noise levels from a table $\bar\alpha_0 > \bar\alpha_1 > \dots$ of a
model's training. Here the table is the grid itself, $\bar\alpha = 1 / (1 + \rho^2)$, so that each
scheduler takes exactly the steps of the grid. Schedulers for EDM take the noise levels directly.
Several schedulers cast the state to float32, so their errors do not fall below 1e-7.
"""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scoresde.arena.peers.peer import Denoiser, Method

__all__ = ["methods"]


def methods() -> dict[str, Method]:
    """Return every scheduler that takes a given grid, one entry per published order."""
    importlib.import_module("diffusers")
    found = {
        "DDIM": _table("DDIMScheduler", vp=True, clip_sample=False),
        "DDIM-eta1": _table("DDIMScheduler", vp=True, clip_sample=False, step={"eta": 1.0}),
        "DDPM": _table("DDPMScheduler", vp=True, clip_sample=False),
        "DDPM-large": _table(
            "DDPMScheduler", vp=True, clip_sample=False, variance_type="fixed_large"
        ),
        "PNDM": _table("PNDMScheduler", vp=True, epsilon=True, extra=1, skip_prk_steps=True),
        "Euler": _table("EulerDiscreteScheduler", epsilon=True),
        "EulerAncestral": _table("EulerAncestralDiscreteScheduler", epsilon=True),
        "Heun": _table("HeunDiscreteScheduler", epsilon=True, cost=2),
        "KDPM2": _table("KDPM2DiscreteScheduler", epsilon=True, cost=2),
        "KDPM2Ancestral": _table("KDPM2AncestralDiscreteScheduler", epsilon=True, cost=2),
        "LMS": _table("LMSDiscreteScheduler", epsilon=True),
        "EDMEuler": _edm("EDMEulerScheduler"),
    }
    multistep = "DPMSolverMultistepScheduler"
    for order in (2, 3):
        full: dict[str, Any] = {"vp": True, "solver_order": order}
        found |= {
            f"DPM++{order}M": _table(multistep, **full),
            f"DPM++{order}S": _table(
                "DPMSolverSinglestepScheduler", **full, spacing=None,
                final_sigmas_type="sigma_min",
            ),
            f"UniPC-{order}": _table("UniPCMultistepScheduler", **full),
            f"UniPC-{order}-bh1": _table("UniPCMultistepScheduler", **full, solver_type="bh1"),
            f"DEIS-{order}": _table("DEISMultistepScheduler", **full),
            f"EDM-DPM++{order}M": _edm("EDMDPMSolverMultistepScheduler", solver_order=order),
        }  # fmt: skip
    # by default methods of order 3 end with order 2 in runs of fewer than 15 steps
    full = {"vp": True, "solver_order": 3, "lower_order_final": False}
    found["DPM++3M-full"] = _table(multistep, **full)
    found["UniPC-3-full"] = _table("UniPCMultistepScheduler", **full)
    sde: dict[str, Any] = {"vp": True, "algorithm_type": "sde-dpmsolver++"}
    found |= {
        "SDE-DPM++2M": _table(multistep, **sde),
        "SDE-DPM++2M-heun": _table(multistep, **sde, solver_type="heun"),
        "EDM-SDE-DPM++2M": _edm("EDMDPMSolverMultistepScheduler", algorithm_type="sde-dpmsolver++"),
    }
    for tau in (0.0, 0.5, 1.0):
        found[f"SA-tau{tau:g}"] = _table(
            "SASolverScheduler", vp=True, tau_func=lambda t, tau=tau: tau
        )
    return found


def _table(
    name: str,
    *,
    vp: bool = False,
    epsilon: bool = False,
    cost: int = 1,
    extra: int = 0,
    spacing: str | None = "trailing",
    step: dict[str, Any] | None = None,
    **settings: Any,
) -> Method:
    """Return a scheduler with a table of noise levels.

    Args:
        name: The class of the scheduler.
        vp: True if the scheduler's state is y / sqrt(1 + rho^2) instead of y.
        epsilon: True if the scheduler takes the noise (y - D) / rho instead of the denoised D.
        cost: The number of evaluations of a step.
        extra: The number of further evaluations of a run.
        spacing: "trailing" evaluates the network at all levels. None is for schedulers without this
            option; they end at the lowest level and do not evaluate the network there.
        step: Further arguments of the scheduler's method `step`.
        settings: Arguments of the scheduler's constructor.
    """

    def run(denoiser: Denoiser, rho: Tensor, y: Tensor) -> Tensor:
        steps, table = len(rho) - 1, rho.flip(0)
        alphas_bar = 1 / (1 + table**2)
        betas = 1 - alphas_bar / torch.cat([alphas_bar.new_ones(1), alphas_bar[:-1]])
        chosen = settings | ({} if spacing is None else {"timestep_spacing": spacing})
        scheduler = getattr(importlib.import_module("diffusers"), name)(
            num_train_timesteps=steps + 1, trained_betas=betas.numpy(),
            prediction_type="epsilon" if epsilon else "sample", **chosen,
        )  # fmt: skip
        # tables in float64, since the rounding of a float32 table has errors of 1e-4 at small noise
        scheduler.alphas_cumprod = alphas_bar
        scheduler.set_timesteps(steps if spacing is None else steps + 1)
        if hasattr(scheduler, "sigmas"):
            exact = torch.cat([rho, rho.new_zeros(1)])
            nearest = (scheduler.sigmas[:, None].double() - exact).abs().argmin(1)
            scheduler.sigmas = exact[nearest]
        scheduler.is_scale_input_called = True
        levels, logs = np.arange(steps + 1), table.log().numpy()
        x = y / (1 + rho[0] ** 2).sqrt() if vp else y
        for t in scheduler.timesteps[: cost * steps + extra]:
            now = torch.tensor(np.interp(float(t), levels, logs)).exp()
            y = x * (1 + now**2).sqrt() if vp else x
            denoised = denoiser(y, now)
            output = (y - denoised) / now if epsilon else denoised
            x = scheduler.step(output, t, x, return_dict=False, **(step or {}))[0]
        return x * (1 + rho[-1] ** 2).sqrt() if vp else x

    return Method(run, lambda evaluations: (evaluations - extra) // cost)


def _edm(name: str, **settings: Any) -> Method:
    """Return a scheduler for EDM, which takes noise levels and the network's raw output."""

    def run(denoiser: Denoiser, rho: Tensor, y: Tensor) -> Tensor:
        scheduler = getattr(importlib.import_module("diffusers"), name)(sigma_data=1.0, **settings)
        scheduler.set_timesteps(len(rho))
        scheduler.sigmas = torch.cat([rho, rho.new_zeros(1)])
        scheduler.timesteps = scheduler.precondition_noise(rho)
        scheduler.is_scale_input_called = True
        for t, now in zip(scheduler.timesteps[:-1], rho, strict=False):
            skip, scale = 1 / (1 + now**2), now / (1 + now**2).sqrt()
            output = (denoiser(y, now) - skip * y) / scale
            y = scheduler.step(output, t, y, return_dict=False)[0]
        return y

    return Method(run)
