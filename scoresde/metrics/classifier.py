"""Train a small classifier, and use its last hidden layer as a feature map."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from scoresde import checkpoint
from scoresde.checks import check_integer, check_range, check_shape, door
from scoresde.data import Data, batch_indices
from scoresde.errors import (
    CheckpointError,
    DataError,
    NonFiniteError,
    ShapeError,
)
from scoresde.noise.global_rng import forked_rng

__all__ = ["Classifier"]


class Classifier(nn.Module):
    """Classify events, and return the 64 features of the last hidden layer.

    Images `(C, H, W)` pass two convolutions and are pooled to 4x4; events of other shapes are
    flattened. A call on a batch `(B, *)` returns the features `(B, 64)` without an autograd graph,
    so a classifier can be passed as `features=`. After `fit` the mean square of the features is 1,
    over at most 1,024 of the training data.

    Do not compare samples with data that the classifier was trained on: the features of training
    data differ from the features of new data.

    Args:
        event_shape: The shape of one event.
        classes: The number of classes, at least 2.

    Raises:
        ShapeError: The shape is empty, or a side is below 1.
        InvalidValueError: There are fewer than two classes.
    """

    SIZE = 64
    scale: Tensor

    @door
    def __init__(self, event_shape: Sequence[int], classes: int) -> None:
        super().__init__()
        self.event_shape = tuple(event_shape)
        self.classes = classes
        if not self.event_shape or min(self.event_shape) < 1:
            raise ShapeError(f"an event has at least one dimension, got shape {self.event_shape}")
        check_integer("classes", classes, 2)
        if len(self.event_shape) == 3:
            # small images are not reduced by the first layer
            stride = 1 if min(self.event_shape[1:]) < 16 else 2
            self.body = nn.Sequential(
                nn.Conv2d(self.event_shape[0], 32, 5, stride=stride, padding=2), nn.ReLU(),
                nn.Conv2d(32, 64, 3, stride=2, padding=1), nn.ReLU(),
                nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(64 * 16, self.SIZE), nn.ReLU(),
            )  # fmt: skip
        else:
            size = torch.Size(self.event_shape).numel()
            self.body = nn.Sequential(
                nn.Flatten(), nn.Linear(size, 128), nn.ReLU(), nn.Linear(128, self.SIZE), nn.ReLU()
            )
        self.head = nn.Linear(self.SIZE, classes)
        self.register_buffer("scale", torch.ones(()))
        self.float()  # whatever torch's default dtype is

    @classmethod
    @door
    def fit(
        cls,
        data: Data,
        *,
        steps: int = 500,
        batch_size: int = 128,
        lr: float = 2e-3,
        seed: int = 0,
    ) -> Classifier:
        """Return a classifier trained on labelled data by Adam, in seconds.

        Args:
            data: Data with labels.
            steps: The number of updates, at least 1.
            batch_size: The number of events for one update, at least 1.
            lr: The learning rate, positive.
            seed: The seed of the initial weights and of the order of the data; torch's global
                generator is not changed.

        Raises:
            DataError: The data have no labels.
            InvalidValueError: A number is out of range, or there are fewer than two classes.
            NonFiniteError: The training diverged.
        """
        data, label, classes = _labelled(data)
        for name, value in (("steps", steps), ("batch_size", batch_size)):
            check_integer(name, value, 1)
        check_integer("seed", seed, 0)
        check_range("lr", lr, "(0, inf)")
        with forked_rng(int(seed)):
            self = cls(data.event_shape, classes)
        optimizer = torch.optim.Adam(self.parameters(), lr=lr)
        with torch.enable_grad():
            for step in range(steps):
                rows = batch_indices(len(data), batch_size, seed=seed, step=step)
                scores = self.head(self.body(data.batch(rows).float()))
                loss = nn.functional.cross_entropy(scores, label[rows])
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
        self.eval().requires_grad_(False)
        seen = data.batch(batch_indices(len(data), min(len(data), 1024), seed=seed, step=0))
        size = float(self(seen).square().mean().sqrt())
        if not math.isfinite(size):
            raise NonFiniteError(
                f"the training of the classifier diverged at lr = {lr}; take a smaller lr, or "
                "divide the data by their scale"
            )
        self.scale.fill_(size or 1.0)
        return self

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """Return the features `(B, 64)` of a batch `(B, *)`."""
        check_shape("x", x, self.event_shape)
        features: Tensor = self.body(x.to(self.head.weight))
        return features / self.scale

    @torch.no_grad()
    def predict(self, x: Tensor) -> Tensor:
        """Return the most probable class of each event, `(B,)`."""
        scores: Tensor = self.head(self(x) * self.scale)
        return scores.argmax(1)

    def accuracy(self, data: Data) -> float:
        """Return the share of labelled data that are classified correctly."""
        data, label, _ = _labelled(data)
        starts = range(0, len(data), 1024)
        found = torch.cat([self.predict(data.batch(slice(i, i + 1024))) for i in starts])
        return float((found == label).double().mean())

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the classifier to a .safetensors file.

        Raises:
            CheckpointError: The file cannot be written.
        """
        meta = {"classifier": {"event_shape": self.event_shape, "classes": self.classes}}
        checkpoint.save_tensors(path, self.state_dict(), meta)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Classifier:
        """Read what `save` wrote.

        Raises:
            CheckpointError: The file is missing, damaged, or holds something else.
        """
        tensors, meta = checkpoint.load_tensors(path)
        try:
            with forked_rng():  # the initial weights are overwritten
                self = cls(**meta["classifier"])
        except (LookupError, TypeError, ValueError) as error:
            raise CheckpointError(
                f"{path} holds no classifier; write one with Classifier.save"
            ) from error
        checkpoint.load_state(self, tensors, source=str(path))
        return self.eval().requires_grad_(False)


def _labelled(data: Data) -> tuple[Data, Tensor, int]:
    """Return the labelled part of the data, its labels, and the number of classes."""
    label, classes = data.label, data.classes
    if label is None or classes is None or (label < 0).all():
        raise DataError(
            "a classifier needs labels, but these data have none; give data with a condition "
            "'label'"
        )
    kept = (label >= 0).nonzero().flatten()
    return data[kept], label[kept], classes
