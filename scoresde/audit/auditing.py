r"""Audit a score: evaluate it on held-out data at several noise scales, and test the results."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from scoresde.audit.levels import levels_of
from scoresde.audit.references import Empirical, Exact
from scoresde.audit.result import Audit
from scoresde.audit.subject import Evaluated, Subject
from scoresde.checks import check_integer, door, seeded
from scoresde.data import Data
from scoresde.data.read_for import read_for
from scoresde.errors import InvalidTypeError, InvalidValueError, ShapeError
from scoresde.noise import Noise
from scoresde.objectives.perturbed import check_data
from scoresde.progress import showing
from scoresde.score import evaluating
from scoresde.sde import SDE, Condition, Score, facts, process_of
from scoresde.sde.spacings import even_times
from scoresde.sde.words import sde_in_words
from scoresde.targets import Target

__all__ = ["audit"]


@door
def audit(
    score: Score,
    sde: SDE | None,
    x: Tensor | Data,
    *,
    condition: Mapping[str, Any] | None = None,
    target: Target | None = None,
    train: Tensor | Data | None = None,
    train_condition: Mapping[str, Any] | None = None,
    levels: int = 13,
    samples: int = 128,
    steps: int = 48,
    seed: int = 0,
    batch_size: int = 128,
    progress: bool | None = None,
) -> Audit:
    r"""Test at which noise scales a score is wrong, on held-out data.

    For every noise scale the result has the losses of the score and of a linear denoiser; the
    results of several tests, which the exact score passes whatever the data are
    (`scoresde.audit.identities`); and the distance between samples of the reverse SDE and of the
    probability flow. The exact score fails a test by chance in at most about one of a hundred
    audits.

    Args:
        score: A `ScoreModel`, or any callable `(x, t) -> score`.
        sde: The process of the score; None takes `scoresde.facts(score).sde`.
        x: Held-out data `(n, *)`, floating point, n at least 16. Or a `Data`: it is converted to
            model units, and its conditions are used. To detect that the score is too large or too
            small by 1 %, about 500 images are needed, or 10,000 points in the plane.
        condition: The conditions of the samples by name, one row for each sample.
        target: The distribution of the data, if it is known. Then the result also has the smallest
            possible loss and the error of the score.
        train: All training data, `(N, *)` or a `Data`, for measures of memorisation.
        train_condition: The conditions of the training data.
        levels: The number of noise scales, at least 2, about equally spaced in log-SNR from `T` to
            `eps`; for an SDE with discrete levels they are chosen among these.
        samples: The number of samples to draw by the SDE, and again by the flow, at least 2; not
            more than n are drawn.
        steps: The number of steps of the SDE and of the flow, at least `levels` - 1. With too few
            steps their samples differ even for the exact score.
        seed: The seed, an integer in [0, 2**64).
        batch_size: The number of states in one evaluation, at least 1.
        progress: True shows a bar, False nothing; None shows a bar in a terminal or a notebook, and
            occasional lines elsewhere.

    Raises:
        InvalidValueError, InvalidTypeError, ShapeError: An argument has a wrong value, type or
            shape.
        NonFiniteError: `x` or the score has a NaN or an infinity.
    """
    sde = process_of(score, sde)
    x, condition = read_for(score, x, condition)
    given = _check(score, x, condition, target)
    if train is not None:
        train, train_condition = read_for(score, train, train_condition)
        learnt_given = _check(score, train, train_condition, None, name="train")
        if train.shape[1:] != x.shape[1:]:
            raise ShapeError(
                f"train= has events of shape {tuple(train.shape[1:])}, but x has "
                f"{tuple(x.shape[1:])}; give events of the same shape"
            )
        train = train.detach()
    if (train is not None or train_condition) and set(train_condition or {}) != set(
        condition or {}
    ):
        raise InvalidValueError(
            f"train_condition= has the names {sorted(train_condition or {})}, but condition= has "
            f"{sorted(condition or {})}; give the same names"
        )
    x = x.detach()
    for name, value, least in (
        ("levels", levels, 2), ("samples", samples, 2), ("steps", steps, levels - 1),
        ("batch_size", batch_size, 1),
    ):  # fmt: skip
        check_integer(name, value, least)
    Noise.of(seed, 1)  # this also checks the seed
    samples = min(samples, len(x))
    last = steps if sde.levels is None else min(steps, sde.levels - 1)
    grid = even_times(sde, last)
    marks = torch.linspace(0, last, min(levels, last + 1), dtype=torch.float64).round().long()
    times = grid[marks]
    if not (sde.sigma(times) > 0).all():
        raise InvalidValueError(f"this SDE has no noise at eps = {sde.eps}; give it a larger eps")
    looks = (2 + 2 * (train is not None)) * len(times) * -(-len(x) // batch_size)
    with (
        torch.no_grad(),
        evaluating(score),
        showing(
            looks + 2 * (last + 1) * -(-samples // batch_size), "audit", unit="batch", show=progress
        ) as bar,
    ):
        exact = None if target is None else Exact(sde, target)
        held = Subject(score, sde, x, given, exact, seed, batch_size, bar.update)
        seen = [held.evaluated(t) for t in times]
        learnt: list[Evaluated] = []
        if train is not None:
            rows = torch.randperm(len(train), generator=seeded(seed))
            rows = rows[: len(x)].to(train.device)
            chosen = None if learnt_given is None else learnt_given.rows(rows)
            law = Empirical(sde, train, learnt_given, rows)
            known = Subject(score, sde, train[rows], chosen, law, seed, batch_size, bar.update)
            learnt = [known.evaluated(t) for t in times]
        drawn = held.draw(grid, marks, samples)
    found = levels_of(sde, times, x, seen, learnt, drawn)
    return Audit(found, sde_in_words(sde), math.prod(x.shape[1:]), len(x), samples, last)


def _check(
    score: Score,
    x: Tensor,
    condition: Mapping[str, Any] | None,
    target: Target | None,
    name: str = "x",
) -> Condition | None:
    check_data(x)
    event = tuple(x.shape[1:])
    if target is not None and not hasattr(target, "responsibilities"):
        raise InvalidTypeError(f"target= takes a target of scoresde.targets, got {target!r}")
    known = facts(score)
    of_target = None if target is None else target.event_shape
    for what, shape in (("score", known.event_shape), ("target", of_target)):
        if shape is not None and tuple(shape) != event:
            raise ShapeError(
                f"the {what} takes events of shape {tuple(shape)}, but {name} has events of shape "
                f"{event}"
            )
    if len(x) < 16 or math.prod(event) == 0:
        raise ShapeError(
            f"an audit needs {name} of at least 16 samples with at least one entry each, got shape "
            f"{tuple(x.shape)}"
        )
    return Condition.of(condition, len(x), known.conditions, x.device)
