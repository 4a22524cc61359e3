r"""Augment samples: replace each at random by an equally probable sample, such as a mirror image.

An augmentation is a function of one sample and a generator, `(x, generator) -> x` of the same
shape. Its random numbers are a function of (seed, step, row of the batch). So resuming a run, or
changing the number of workers or processes, does not change the result.

A model learns the distribution of the augmented data. So flip images only if mirror images are
valid data, and expect shifted samples after training with shifts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import numpy as np
import torch
from torch import Tensor

from scoresde.checks import check_name
from scoresde.errors import InvalidValueError, ShapeError

__all__ = ["AUGMENTATIONS", "Augment", "augmented", "chosen", "hflip", "shift"]

Augment = Callable[[Tensor, torch.Generator], Tensor]
"""A function that maps one sample `(*event)` and a generator to a sample of the same shape."""


def hflip(x: Tensor, generator: torch.Generator) -> Tensor:
    """Return an image `(C, H, W)`, or its mirror image with probability one half."""
    return x.flip(-1) if torch.rand((), generator=generator) < 0.5 else x


def shift(x: Tensor, generator: torch.Generator) -> Tensor:
    """Return an image `(C, H, W)` shifted by up to an eighth of its sides.

    The result is a random crop of the image after padding it by reflection.
    """
    height, width = x.shape[-2:]
    up, left = height // 8, width // 8
    padded = torch.nn.functional.pad(x, (left, left, up, up), mode="reflect")
    i, j = (int(torch.randint(2 * by + 1, (), generator=generator)) for by in (up, left))
    return padded[..., i : i + height, j : j + width]


AUGMENTATIONS: Mapping[str, Augment] = MappingProxyType({"hflip": hflip, "shift": shift})
"""The augmentations by name; both are for images."""


def chosen(names: Sequence[str], event_shape: tuple[int, ...]) -> list[Augment]:
    """Return the augmentations of these names.

    Raises:
        UnknownNameError: A name is unknown.
        InvalidValueError: The samples are not images.
    """
    for name in names:
        check_name("augmentation", name, AUGMENTATIONS)
        if len(event_shape) != 3:
            raise InvalidValueError(
                f"the augmentation {name!r} is for images (C, H, W), not for events of shape "
                f"{event_shape}; pass a function of your own"
            )
    return [AUGMENTATIONS[name] for name in names]


def augmented(
    x: Tensor, augment: Sequence[Augment], *, seed: int, step: int, rows: Sequence[int]
) -> Tensor:
    """Return an augmented batch.

    Args:
        x: `(B, *event)`.
        augment: The augmentations, applied to every sample one after the other.
        seed: The seed of the run.
        step: The number of the batch.
        rows: The row of each of the `B` samples in the whole batch.

    Raises:
        ShapeError: An augmentation returned something other than a sample.
    """
    if not augment:
        return x
    # the 1 separates these random numbers from those of the update, [seed, step]
    words = np.random.SeedSequence([seed, step, 1]).generate_state(max(rows) + 1, np.uint64)
    samples = []
    for sample, row in zip(x, rows, strict=True):
        generator = torch.Generator().manual_seed(int(words[row] >> np.uint64(1)))
        for function in augment:
            found = function(sample, generator)
            if not isinstance(found, Tensor) or found.shape != sample.shape:
                what = tuple(getattr(found, "shape", ())) or type(found).__name__
                raise ShapeError(
                    f"the augmentation {getattr(function, '__name__', function)} returned {what} "
                    f"for a sample of shape {tuple(sample.shape)}; it must keep the shape"
                )
            sample = found.to(sample.dtype)
        samples.append(sample)
    return torch.stack(samples)
