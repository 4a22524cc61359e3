"""Guide an unconditional model of the 8x8 digits by a classifier of noisy digits.

The script trains a score without labels, and a small classifier of digits at any noise level. The
gradient of the classifier guides the samples to a class (Dhariwal & Nichol 2021, arXiv:2105.05233).
A second classifier, trained on other digits without noise, gives the class of each sample; the
script prints the share of samples with the class that was asked for.

    python examples/classifier_guidance.py --out figures
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
import tyro
from torch import Tensor
from torch.nn import functional as F

import scoresde
from scoresde import VESDE, Classes, Facts, Moments, Noise, ScoreModel, nn, plot
from scoresde.data import Data, load
from scoresde.guidance import classifier
from scoresde.metrics import Classifier
from scoresde.objectives import edm
from scoresde.sde import SDE, LogNormal
from scoresde.training import Optimiser, TrainConfig, Trainer


@dataclass(frozen=True)
class Options:
    """Choose what to run."""

    out: Path = Path("figures")
    """Where the picture goes."""
    steps: int = 1500
    """Training steps of the score, and of the classifier, of 128 digits each."""
    short: bool = False
    """A run of seconds, too short to be good."""


class NoisyClassifier(torch.nn.Module):
    """Compute log p(label | x, t) of 64 pixels, with the signature of classifier guidance."""

    def __init__(self, sde: SDE) -> None:
        super().__init__()
        self.sde = sde
        self.net = torch.nn.Sequential(
            torch.nn.Linear(65, 256), torch.nn.SiLU(),
            torch.nn.Linear(256, 256), torch.nn.SiLU(), torch.nn.Linear(256, 10),
        )  # fmt: skip

    @property
    def facts(self) -> Facts:
        """Return the facts: the classifier takes a label, and the guided score does not."""
        return Facts(sde=self.sde, conditions={"label": Classes(10)}, passes=1)

    def logits(self, x: Tensor, t: Tensor) -> Tensor:
        """Return the logits of the classes, from the scaled state and the noise level."""
        ratio = (-self.sde.log_snr(t) / 2).exp().to(x)[:, None]
        alpha = self.sde.alpha(t).to(x)[:, None]
        return self.net(torch.cat([x.flatten(1) / alpha / (1 + ratio**2).sqrt(), ratio.log()], 1))

    def forward(self, x: Tensor, t: Tensor, condition: dict[str, Tensor]) -> Tensor:
        """Return the log-probability of each label, or 0 if it is missing."""
        label = condition["label"]
        found = self.logits(x, t).log_softmax(1).gather(1, label.clamp(min=0)[:, None])[:, 0]
        return torch.where(label < 0, 0.0, found)

    def fit(self, data: Data, steps: int) -> None:
        """Train on digits with the same distribution of noise levels as the score."""
        optimiser = torch.optim.AdamW(self.parameters(), lr=2e-3, weight_decay=0.05)
        generator, law = torch.Generator().manual_seed(0), LogNormal(-0.5, 1.2)
        for step in range(steps):
            rows = torch.randint(len(data), (128,), generator=generator)
            t, _ = self.sde.sample_times(128, law=law, generator=generator)
            x = data.batch(rows)
            noisy = self.sde.perturb(x, t, Noise.of(step, 128).normal(x, 0.0))
            logits = self.logits(noisy, t)
            loss = F.cross_entropy(logits, data.label[rows])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()


def main(options: Options) -> None:
    torch.manual_seed(0)  # the first weights
    train, held = load("digits").split(1 / 3)
    sde = VESDE(sigma_min=0.01, sigma_max=20.0)
    steps = 30 if options.short else options.steps

    net = nn.UNet(1, channels=(32, 64), blocks=1)
    model = ScoreModel(net, sde, train.event_shape, moments=Moments(*train.moments()))
    config = TrainConfig(steps=steps, optimiser=Optimiser(lr=2e-3))
    loss = partial(
        scoresde.dsm_loss, weight=edm(model.moments.mean_variance()), law=LogNormal(-0.5, 1.2)
    )
    model = Trainer(model, load(train.x), config, loss=loss).train()
    log_prob = NoisyClassifier(sde)
    log_prob.fit(train, steps)

    judge = Classifier.fit(held, steps=steps)
    label = torch.arange(40 if options.short else 200) % 10
    print(f"the judge tells {judge.accuracy(train):.0%} of the real digits right")
    print("scale   as asked")
    rows = []
    for scale in (0.0, 1.0, 2.0, 4.0):
        x = scoresde.sample(
            classifier(model, log_prob, scale), sampler="pc", n=len(label), seed=0,
            steps=10 if options.short else 60, condition={"label": label},
        )  # fmt: skip
        rows.append(x[:10])
        hits = (judge.predict(x) == label).double().mean()
        print(f"{scale:5.1f}   {float(hits):.0%}")
    path = options.out / "classifier_guidance.png"
    picture = plot.images(torch.cat(rows), columns=10, limits=(-1, 1))
    print(f"wrote {plot.save(picture, path)}, a row for each scale")


if __name__ == "__main__":
    main(tyro.cli(Options))
