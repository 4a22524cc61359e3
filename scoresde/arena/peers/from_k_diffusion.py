"""Adapt the samplers of k-diffusion (https://github.com/crowsonkb/k-diffusion).

All its samplers are in one module, which needs only scipy, torchdiffeq and torchsde. The package's
`__init__` imports accelerate, clean-fid, clip, kornia, scikit-image, wandb and others, and needs an
old numpy. So the module is loaded without this `__init__`, and

    pip install torchdiffeq && pip install --no-deps k-diffusion

is enough.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from types import ModuleType
from typing import Any

from torch import Tensor

from scoresde.arena.peers.peer import Denoiser, Method

__all__ = ["methods"]


def _sampling() -> ModuleType:
    if "k_diffusion" not in sys.modules:
        spec = importlib.util.find_spec("k_diffusion")
        if spec is None or spec.submodule_search_locations is None:
            raise ImportError("k_diffusion is not installed")
        package = ModuleType("k_diffusion")
        package.__path__ = list(spec.submodule_search_locations)
        sys.modules["k_diffusion"] = package
    return importlib.import_module("k_diffusion.sampling")


def methods() -> dict[str, Method]:
    """Return all samplers by name, except `dpm_adaptive`, which chooses its number of steps.

    Two SDE methods are also listed with eta = 0. The other SDE methods with eta = 0 are left out,
    since they equal ODE methods in the list.
    """
    sampling = _sampling()

    def method(name: str, cost: int = 1, **settings: Any) -> Method:
        def run(denoiser: Denoiser, rho: Tensor, y: Tensor) -> Tensor:
            end: Tensor = getattr(sampling, f"sample_{name}")(
                lambda x, sigma: denoiser(x, sigma[0]), y, rho, disable=True, **settings
            )
            return end

        return Method(run, lambda evaluations: evaluations // cost)

    def fast(denoiser: Denoiser, rho: Tensor, y: Tensor) -> Tensor:
        """Run dpm_fast, whose steps are equal in log rho and take up to three evaluations each."""
        end: Tensor = sampling.sample_dpm_fast(
            lambda x, sigma: denoiser(x, sigma[0].clamp(rho[-1], rho[0])),
            y, float(rho[-1]), float(rho[0]), len(rho) - 1, disable=True,
        )  # fmt: skip
        return end

    return {
        "euler": method("euler"),
        "heun": method("heun", 2),
        "heun-churn": method("heun", 2, s_churn=40.0),
        "dpm_2": method("dpm_2", 2),
        "lms": method("lms"),
        "dpm_fast": Method(fast, grids=("exp",)),
        "dpmpp_2m": method("dpmpp_2m"),
        "dpmpp_2m_sde": method("dpmpp_2m_sde"),
        "dpmpp_2m_sde-heun": method("dpmpp_2m_sde", solver_type="heun"),
        "dpmpp_3m_sde": method("dpmpp_3m_sde"),
        "euler_ancestral": method("euler_ancestral"),
        "dpm_2_ancestral": method("dpm_2_ancestral", 2),
        "dpmpp_2s_ancestral": method("dpmpp_2s_ancestral", 2),
        "dpmpp_sde": method("dpmpp_sde", 2),
        "dpmpp_2s-eta0": method("dpmpp_2s_ancestral", 2, eta=0.0),
        "dpmpp_3m-eta0": method("dpmpp_3m_sde", eta=0.0),
    }
