"""Train a score in the latent space of an autoencoder: 8x8 digits as codes of 8 numbers.

The script trains a small variational autoencoder, then a score of the codes that its encoder draws.
It prints the standard deviation of the codes, the Fréchet distance of decoded samples to held-out
digits, and a lower bound of the log-density.

    python examples/latent.py --out figures
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
import tyro
from torch import Tensor

import scoresde
from scoresde import Latent, Moments, ScoreModel, nn, plot
from scoresde.data import Data, load
from scoresde.likelihood import latent_elbo
from scoresde.metrics import frechet_distance
from scoresde.score import codes
from scoresde.training import Optimiser, TrainConfig, Trainer

CODE, NOISE = 8, 0.2  # numbers of a code, and the standard deviation of the decoder


@dataclass(frozen=True)
class Options:
    """Choose what to run."""

    out: Path = Path("figures")
    """Where the picture goes."""
    steps: int = 2_000
    """Training steps of the autoencoder, and as many of the score."""
    short: bool = False
    """A run of seconds, too short to be good."""


class Encoder(torch.nn.Module):
    """Return the mean and the standard deviation of the codes of images."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.Flatten(), torch.nn.Linear(64, 256), torch.nn.SiLU(),
            torch.nn.Linear(256, 256), torch.nn.SiLU(), torch.nn.Linear(256, 2 * CODE),
        )  # fmt: skip

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map images `(B, 1, 8, 8)` to two tensors `(B, CODE)`."""
        mean, log_std = self.layers(x).chunk(2, dim=1)
        return mean, log_std.exp()


def decoder_of() -> torch.nn.Module:
    return torch.nn.Sequential(
        torch.nn.Linear(CODE, 256), torch.nn.SiLU(), torch.nn.Linear(256, 256), torch.nn.SiLU(),
        torch.nn.Linear(256, 64), torch.nn.Unflatten(1, (1, 8, 8)),
    )  # fmt: skip


def trained(x: Tensor, steps: int) -> tuple[torch.nn.Module, torch.nn.Module]:
    """Return encoder and decoder that maximise the bound with a standard normal prior."""
    encoder, decoder = Encoder(), decoder_of()
    optimiser = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], 1e-3)
    for _ in range(steps):
        rows = x[torch.randint(len(x), (128,))]
        mean, std = encoder(rows)
        back = decoder(mean + std * torch.randn_like(mean))
        misfit = ((rows - back) ** 2).flatten(1).sum(1) / (2 * NOISE**2)
        divergence = (mean**2 + std**2 - 1 - 2 * std.log()).sum(1) / 2
        optimiser.zero_grad()
        (misfit + divergence).mean().backward()
        optimiser.step()
    return encoder, decoder


def main(options: Options) -> None:
    torch.manual_seed(0)  # the first weights and the batches of the autoencoder
    train, held = load("digits").split(1 / 3)
    steps = 60 if options.short else options.steps
    encoder, decoder = trained(train.x, steps)

    drawn, means = codes(encoder, train.x), encoder(train.x)[0].detach()
    print(
        f"std of the codes: {float(means.std()):.2f} of the means, {float(drawn.std()):.2f} drawn"
    )
    data = Data(drawn).standardized()

    model = ScoreModel(
        nn.MLP(CODE, hidden=(256, 256, 256)), scoresde.VPSDE(), (CODE,),
        moments=Moments(*data.moments()),
    )  # fmt: skip
    config = TrainConfig(steps=steps, batch_size=256, optimiser=Optimiser(lr=1e-3))
    score = Latent(Trainer(model, data, config).train(), encoder, decoder)

    n = 60 if options.short else len(held)
    x = scoresde.sample(score, sampler="dpmpp_2m", n=n, steps=20, seed=0, units=True)
    from_prior = decoder(torch.randn(n, CODE)).detach()
    print(f"Fréchet distance in pixels to {len(held)} held-out digits, {n} images each")
    print(f"  codes of the score        {frechet_distance(x, held.x):.3f}")
    print(f"  codes of a normal prior   {frechet_distance(from_prior, held.x):.3f}")
    print(f"  real training digits      {frechet_distance(train.x[:n], held.x):.3f}")
    few = held.x[:8]
    bound = latent_elbo(score, few, std=NOISE, draws=2, rtol=1e-3, atol=1e-3, error="estimate")
    print(
        f"log-density of held-out digits, at least, on average {float(bound.value.mean()):.1f} nats"
    )
    picture = plot.images(x[:60].clamp(-1, 1), columns=10)
    print(f"wrote {plot.save(picture, options.out / 'latent.png')}")


if __name__ == "__main__":
    main(tyro.cli(Options))
