"""A model of another library: say what it is, sample it, give likelihoods, audit it.

    python examples/interop.py azula
    python examples/interop.py path/of/a/folder

For a name the script makes a tiny model in that library's own form, of a mixture of two Gaussians
whose score is known, so that likelihoods and the audit have a truth to agree with; the one of sbi
is trained in a few seconds. A folder is a model that scoresde saved, or a pipeline that diffusers
saved, and is sampled and described only, since its data are not known. Without a name all kinds are
run.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any

import torch
import tyro
from torch import Tensor, nn

import scoresde
from scoresde import EDMSDE, VPSDE, BetaLadder, Classes, FlowSDE, interop
from scoresde.audit import audit

DATA = scoresde.targets.GaussianMixture([0.4, 0.6], [[-1.0, 0.5], [1.0, 0.0]], stds=0.3)


@dataclass(frozen=True)
class Options:
    """What to open."""

    model: Annotated[str, tyro.conf.Positional] = "all"
    """azula, deepinv, diffusers, edm, k_diffusion, network, sbi or velocity, or a folder."""
    short: bool = False
    """Few steps and levels, too few to be good."""


def denoiser(x: Tensor, sigma: Tensor) -> Tensor:
    """The mean of the data behind x = x0 + sigma z."""
    return DATA.denoise(x, EDMSDE(T=1e3, eps=0.0), sigma)


def eps(x: Tensor, t: Tensor) -> Tensor:
    """The noise in x under a variance preserving SDE."""
    sde = VPSDE()
    return -sde.at(t, x)[1] * DATA.at(sde)(x, t)


def velocity(x: Tensor, tau: Tensor) -> Tensor:
    """The direction from noise at tau = 0 to data at tau = 1."""
    return (DATA.denoise(x, FlowSDE(), 1 - tau) - x) / (1 - tau)[:, None]


class EDMNetwork(nn.Module):
    """A network with the calling convention of EDM."""

    sigma_data = 1.0

    def forward(self, x: Tensor, sigma: Tensor, class_labels: Tensor | None = None) -> Tensor:
        """Return the denoised state."""
        return denoiser(x, sigma)


class DiffusersNetwork(nn.Module):
    """A network with the calling convention of diffusers."""

    def __init__(self, ladder: BetaLadder) -> None:
        super().__init__()
        self.ladder = ladder

    def forward(self, sample: Tensor, timestep: Tensor, *, return_dict: bool = True) -> Any:
        """Return the predicted noise."""
        t = timestep.double() / (len(self.ladder.betas) - 1)
        noise = -self.ladder.at(t, sample)[1] * DATA.at(self.ladder)(sample, t)
        return SimpleNamespace(sample=noise) if return_dict else (noise,)


def of_diffusers() -> scoresde.Score:
    import diffusers

    scheduler = diffusers.DDPMScheduler(num_train_timesteps=1000)
    ladder = interop.from_diffusers(nn.Identity(), scheduler).sde
    return interop.from_diffusers(DiffusersNetwork(ladder), scheduler, **KNOWN)


def of_azula() -> scoresde.Score:
    return interop.from_azula(interop.to_azula(DATA.at(VPSDE())), **KNOWN)


class Observed(scoresde.Wrapped):
    """The score of a posterior at one observation."""

    def __init__(self, score: scoresde.Score, x: Tensor) -> None:
        super().__init__(score)
        self.x = x

    @property
    def facts(self) -> scoresde.Facts:
        """Return the facts of the posterior, which takes no condition any more."""
        return replace(super().facts, conditions={}, moments=None)

    def __call__(self, x: Tensor, t: Tensor, condition: Any = None) -> Tensor:
        """Return the score at the observation."""
        return self.ask(self.score, x, t, {"x": self.x.expand(len(x), -1)})


def of_sbi() -> scoresde.Score:
    from sbi.neural_nets.net_builders.vector_field_nets import build_vector_field_estimator

    torch.manual_seed(0)
    y = torch.randn(4096, 2)  # observations that say nothing: the posterior is the law DATA
    theta = DATA.sample(4096, generator=torch.Generator().manual_seed(1))
    estimator = build_vector_field_estimator(theta, y, estimator_type="score", sde_type="vp")
    optimiser = torch.optim.Adam(estimator.parameters(), 2e-3)
    for _ in range(600):
        rows = torch.randint(4096, (512,))
        loss = estimator.loss(theta[rows], y[rows]).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return Observed(interop.from_sbi(estimator), torch.zeros(1, 2))


KNOWN: dict[str, Any] = {"event_shape": (2,), "moments": DATA.moments()}
MODELS: dict[str, Callable[[], Any]] = {
    "azula": of_azula,
    "deepinv": lambda: interop.from_deepinv(denoiser, sigma_min=0.01, sigma_max=50.0, **KNOWN),
    "diffusers": of_diffusers,
    "edm": lambda: interop.from_edm(EDMNetwork(), **KNOWN),
    "k_diffusion": lambda: interop.from_k_diffusion(denoiser, **KNOWN),
    "network": lambda: scoresde.from_network(eps, VPSDE(), "eps", "t", **KNOWN),
    "sbi": of_sbi,
    "velocity": lambda: interop.from_velocity(velocity, **KNOWN),
}


def opened(name: str) -> Any:
    """Return the score of a name or of a folder."""
    if not Path(name).is_dir():
        if name not in MODELS:
            raise SystemExit(f"{name} is neither a folder nor one of {', '.join(MODELS)}")
        return MODELS[name]()
    return scoresde.load(name)


def main(options: Options) -> None:
    for name in MODELS if options.model == "all" else [options.model]:
        try:
            describe(name, short=options.short)
        except ImportError as error:
            print(f"{name}: {error}")


def describe(name: str, *, short: bool) -> None:
    """Say what a model is, and how good."""
    score = opened(name)
    known = scoresde.facts(score)
    print(f"\n{name}: {score!r:.200}")
    print(f"a sample has the shape {known.event_shape}, conditions: {known.conditions}")
    steps = 5 if short else 40
    kinds = (known.conditions or {}).items()
    classes = {k: torch.arange(4) % kind.n for k, kind in kinds if isinstance(kind, Classes)}
    x = scoresde.sample(
        score, sampler="dpmpp_2m", n=4, steps=steps, seed=0, condition=classes or None
    )
    print(f"{len(x)} samples in {steps} steps, std {float(x.std()):.3f}")
    if Path(name).is_dir():
        return
    held_out = DATA.sample(64, generator=torch.Generator().manual_seed(0))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a ladder is evaluated between its levels
        found = scoresde.log_prob(score, None, held_out[:4].double(), rtol=1e-4, atol=1e-4)
        truth = DATA.log_prob(held_out[:4].double())
        print("log_prob ", " ".join(f"{value:8.3f}" for value in found.value.tolist()))
        print("the truth", " ".join(f"{value:8.3f}" for value in truth.tolist()))
        few = dict(levels=3, samples=16, steps=4) if short else {}
        print(audit(score, None, held_out, progress=False, **few))


if __name__ == "__main__":
    main(tyro.cli(Options))
