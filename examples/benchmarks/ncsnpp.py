r"""Compare our NCSN++ and DDPM++ with the authors' networks, in equal trainings on small images.

The authors' code is read from a checkout of score_sde_pytorch, whose path is the argument; its
CUDA operation is replaced by plain PyTorch. Both networks have the same configuration, and so the
same parameters; each draws its own first weights. For each seed both see the same batches, times,
noise and dropout for the same number of steps of Adam. The table has the held-out loss of both
under common times and noise, the relative difference, ours over theirs less 1, and its 95 %
interval over the seeds (of Student's t). Below it, ours begins with the weights of theirs: the
relative difference of the outputs before the training, and of the held-out losses after it.

    git clone https://github.com/yang-song/score_sde_pytorch
    python examples/benchmarks/ncsnpp.py score_sde_pytorch
    python examples/benchmarks/ncsnpp.py score_sde_pytorch --problem mnist --steps 200
    python examples/benchmarks/ncsnpp.py score_sde_pytorch --short    # seconds: does it run?
"""

from __future__ import annotations

import importlib
import math
import statistics
import sys
import types
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import torch.nn.functional as F
import tyro
from problems import PROBLEMS
from scipy import stats
from torch import Tensor, nn

from scoresde import SDE, VESDE, VPSDE, Noise, dsm_loss, from_network
from scoresde.data import Data
from scoresde.nn import NCSNpp
from scoresde.score import NetworkScore

BATCH = 32
COMMON = dict(
    name="ncsnpp", sigma_min=0.01, sigma_max=50.0, num_scales=1000, beta_min=0.1, beta_max=20.0,
    normalization="GroupNorm", nonlinearity="swish", resamp_with_conv=True, conditional=True,
    fir_kernel=[1, 3, 3, 1], skip_rescale=True, resblock_type="biggan", progressive_combine="sum",
    attention_type="ddpm", init_scale=0.0, fourier_scale=16.0, conv_size=3, dropout=0.1,
)  # fmt: skip
KINDS: dict[str, dict[str, Any]] = {
    "ncsnpp": dict(
        fir=True, progressive="none", progressive_input="residual", embedding_type="fourier",
        scale_by_sigma=True,
    ),
    "pyramids": dict(
        fir=True, progressive="output_skip", progressive_input="input_skip",
        embedding_type="fourier", scale_by_sigma=True,
    ),
    "ddpmpp": dict(
        fir=False, progressive="none", progressive_input="none", embedding_type="positional",
        scale_by_sigma=False,
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Options:
    """Choose what to run."""

    reference: Annotated[Path | None, tyro.conf.Positional] = None
    """A checkout of score_sde_pytorch; a short run without one compares ours with itself."""
    kind: tuple[str, ...] = tuple(KINDS)
    """Which configurations: ncsnpp (as for CIFAR-10), pyramids (as for FFHQ), ddpmpp."""
    problem: str = "digits"
    """Which images: digits (1x8x8), mnist (1x28x28) or patches (3x32x32), as in recipes.py."""
    width: int = 16
    """Channels of the first of two resolutions, a multiple of 4; the second has twice as many."""
    steps: int = 400
    """Steps of each training, in batches of 32."""
    seeds: int = 3
    """Trainings of each, by their first weights, batches and noise."""
    short: bool = False
    """A run of seconds that shows that everything works and measures nothing."""


# --- the authors' network -------------------------------------------------------------------------


def upfirdn2d(
    x: Tensor, kernel: Tensor, up: int = 1, down: int = 1, pad: tuple[int, int] = (0, 0)
) -> Tensor:
    """Put zeros between the pixels, pad, convolve with a filter, and keep every `down`-th pixel."""
    channels, height, width = x.shape[1:]
    wide = x.new_zeros(*x.shape[:2], up * height, up * width)
    wide[..., ::up, ::up] = x
    taps = kernel.to(x).flip(0, 1).expand(channels, 1, *kernel.shape)
    return F.conv2d(F.pad(wide, (*pad, *pad)), taps, groups=channels)[..., ::down, ::down]


def authors(path: Path) -> Any:
    """Return the authors' module of NCSN++."""
    operations: Any = types.ModuleType("op")  # theirs are compiled for CUDA
    operations.upfirdn2d = upfirdn2d
    sys.modules["op"] = operations
    sys.path.insert(0, str(path))
    try:
        return importlib.import_module("models.ncsnpp")
    except ImportError as error:
        sys.exit(f"{path} is not a checkout of score_sde_pytorch: {error}")


def config_of(kind: str, width: int, shape: tuple[int, ...]) -> Any:
    """Return a configuration in the form of score_sde_pytorch."""
    space = types.SimpleNamespace
    model = COMMON | KINDS[kind]
    model |= dict(nf=width, ch_mult=(1, 2), num_res_blocks=1, attn_resolutions=(shape[1] // 2,))
    data = space(image_size=shape[1], num_channels=shape[0], centered=True)
    sde = "vpsde" if kind == "ddpmpp" else "vesde"
    return space(model=space(**model), data=data, training=space(continuous=True, sde=sde))


class Theirs(nn.Module):
    """Wrap the authors' network."""

    def __init__(self, module: Any, config: Any) -> None:
        super().__init__()
        self.net = ours(config) if module is None else module.NCSNpp(config)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """Return its output: the score (ncsnpp, pyramids) or the noise (ddpmpp)."""
        return self.net(x, t)


def ours(config: Any) -> NCSNpp:
    """Return our network of a configuration."""
    model, data = config.model, config.data
    return NCSNpp(
        data.num_channels, data.image_size, model.nf, model.ch_mult, model.num_res_blocks,
        model.attn_resolutions, model.dropout, fir=model.fir, rescale=model.skip_rescale,
        fourier=model.fourier_scale if model.embedding_type == "fourier" else None,
        pyramid_in=model.progressive_input, pyramid_out=model.progressive == "output_skip",
        centred=data.centered,
    )  # fmt: skip


def both(module: Any, config: Any, seed: int) -> dict[str, NetworkScore]:
    """Return the scores of both networks, each with first weights of its own."""
    torch.manual_seed(seed)
    reference = Theirs(module, config)
    torch.manual_seed(seed + 1000)
    net = ours(config)
    if config.model.embedding_type == "fourier":  # ours has the same frequencies in each network
        nn.init.normal_(net.all_modules[0].W, 0, config.model.fourier_scale)
    if config.training.sde == "vpsde":
        sde: SDE = VPSDE(config.model.beta_min, config.model.beta_max)
        kinds = [("eps", "999t"), ("eps", "999t")]
    else:
        sde = VESDE(config.model.sigma_min, config.model.sigma_max)
        kinds = [("sigma_score", "log_sigma"), ("score", "sigma")]
    if module is None:
        kinds[1] = kinds[0]
    shape = (config.data.num_channels, config.data.image_size, config.data.image_size)
    nets = zip(("ours", "theirs"), (net, reference), kinds, strict=True)
    return {name: from_network(n, sde, *kind, event_shape=shape) for name, n, kind in nets}


# --- training and judging -------------------------------------------------------------------------


def trained(score: NetworkScore, data: Data, steps: int, seed: int) -> None:
    """Train by Adam, as both are; the batches, the noise and the dropout are those of the seed."""
    rows = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)  # the dropout
    weights = [p for p in score.parameters() if p.requires_grad]
    optimiser = torch.optim.Adam(weights, lr=1e-3)
    score.train()
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = 1e-3 * min(1.0, (step + 1) / 50)
        x = data.batch(torch.randint(len(data), (BATCH,), generator=rows)).float()
        loss = dsm_loss(score, score.sde, x, noise=Noise.of(seed, BATCH, first=BATCH * step)).mean()
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(weights, 1.0)
        optimiser.step()
    score.eval()


@torch.no_grad()
def judged(score: NetworkScore, held: Data, repeats: int) -> float:
    """Return the held-out loss for each number, the same noise for all."""
    x = held.batch(slice(0, 250)).float()
    found = [
        dsm_loss(score, score.sde, x, noise=Noise.of(10**6 + k, len(x))).mean()
        for k in range(repeats)
    ]
    return float(torch.stack(found).mean()) / x[0].numel()


def copied(scores: dict[str, NetworkScore], held: Data) -> float:
    """Give ours the weights of theirs; return the relative difference of the scores."""
    state = scores["theirs"].net.net.state_dict()
    state.pop("sigmas", None)
    scores["ours"].net.load_state_dict(state)
    with torch.no_grad():  # the last layers begin with zeros, which would hide all others
        for score in scores.values():
            torch.manual_seed(0)
            for p in score.net.parameters():
                if p.requires_grad:
                    p.add_(0.1 * torch.randn(p.shape))
    x = held.batch(slice(0, 16)).float()
    t = torch.linspace(0.05, 0.95, len(x), dtype=torch.float64)
    a, b = (score.eval()(x, t).detach() for score in scores.values())
    return float((a - b).abs().max() / b.abs().max())


def main(options: Options) -> None:
    """Measure and print."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    steps, seeds, repeats = options.steps, options.seeds, 20
    if options.short:
        steps, seeds, repeats = 3, 2, 1
    learnt, held = (
        data.without("label") if "label" in data.kinds else data
        for data in PROBLEMS[options.problem](True, options.short)
    )
    if options.reference is None and not options.short:
        sys.exit("give the path of a checkout of score_sde_pytorch")
    module = None if options.reference is None else authors(options.reference)
    print(f"{options.problem}, {steps} steps, {seeds} seeds; held-out losses, ours and theirs")
    for kind in options.kind:
        config = config_of(kind, options.width, learnt.event_shape)
        relative = []
        for seed in range(seeds):
            scores, losses = both(module, config, seed), {}
            sizes = [sum(p.numel() for p in s.net.parameters()) for s in scores.values()]
            assert sizes[0] == sizes[1]
            for name, score in scores.items():
                trained(score, learnt, steps, seed)
                losses[name] = judged(score, held, repeats)
            relative.append(losses["ours"] / losses["theirs"] - 1)
            print(
                f"{kind:9} seed {seed} {sizes[0]:,} parameters  {losses['ours']:.4f} "
                f"{losses['theirs']:.4f}  {100 * relative[-1]:+.2f} %", flush=True,
            )  # fmt: skip
        mean, spread = statistics.fmean(relative), statistics.stdev(relative)
        wide = stats.t.ppf(0.975, seeds - 1) * spread / math.sqrt(seeds)
        print(
            f"{kind:9} difference {100 * mean:+.2f} %, 95 % interval "
            f"[{100 * (mean - wide):+.2f}, {100 * (mean + wide):+.2f}] %"
        )
        scores = both(module, config, 0)
        apart = copied(scores, held)
        for score in scores.values():
            trained(score, learnt, steps, 0)
        a, b = (judged(score, held, repeats) for score in scores.values())
        print(
            f"{kind:9} from the same weights: outputs {apart:.1e} apart, losses after training "
            f"{abs(a / b - 1):.1e}\n", flush=True,
        )  # fmt: skip


if __name__ == "__main__":
    main(tyro.cli(Options))
