r"""Define problems of many dimensions: densities of real images, and mixtures of unequal widths.

A kernel density of patches of photographs resembles a learnt model of images: its score varies on
many scales near a thin set. The photographs are the sample images of matplotlib and scikit-learn;
only the left half of each is used. In the mixtures "widths", standard deviations differ by a factor
of a hundred, both along the axes of one mode and between modes; in "sheets" by a factor of fifty.

A hash of the name of a distribution decides whether it is for choosing settings ("tuning") or for
final comparisons ("judging"), so that the division does not depend on results. The kinds "terrain"
and "sheets" are for judging only.
"""

from __future__ import annotations

import hashlib
import importlib
import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal

import matplotlib
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from scoresde.arena.problem import Problem, generator_of, rotation
from scoresde.arena.reference import DOP853
from scoresde.checks import door
from scoresde.errors import MissingExtraError
from scoresde.sde import EDMSDE, SDE, VESDE, VPSDE, FlowSDE
from scoresde.targets import GaussianMixture, KernelDensity, Target

__all__ = ["image_densities", "judging", "patches", "pixels"]

_SDES: tuple[Callable[[], SDE], ...] = (VESDE, VPSDE, EDMSDE, FlowSDE)
_PHOTOGRAPHS = ("hopper", "china", "flower")
# The number of patches of a density, and the seed of their positions.
_PATCHES, _SEED = 256, 21
# The reference must be much more precise than the errors that are compared.
_FLOW = DOP853(rtol=1e-8)


@door
def image_densities(part: Literal["tuning", "judging"] = "tuning") -> tuple[Problem, ...]:
    """Return the problems of many dimensions that are for tuning, or for judging.

    Args:
        part: "tuning" or "judging".

    Raises:
        UnknownNameError: `part` is neither.
        MissingExtraError: scikit-learn is not installed.
    """
    return tuple(
        _problem(name, make) for name, make in _all() if judging(name) == (part == "judging")
    )


def judging(name: str) -> bool:
    """Return True if a distribution is for judging, by its kind or by the SHA-256 of its name."""
    kind = name.split("-")[0]
    return kind in ("terrain", "sheets") or bool(_hash(name)[0] & 1)


def _hash(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()


def _problem(name: str, make: Callable[[], Target]) -> Problem:
    """Return the problem of a distribution under one of four SDEs, chosen by the same hash."""
    sde = _SDES[_hash(name)[1] % len(_SDES)]()
    return replace(Problem.of(make(), sde, f"{name}/{type(sde).__name__}"), flow=_FLOW)


def _all() -> Iterator[tuple[str, Callable[[], Target]]]:
    """Yield for each distribution its name, and a function that makes it."""
    for patch in itertools.product(_PHOTOGRAPHS, ("grey", "colour"), (8, 16), (0.05, 0.2)):
        yield _name(*patch), partial(_photograph, *patch)
    for bandwidth in (0.05, 0.2):
        yield _name("digits", bandwidth), partial(_digits, bandwidth)
    for law in itertools.product((128, 256), range(4)):
        yield _name("widths", *law), partial(_widths, *law)
    for tile in itertools.product((8, 16), (0.05, 0.2)):
        yield _name("terrain", *tile), partial(_terrain, *tile)
    for seed in range(3):
        yield _name("sheets", seed), partial(_sheets, seed)


def _name(*parts: object) -> str:
    return "-".join(map(str, parts))


def _photograph(picture: str, colour: str, size: int, bandwidth: float) -> Target:
    """Return the kernel density of patches `(C, size, size)` of the left half of a photograph."""
    x = pixels(picture)
    if colour == "grey":
        x = x.mean(0, keepdim=True)
    return KernelDensity(patches(x, size), bandwidth)


def patches(x: Tensor, size: int) -> Tensor:
    """Return patches `(K, C, size, size)` of the left half of a picture, at random positions.

    They are standardised together, to mean 0 and variance 1.
    """
    g, left = generator_of(_SEED, size), x[..., : x.shape[-1] // 2]
    _, height, width = left.shape
    rows, columns = (
        torch.randint(side - size + 1, (_PATCHES,), generator=g).tolist()
        for side in (height, width)
    )
    found = torch.stack(
        [left[:, i : i + size, j : j + size] for i, j in zip(rows, columns, strict=True)]
    )
    return (found - found.mean()) / found.std()


@cache
def pixels(picture: str) -> Tensor:
    """Return a photograph `(3, H, W)` in [0, 1], at half its resolution."""
    if picture == "hopper":
        with Image.open(_sample("grace_hopper.jpg")) as image:
            array = np.asarray(image.convert("RGB"))
    else:
        array = _sklearn().load_sample_image(f"{picture}.jpg")
    x = torch.from_numpy(array.copy()).double().movedim(-1, 0) / 255
    return torch.nn.functional.avg_pool2d(x, 2)


def _terrain(size: int, bandwidth: float) -> Target:
    """Return the kernel density of tiles of the left half of a map of elevations."""
    with np.load(_sample("jacksboro_fault_dem.npz")) as data:
        heights = torch.from_numpy(data["elevation"].astype(float))
    return KernelDensity(patches(heights[None], size), bandwidth)


def _sample(name: str) -> Path:
    """Return the path of one of matplotlib's sample data."""
    return Path(matplotlib.get_data_path(), "sample_data", name)


def _digits(bandwidth: float) -> Target:
    """Return the kernel density of the first 256 of scikit-learn's digits of 8 x 8 pixels."""
    x = torch.from_numpy(_sklearn().load_digits().images[:_PATCHES]).double()[:, None]
    return KernelDensity((x - x.mean()) / x.std(), bandwidth)


def _sklearn() -> Any:
    """Return the data sets of scikit-learn."""
    try:
        return importlib.import_module("sklearn.datasets")
    except ImportError as error:
        install = "pip install 'scoresde[peers]'"
        raise MissingExtraError.by("scikit-learn", install, "its sample images") from error


def _widths(d: int, seed: int) -> Target:
    """Return six modes of widths from 1 to .01, where the axes of each mode differ as much."""
    g = generator_of(_SEED, d, seed)
    largest = torch.logspace(0, -2, 6, dtype=torch.float64)
    spectrum = torch.logspace(0, -4, d, dtype=torch.float64)
    covs = []
    for width in largest:
        q = rotation(d, g)
        covs.append(width**2 * (q * spectrum) @ q.T)
    means = torch.randn(6, d, generator=g, dtype=torch.float64) / math.sqrt(4)
    weights = torch.arange(1, 7, dtype=torch.float64)
    return GaussianMixture(weights / weights.sum(), means, torch.stack(covs))


def _sheets(seed: int, d: int = 144) -> Target:
    """Return twelve modes, each wide in four to eight dimensions and .02 wide in the rest."""
    g = generator_of(_SEED, d, 100 + seed)
    covs = []
    for k in range(12):
        q, wide = rotation(d, g), 4 + k % 5
        spectrum = torch.full((d,), 4e-4, dtype=torch.float64)
        spectrum[:wide] = torch.linspace(1.0, 0.1, wide, dtype=torch.float64)
        covs.append((q * spectrum) @ q.T)
    means = torch.randn(12, d, generator=g, dtype=torch.float64) / math.sqrt(12)
    return GaussianMixture([1 / 12] * 12, means, torch.stack(covs))
