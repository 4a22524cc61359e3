"""Open a model of another library, describe it, sample it, compute likelihoods and audit it.

    python examples/interop.py azula
    python examples/interop.py path/of/a/folder
    python examples/interop.py checkpoint_26.pth --config cifar10_ncsnpp_continuous.py
    python examples/interop.py path/of/a/folder --data images/

For a name the script makes a tiny model in the form of that library. Models of points have the
exact score of a mixture of two Gaussians, so that likelihoods and the audit can be checked; only
the model of sbi is trained, in a few seconds. Models of images are trained on the 8x8 digits of the
package, too shortly to be good, written to a file in the format of their library, and read from it.

A path may lead to a model that scoresde saved, to a pipeline that diffusers saved, or to a
checkpoint of score_sde_pytorch or ncsnv2 with its configuration. Likelihoods and the audit need
held-out data; without --data the samples of the model are used. Without a name all kinds of models
are made and described.
"""

from __future__ import annotations

import json
import runpy
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any

import torch
import tyro
from torch import Tensor, nn

import scoresde
from scoresde import EDMSDE, SDE, VESDE, VPSDE, BetaLadder, Classes, FlowSDE, SubVPSDE, interop
from scoresde.audit import audit
from scoresde.score import NetworkScore
from scoresde.units import Identity

DATA = scoresde.targets.GaussianMixture([0.4, 0.6], [[-1.0, 0.5], [1.0, 0.0]], stds=0.3)


@dataclass(frozen=True)
class Options:
    """Choose what to open."""

    model: Annotated[str, tyro.conf.Positional] = "all"
    """A name (azula, ddpmpp, ddpmpp_discrete, ddpmpp_subvp, deepinv, diffusers, edm, folder,
    k_diffusion, latent, ncsnpp, ncsnpp_discrete, ncsnv2, network, pipeline, sbi, velocity), a
    packaged model, or a path."""
    config: Path | None = None
    """The configuration of a checkpoint: JSON, YAML, or Python with get_config(), which is run."""
    data: Path | None = None
    """Held-out data, as every command of scoresde reads them."""
    short: bool = False
    """Few steps and levels, too few to be good."""


# --- points ---------------------------------------------------------------------------------------


def denoiser(x: Tensor, sigma: Tensor) -> Tensor:
    """Return the mean of the data x0 given x = x0 + sigma z."""
    return DATA.denoise(x, EDMSDE(T=1e3, eps=0.0), sigma)


def eps(x: Tensor, t: Tensor) -> Tensor:
    """Return the predicted noise in x under a variance preserving SDE."""
    sde = VPSDE()
    return -sde.at(t, x)[1] * DATA.at(sde)(x, t)


def velocity(x: Tensor, tau: Tensor) -> Tensor:
    """Return the velocity of the flow from noise at tau = 0 to data at tau = 1."""
    return (DATA.denoise(x, FlowSDE(), 1 - tau) - x) / (1 - tau)[:, None]


class EDMNetwork(nn.Module):
    """Compute the exact denoiser with the signature of networks of EDM."""

    sigma_data = 1.0

    def forward(self, x: Tensor, sigma: Tensor, class_labels: Tensor | None = None) -> Tensor:
        """Return the denoised state."""
        return denoiser(x, sigma)


class DiffusersNetwork(nn.Module):
    """Compute the exact noise with the signature of networks of diffusers."""

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
    """Evaluate the score of a posterior at one observation."""

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
    y = torch.randn(4096, 2)  # independent of theta, so that the posterior is DATA
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


# --- images, in files -----------------------------------------------------------------------------


def digits(part: slice) -> tuple[Tensor, Tensor]:
    """Return digits of 8x8 pixels in [-1, 1], and their classes."""
    data = scoresde.data.load("digits")
    return data.batch(part).float(), data.condition(part)["label"]


def learn(
    score: NetworkScore, steps: int, encode: Callable[[Tensor], Tensor] | None = None
) -> None:
    """Train the network of a score on digits, or on their codes."""
    x, label = digits(slice(1500))
    x = x if encode is None else encode(x)
    weights = [p for p in score.parameters() if p.requires_grad]
    optimiser = torch.optim.Adam(weights, 3e-3)
    rows = torch.randint(len(x), (steps, 32), generator=torch.Generator().manual_seed(0))
    for step, row in enumerate(rows):
        given = {"label": label[row]} if score.facts.conditions else None
        noise = scoresde.Noise.of(step, 32)
        loss = scoresde.dsm_loss(score, score.sde, x[row], noise=noise, condition=given).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    score.eval()


def score_sde(sde: str, continuous: bool, folder: Path, steps: int) -> scoresde.Score:
    """Write a checkpoint as score_sde_pytorch does, and read it."""
    fourier = sde == "vesde" and continuous
    config = {
        "model": dict(
            name="ncsnpp", sigma_min=0.01, sigma_max=50.0, beta_min=0.1, beta_max=20.0,
            num_scales=1000, nonlinearity="swish", nf=8, ch_mult=[1, 2], num_res_blocks=1,
            attn_resolutions=[4], dropout=0.1, conditional=True, fir=fourier,
            fir_kernel=[1, 3, 3, 1], skip_rescale=True, resblock_type="biggan", progressive="none",
            progressive_input="residual" if fourier else "none", progressive_combine="sum",
            embedding_type="fourier" if fourier else "positional", fourier_scale=16,
            scale_by_sigma=sde == "vesde",
        ),
        "training": {"sde": sde, "continuous": continuous},
        "data": {"image_size": 8, "num_channels": 1, "centered": True},
    }  # fmt: skip
    kind = scoresde.nn.NCSNpp.ve if fourier else scoresde.nn.NCSNpp.vp
    betas = tuple(torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64).tolist())
    forms: dict[tuple[str, bool], tuple[SDE, str, str]] = {
        ("vesde", True): (VESDE(), "sigma_score", "log_sigma"),
        ("vesde", False): (VESDE(levels=1000), "sigma_score", "descending"),
        ("vpsde", True): (VPSDE(), "eps", "999t"),
        ("vpsde", False): (BetaLadder(betas), "eps", "index"),
        ("subvpsde", True): (SubVPSDE(), "eps", "999t"),
    }
    net = kind(channels=1, size=8, width=8, mult=(1, 2), blocks=1, attention=(4,))
    learn(scoresde.from_network(net, *forms[sde, continuous]), steps)
    weights = [p for p in net.parameters() if p.requires_grad]
    named = {f"module.{name}": value for name, value in net.state_dict().items()}
    named["module.sigmas"] = VESDE().sigma(torch.linspace(1, 0, 1000))
    save = {"model": named, "ema": {"shadow_params": weights}, "optimizer": {}, "step": steps}
    return written(save, config, folder)


def ncsnv2(folder: Path, steps: int) -> scoresde.Score:
    """Write a checkpoint as ncsnv2 does, and read it."""
    sde = scoresde.NCSNLadder.geometric(0.01, 20.0, 60)
    net = scoresde.nn.NCSNv2(1, 8, 8, centred=True)
    learn(scoresde.from_network(net, sde, "sigma_score", "sigma"), steps)
    weights = net.state_dict()
    state = {f"module.{name}": value for name, value in weights.items()}
    state["module.sigmas"] = torch.tensor(sde.sigmas).flip(0)
    config = {"data": {"image_size": 8, "rescaled": True, "logit_transform": False}}
    return written([state, {}, 1, steps, weights], config, folder)


def written(save: Any, config: Any, folder: Path) -> scoresde.Score:
    """Write a checkpoint and its configuration, and read it as a user's."""
    torch.save(save, folder / "checkpoint.pth")
    (folder / "config.json").write_text(json.dumps(config))
    return opened(str(folder / "checkpoint.pth"), folder / "config.json")


def unet(channels: int, size: int) -> nn.Module:
    """Return a small network of diffusers, of ten classes."""
    import diffusers

    return diffusers.UNet2DModel(
        sample_size=size, in_channels=channels, out_channels=channels, layers_per_block=1,
        block_out_channels=(8, 16), norm_num_groups=4, down_block_types=("DownBlock2D",) * 2,
        up_block_types=("UpBlock2D",) * 2, num_class_embeds=10,
    )  # fmt: skip


def pipeline(folder: Path, steps: int) -> scoresde.Score:
    """Save a pipeline of diffusers, and read it."""
    import diffusers

    net, scheduler = unet(1, 8), diffusers.DDPMScheduler()
    learn(interop.from_diffusers(net, scheduler), steps)
    diffusers.DDPMPipeline(net, scheduler).save_pretrained(folder)
    return opened(str(folder))


def latent(folder: Path, steps: int) -> scoresde.Score:
    """Save a pipeline of diffusers in the space of an autoencoder's codes, and read it."""
    import diffusers

    vae = diffusers.AutoencoderKL(
        in_channels=1,
        out_channels=1,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(4, 4),
        sample_size=8,
        latent_channels=2,
        norm_num_groups=2,
        scaling_factor=0.4,
    )  # fmt: skip  (it is not trained)
    net, scheduler = unet(2, 4), diffusers.DDIMScheduler()
    score = interop.from_diffusers(net, scheduler)
    learn(score, steps, interop.with_vae(score, vae).encode)
    diffusers.LDMPipeline(vae, net, scheduler).save_pretrained(folder)
    return opened(str(folder))


def own(folder: Path, steps: int) -> scoresde.Score:
    """Save a model of this package, and read it."""
    model = scoresde.ScoreModel(scoresde.nn.UNet(1, channels=(16, 32)), VESDE(), (1, 8, 8))
    learn(model, steps)
    model.save_pretrained(folder)
    return opened(str(folder))


FILES: dict[str, Callable[[Path, int], scoresde.Score]] = {
    "ddpmpp": partial(score_sde, "vpsde", True),
    "ddpmpp_discrete": partial(score_sde, "vpsde", False),
    "ddpmpp_subvp": partial(score_sde, "subvpsde", True),
    "folder": own,
    "latent": latent,
    "ncsnpp": partial(score_sde, "vesde", True),
    "ncsnpp_discrete": partial(score_sde, "vesde", False),
    "ncsnv2": ncsnv2,
    "pipeline": pipeline,
}


# --- opening and describing -----------------------------------------------------------------------


def opened(path: str, config: Path | None = None) -> scoresde.Score:
    """Return the score of a path, or of a packaged model."""
    if config is not None:
        settings = read_config(config)
        # a configuration of ncsnv2 has no names of networks
        theirs = "model" in settings and "name" in settings["model"]
        return (interop.load_score_sde if theirs else interop.load_ncsnv2)(path, settings)
    if (index := Path(path) / "model_index.json").is_file():
        parts = json.loads(index.read_text())
        return (interop.load_diffusers if {"vae", "vqvae"} & parts.keys() else scoresde.load)(path)
    return scoresde.load(path)


def read_config(path: Path) -> Any:
    """Return the configuration in a file."""
    if path.suffix == ".py":
        return runpy.run_path(str(path))["get_config"]()
    if path.suffix == ".json":
        return json.loads(path.read_text())
    import yaml

    return yaml.safe_load(path.read_text())


def held_out(
    score: scoresde.Score, name: str, path: Path | None, drawn: Tensor
) -> tuple[Tensor, dict[str, Tensor] | None]:
    """Return data in model units and their labels, or the samples if there are no data."""
    if name in MODELS:
        return DATA.sample(64, generator=torch.Generator().manual_seed(0)), None
    kinds = (scoresde.facts(score).conditions or {}).items()
    classes = {k: torch.arange(64) % kind.n for k, kind in kinds if isinstance(kind, Classes)}
    x, label = drawn, {k: v[: len(drawn)] for k, v in classes.items()}
    if name in FILES:
        x, digit = digits(slice(1500, 1564))
        label = {"label": digit} if classes else {}
    elif path is not None:
        data = scoresde.data.load(path)
        if not isinstance(score, scoresde.Latent):
            data = data.units_of(scoresde.facts(score).transform or Identity())
        x, label = data.batch(slice(64)).float(), data.condition(slice(64)) or {}
    else:
        print("no --data: the rest is about the model's own samples")
    if isinstance(score, scoresde.Latent) and x is not drawn:
        x = score.encode(x)
    return x, {k: label[k] for k in classes if k in label} or None


def describe(name: str, score: Any, data: Path | None, *, short: bool) -> None:
    """Print what a model is, its samples, log-densities and audit."""
    known = scoresde.facts(score)
    print(f"\n{name}: {score!r:.200}")
    print(f"a sample has the shape {known.event_shape}, conditions: {known.conditions}")
    n, steps = 16, 5 if short else 40
    kinds = (known.conditions or {}).items()
    given = {k: torch.arange(n) % kind.n for k, kind in kinds if isinstance(kind, Classes)}
    x = scoresde.sample(
        score, sampler="dpmpp_2m", n=n, steps=steps, seed=0, condition=given or None
    )
    print(f"{len(x)} samples in {steps} steps, std {float(x.std()):.3f}")
    x, label = held_out(score, name, data, x)
    tolerance, rough = (0.01 if short else 1e-4), dict[str, Any]()
    if name not in MODELS:  # a rough estimate, for a network of images
        tolerance = 0.3 if short else 0.03
        rough = dict(method="hutchinson", probes=2 if short else 8, error="estimate")
    rough |= dict(rtol=tolerance, atol=tolerance)
    options: dict[str, Any] = dict(progress=False, condition=label)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a ladder is evaluated between its levels
        moments = scoresde.Moments(x.mean(0).double(), var=float(x.var(0).mean()))
        two = label and {k: v[:2] for k, v in label.items()}
        found = scoresde.log_prob(
            score, None, x[:2].double(), moments=moments, **(options | rough | {"condition": two})
        )
        print("log_prob ", " ".join(f"{value:8.3f}" for value in found.value.tolist()))
        if name in MODELS:
            truth = DATA.log_prob(x[:2].double())
            print("the truth", " ".join(f"{value:8.3f}" for value in truth.tolist()))
        few = dict(levels=3, samples=16, steps=4) if short else {}
        print(audit(score, None, x, **options, **few))


def main(options: Options) -> None:
    """Open and describe."""
    steps = 5 if options.short else 300
    for name in [*MODELS, *FILES] if options.model == "all" else [options.model]:
        torch.manual_seed(0)  # the first weights of networks that are made here
        with tempfile.TemporaryDirectory() as folder:
            try:
                if name in MODELS:
                    score = MODELS[name]()
                elif name in FILES:
                    score = FILES[name](Path(folder), steps)
                else:
                    score = opened(name, options.config)
            except ImportError as error:
                print(f"{name}: {error}")
            except scoresde.ScoreSDEError as error:
                raise SystemExit(f"{name}: {error}") from error
            else:
                describe(name, score, options.data, short=options.short)


if __name__ == "__main__":
    main(tyro.cli(Options))
